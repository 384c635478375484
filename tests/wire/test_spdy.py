"""SPDY framing: literal bytes both ways, every way to cut the stream, and hostile input."""

import contextlib
import hashlib
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.errors import PeerClosed, PortForwardError, ProtocolError, TunnelError
from meshdev.wire.spdy import SpdyFraming, opening
from meshdev.wire.spdy_dictionary import DICTIONARY

PING_2 = bytes.fromhex("80030006 00000004 00000002")
SETTINGS = bytes.fromhex("80030004 0000000c 00000001 00000004 00000064")
SYN_REPLY = bytes.fromhex("80030002 00000006 00000003 0000")
WINDOW_UPDATE = bytes.fromhex("80030009 00000008 00000003 00010000")
GOAWAY = bytes.fromhex("80030007 00000008 00000000 00000000")


def data_frame(payload: bytes, stream: int = 3, flags: int = 0) -> bytes:
    return stream.to_bytes(4, "big") + bytes([flags]) + len(payload).to_bytes(3, "big") + payload


def reset(stream: int, status: int) -> bytes:
    return bytes.fromhex("80030003 00000008") + stream.to_bytes(4, "big") + status.to_bytes(4, "big")


def received(framing: SpdyFraming, *pieces: bytes) -> bytes:
    return b"".join(bytes(part) for piece in pieces for part in framing.unwrap(memoryview(piece)))


def test_the_dictionary_is_the_one_of_the_draft() -> None:
    assert len(DICTIONARY) == 1423
    assert hashlib.sha256(DICTIONARY).hexdigest() == "51d27341373f923f3cd88e1eb7162aeaa3723d7585ff2399201dc06498407f02"


def test_opening_is_an_error_stream_and_a_data_stream_with_one_request_id() -> None:
    inflate = zlib.decompressobj(zdict=DICTIONARY)
    rest, seen = opening(9000), []
    while rest:
        length = int.from_bytes(rest[5:8], "big")
        assert rest[:4] == bytes.fromhex("80030001")
        body, flags, rest = rest[8 : 8 + length], rest[4], rest[8 + length :]
        block = inflate.decompress(body[10:])
        words, position = [], 4
        while position < len(block):
            size = int.from_bytes(block[position : position + 4], "big")
            words.append(block[position + 4 : position + 4 + size].decode())
            position += 4 + size
        seen.append((int.from_bytes(body[:4], "big"), flags, body[4:10], words))
    assert seen == [
        (1, 1, bytes(6), ["streamtype", "error", "port", "9000", "requestid", "0"]),
        (3, 0, bytes(6), ["streamtype", "data", "port", "9000", "requestid", "0"]),
    ]


def test_wrap_writes_the_header_into_the_headroom_and_copies_nothing() -> None:
    buffer = bytearray(b"........hello")
    view = SpdyFraming().wrap(buffer, 8, 13)
    assert bytes(view) == bytes.fromhex("00000003 00000005") + b"hello"
    assert view.obj is buffer


def test_wrap_refuses_what_24_bits_cannot_hold() -> None:
    buffer = bytearray(8 + (1 << 24))
    with pytest.raises(ValueError, match="at most 16777215"):
        SpdyFraming().wrap(buffer, 8, len(buffer))


def test_unwrap_yields_slices_of_what_was_received() -> None:
    stream = bytearray(data_frame(b"hello") + data_frame(b"world"))
    parts = list(SpdyFraming().unwrap(memoryview(stream)))
    assert parts == [b"hello", b"world"]
    assert all(part.obj is stream for part in parts)


def test_a_frame_that_is_only_partly_received_is_yielded_at_once() -> None:
    framing = SpdyFraming()
    whole = data_frame(b"0123456789")
    assert received(framing, whole[:11]) == b"012"
    assert received(framing, whole[11:12]) == b"3"
    assert received(framing, whole[12:] + data_frame(b"ab")) == b"456789ab"


@given(st.lists(st.binary(max_size=300), max_size=8), st.data())
def test_any_cut_of_the_stream_gives_the_same_payload(payloads: list[bytes], data: st.DataObject) -> None:
    noise = [b"", SETTINGS, SYN_REPLY, WINDOW_UPDATE, PING_2, data_frame(b""), data_frame(b"", stream=1)]
    stream = b"".join(data.draw(st.sampled_from(noise)) + data_frame(payload) for payload in payloads)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    bounds = [0, *cuts, len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(bounds)]
    assert received(SpdyFraming(), *pieces) == b"".join(payloads)


@given(st.binary(max_size=2000))
def test_hostile_bytes_raise_tunnel_errors_only(noise: bytes) -> None:
    with contextlib.suppress(TunnelError):
        received(SpdyFraming(), noise[: len(noise) // 2], noise[len(noise) // 2 :])


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3), st.binary(max_size=20)), max_size=10))
def test_well_framed_nonsense_raises_tunnel_errors_only(frames: list[tuple[int, int, bytes]]) -> None:
    framing = SpdyFraming()
    with contextlib.suppress(TunnelError):
        for kind, flags, body in frames:
            head = bytes.fromhex("8003") + kind.to_bytes(2, "big") + bytes([flags]) + len(body).to_bytes(3, "big")
            received(framing, head + body)
            framing.outgoing()


