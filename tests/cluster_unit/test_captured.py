"""Recorded frames: streams put together, markers found wherever they are."""

import struct
from collections.abc import Iterable
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.e2e.captured import LENGTH, Ending, frames, readable, segment, streams

FLOW = "10.244.0.5:40000 → 10.244.0.9:80"
MARKER = b"the-marker"


def packet(payload: bytes, protocol: int, *, fragment: int = 0, padding: bytes = b"") -> bytes:
    """In an Ethernet frame, from .5 to .9."""
    addresses = IPv4Address("10.244.0.5").packed + IPv4Address("10.244.0.9").packed
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 1, fragment, 64, protocol, 0) + addresses
    return bytes(12) + b"\x08\x00" + head + payload + padding


def tcp(sequence: int, data: bytes, padding: bytes = b"") -> bytes:
    head = struct.pack(">HHIIBBHHH", 40000, 80, sequence % (1 << 32), 0, 0x50, 0, 0, 0, 0)
    return packet(head + data, 6, padding=padding)


def test_a_segment_ends_where_its_packet_does() -> None:
    """Short frames are padded (IEEE 802.3)."""
    found = segment(tcp(7, b"ab", padding=bytes(20)))
    assert found is not None
    assert (found.flow, found.sequence, found.data) == (FLOW, 7, b"ab")


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        bytes(14),
        tcp(1, b""),
        tcp(1, b"data")[:40],
        packet(bytes(8) + MARKER, 17),
        packet(bytes(20) + MARKER, 6, fragment=0x2000),
        packet(bytes(20) + MARKER, 6, fragment=185),
    ],
    ids=["nothing", "not IPv4", "no data", "cut off", "UDP", "first fragment", "last fragment"],
)
def test_what_is_no_segment(frame: bytes) -> None:
    assert segment(frame) is None


@given(st.binary(max_size=200))
def test_no_bytes_are_an_error(frame: bytes) -> None:
    segment(frame)
    assert isinstance(list(frames(frame)), list)
    assert isinstance(readable([frame, bytes(12) + b"\x08\x00" + frame], [MARKER]), dict)


@given(
    st.binary(min_size=1, max_size=60),
    st.lists(st.tuples(st.integers(0, 59), st.integers(1, 20)), max_size=12),
    st.integers(0, (1 << 32) - 1),
    st.randoms(use_true_random=False),
)
def test_streams_are_what_was_sent(data: bytes, again: list[tuple[int, int]], first: int, dice: object) -> None:
    """In any order behind the first, seen twice, sent again in other pieces, with numbers that wrap."""
    pieces = [(at, data[at : at + 7]) for at in range(0, len(data), 7)]
    pieces += [(at, data[at : at + size]) for at, size in again if at < len(data)]
    shuffled = pieces[1:] * 2
    dice.shuffle(shuffled)  # type: ignore[attr-defined]  # random.Random, which hypothesis names nowhere
    assert streams(tcp(first + at, piece) for at, piece in [pieces[0], *shuffled]) == {FLOW: data}


@pytest.mark.parametrize(
    ("sent", "where"),
    [
        ([tcp(1, b"x" + MARKER)], [FLOW]),
        ([tcp(1, b"x" + MARKER[:3]), tcp(5, MARKER[3:])], [FLOW]),
        ([tcp(5, MARKER[3:]), tcp(1, b"x" + MARKER[:3])], [FLOW]),
        ([packet(bytes(8) + MARKER, 17)], ["a frame"]),
        ([bytes(14) + MARKER], ["a frame"]),
        ([packet(bytes(20) + MARKER, 6, fragment=0x2000)], ["a frame"]),
    ],
    ids=["a segment", "across segments", "out of order", "UDP", "not IPv4", "a fragment"],
)
def test_a_marker_is_found(sent: Iterable[bytes], where: list[str]) -> None:
    assert readable(sent, [MARKER, b"another"]) == {MARKER: where}


def test_a_record_that_is_cut_off_ends_before_the_last_frame() -> None:
    record = LENGTH.pack(2) + b"ab" + LENGTH.pack(3) + b"cde"
    assert list(frames(record)) == [b"ab", b"cde"]
    assert list(frames(record[:-1])) == [b"ab"]


@pytest.mark.parametrize(
    ("ending", "complete"),
    [(Ending("asked", 0), True), (Ending("asked", 1), False), (Ending("time", 0), False), (Ending("limit", 0), False)],
)
def test_only_a_complete_record_proves_that_nothing_was_sent(ending: Ending, complete: bool) -> None:
    assert ending.complete is complete
