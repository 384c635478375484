"""Tunnel frames: literal bytes both ways, every way to cut the stream, and what a peer may not claim."""

import contextlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.errors import ProtocolError
from meshdev.wire.frames import (
    CLOSE,
    HEADER_SIZE,
    HELLO,
    MAX_CONTROL,
    MAX_PACKET,
    MIN_PACKET,
    OPTIONAL,
    PACKET,
    PING,
    PING_SIZE,
    PONG,
    FrameDecoder,
    frame,
    header,
)

Frame = tuple[int, bytes]

packets = st.tuples(st.just(PACKET), st.binary(min_size=MIN_PACKET, max_size=200))
heartbeats = st.tuples(st.sampled_from([PING, PONG]), st.binary(min_size=PING_SIZE, max_size=PING_SIZE))
messages = st.tuples(st.sampled_from([HELLO, CLOSE, 0x7F, OPTIONAL, 0xFF]), st.binary(max_size=200))


def decoded(decoder: FrameDecoder, *pieces: bytes) -> list[Frame]:
    return [(kind, bytes(body)) for piece in pieces for kind, body in decoder.feed(memoryview(piece))]


@pytest.mark.parametrize(
    ("kind", "body", "literal"),
    [
        (PACKET, bytes(30), "01 00001e" + "00" * 30),
        (PING, b"12345678", "04 000008 3132333435363738"),
        (HELLO, b"{}", "02 000002 7b7d"),
        (CLOSE, b"", "06 000000"),
        (OPTIONAL | 3, b"x", "83 000001 78"),
    ],
)
def test_literal_bytes_in_both_directions(kind: int, body: bytes, literal: str) -> None:
    wire = bytes.fromhex(literal)
    assert frame(kind, body) == wire
    assert decoded(FrameDecoder(), wire) == [(kind, body)]


def test_a_packet_may_be_as_long_as_ipv4_allows_and_no_longer() -> None:
    wire = frame(PACKET, bytes(MAX_PACKET))
    assert wire[:HEADER_SIZE].hex() == "01010009"
    assert decoded(FrameDecoder(), wire) == [(PACKET, bytes(MAX_PACKET))]
    with pytest.raises(ValueError, match="at most 65545"):
        frame(PACKET, bytes(MAX_PACKET + 1))
    with pytest.raises(ValueError, match="at most 65536"):
        frame(HELLO, bytes(MAX_CONTROL + 1))


@given(st.lists(packets | heartbeats | messages, max_size=12), st.data())
def test_any_cut_of_the_stream_gives_the_same_frames(sent: list[Frame], data: st.DataObject) -> None:
    wire = b"".join(frame(kind, body) for kind, body in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=20)))
    bounds = [0, *cuts, len(wire)]
    pieces = [wire[start:end] for start, end in itertools.pairwise(bounds)]
    assert decoded(FrameDecoder(), *pieces) == sent


def test_byte_by_byte() -> None:
    sent = [(PACKET, bytes(range(40))), (CLOSE, b""), (PING, b"abcdefgh")]
    wire = b"".join(frame(*one) for one in sent)
    assert decoded(FrameDecoder(), *(wire[i : i + 1] for i in range(len(wire)))) == sent


def test_whole_frames_are_not_copied() -> None:
    wire = bytearray(frame(PACKET, bytes(30)) + frame(PACKET, bytes(40)))
    assert [body.obj is wire for _, body in FrameDecoder().feed(memoryview(wire))] == [True, True]


@pytest.mark.parametrize(
    ("literal", "message"),
    [
        ("01 01000a", "claims 65546 bytes"),
        ("01 ffffff", "claims 16777215 bytes"),
        ("02 010001", "claims 65537 bytes"),
        ("ff ffffff", "claims 16777215 bytes"),
        ("01 00001d", "no IP header"),
        ("01 000000", "no IP header"),
        ("04 000007", "heartbeat holds 7 bytes"),
        ("05 000009", "heartbeat holds 9 bytes"),
    ],
)
def test_an_impossible_length_is_refused_before_its_body_comes(literal: str, message: str) -> None:
    wire = bytes.fromhex(literal)
    for pieces in ([wire], [wire[:1], wire[1:]], [frame(CLOSE, b"") + wire[:3], wire[3:]]):
        with pytest.raises(ProtocolError, match=message):
            decoded(FrameDecoder(), *pieces)


@given(st.lists(st.binary(max_size=300), max_size=6))
def test_hostile_bytes_raise_protocol_errors_only(pieces: list[bytes]) -> None:
    with contextlib.suppress(ProtocolError):
        decoded(FrameDecoder(), *pieces)


def test_a_truncated_frame_gives_nothing() -> None:
    decoder = FrameDecoder()
    assert decoded(decoder, frame(PACKET, bytes(30))[:-1]) == []
    assert decoded(decoder, b"\0") == [(PACKET, bytes(30))]


def test_the_decoder_holds_one_unfinished_frame_only() -> None:
    decoder = FrameDecoder()
    huge = (frame(PACKET, bytes(MAX_PACKET)) * 8)[:-1]
    assert len(decoded(decoder, huge)) == 7
    assert len(decoder._stash) < HEADER_SIZE + MAX_PACKET


def test_header() -> None:
    assert header(PACKET, 0x010203).hex() == "01010203"