def test_a_ping_is_echoed_and_an_echo_is_not() -> None:
    framing = SpdyFraming()
    assert framing.outgoing() == b""
    received(framing, PING_2[:9], PING_2[9:] + bytes.fromhex("80030006 00000004 00000001"))
    assert framing.outgoing() == PING_2
    assert framing.outgoing() == b""


def test_a_flood_of_pings_ends_the_connection() -> None:
    with pytest.raises(ProtocolError, match="faster"):
        received(SpdyFraming(), PING_2 * 1000)


def test_text_on_the_error_stream_is_the_reason() -> None:
    framing = SpdyFraming()
    text = b"dial tcp4 127.0.0.1:9: connect: connection refused"
    received(framing, data_frame(text[:20], stream=1), data_frame(text[20:], stream=1))
    with pytest.raises(PortForwardError, match=r"cluster: dial tcp4 127\.0\.0\.1:9: connect: connection refused$"):
        received(framing, data_frame(b"", stream=1, flags=1))


DATA_FIN, ERROR_FIN = data_frame(b"", flags=1), data_frame(b"", stream=1, flags=1)


@pytest.mark.parametrize(
    ("before", "after"),
    [(DATA_FIN, ERROR_FIN), (reset(3, 5), ERROR_FIN), (b"", GOAWAY), (b"", reset(1, 5)), (DATA_FIN, reset(1, 5))],
)
def test_error_text_wins_over_the_end_around_it(before: bytes, after: bytes) -> None:
    framing = SpdyFraming()
    received(framing, before + data_frame(b"boom", stream=1))
    with pytest.raises(PortForwardError, match="boom"):
        received(framing, after)


def test_what_a_kubelet_sends_when_the_port_is_closed() -> None:
    """Recorded on Kubernetes 1.35, with containerd 1.6: the end of the data stream comes first."""
    framing = SpdyFraming()
    received(framing, bytes.fromhex("80030002 00000014 00000003 78f9e3c6a7c2626060600000 0000ffff"))
    received(framing, bytes.fromhex("80030002 0000000c 00000001 02610000 0000ffff"), DATA_FIN)
    with pytest.raises(PortForwardError, match="error forwarding port 9 to pod"):
        received(framing, data_frame(b"error forwarding port 9 to pod a571", stream=1), ERROR_FIN)


def test_endless_error_text_is_cut() -> None:
    with pytest.raises(PortForwardError) as caught:
        received(SpdyFraming(), data_frame(b"x" * 20_000, stream=1)[:9000])
    assert len(caught.value.message) < 10_000


@pytest.mark.parametrize(
    ("frame", "error", "words"),
    [
        (DATA_FIN + ERROR_FIN, PeerClosed, "the pod closed"),
        (ERROR_FIN + DATA_FIN, PeerClosed, "the pod closed"),
        (GOAWAY, PeerClosed, "closing"),
        (reset(3, 5) + reset(1, 5), PeerClosed, "cancelled"),
        (ERROR_FIN + reset(3, 99), PeerClosed, "status 99"),
        (reset(3, 3), PortForwardError, "refused"),
        (reset(5, 5), ProtocolError, "stream 5"),
        (data_frame(b"x", stream=5), ProtocolError, "stream 5"),
        (data_frame(b"x", stream=0), ProtocolError, "stream 0"),
        (bytes.fromhex("80020004 00000000"), ProtocolError, "version 2"),
        (bytes.fromhex("80030004 00ffffff"), ProtocolError, "16777215"),
        (bytes.fromhex("80030001 00000000"), ProtocolError, "opened a SPDY stream"),
        (bytes.fromhex("80030006 00000003 000000"), ProtocolError, "PING of 3"),
        (bytes.fromhex("80030003 00000000"), ProtocolError, "RST_STREAM of 0"),
        (bytes.fromhex("80030007 00000001 00"), ProtocolError, "GOAWAY of 1"),
    ],
)
def test_ends_and_faults(frame: bytes, error: type[TunnelError], words: str) -> None:
    with pytest.raises(error, match=words):
        received(SpdyFraming(), frame)


def test_payload_in_front_of_the_end_is_delivered() -> None:
    parts = SpdyFraming().unwrap(memoryview(ERROR_FIN + data_frame(b"last", flags=1)))
    assert bytes(next(parts)) == b"last"
    with pytest.raises(PeerClosed):
        next(parts)


def test_the_error_streams_quiet_end_and_reset_are_no_event() -> None:
    framing = SpdyFraming()
    stream = data_frame(b"", stream=1, flags=1) + reset(1, 5) + data_frame(b"on")
    assert received(framing, stream) == b"on"
