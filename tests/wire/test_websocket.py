"""WebSocket framing: literal bytes of RFC 6455, every way to cut the stream, and hostile input."""

import contextlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.errors import PeerClosed, ProtocolError, TunnelError
from meshdev.wire.framing import PlainFraming
from meshdev.wire.spdy import SpdyFraming
from meshdev.wire.websocket import WebSocketFraming

MASK = bytes.fromhex("37fa213d")  # RFC 6455, 5.7


def framing() -> WebSocketFraming:
    return WebSocketFraming(PlainFraming(), lambda: MASK)


def server_frame(payload: bytes, opcode: int = 2, *, final: bool = True) -> bytes:
    first = bytes([(0x80 if final else 0) | opcode])
    if len(payload) < 126:
        return first + bytes([len(payload)]) + payload
    if len(payload) < 65536:
        return first + b"\x7e" + len(payload).to_bytes(2, "big") + payload
    return first + b"\x7f" + len(payload).to_bytes(8, "big") + payload


def received(socket: WebSocketFraming, *pieces: bytes) -> bytes:
    return b"".join(bytes(part) for piece in pieces for part in socket.unwrap(memoryview(piece)))


def unmasked(message: bytes) -> bytes:
    """Payload of one client message; asserts that it is whole and binary."""
    size, start = message[1] & 0x7F, 2
    assert message[1] & 0x80
    if size >= 126:
        start = 4 if size == 126 else 10
        size = int.from_bytes(message[2:start], "big")
    mask, masked = message[start : start + 4], message[start + 4 :]
    assert message[0] == 0x82
    assert len(masked) == size
    return bytes(byte ^ mask[i % 4] for i, byte in enumerate(masked))


def test_a_message_is_the_rfcs_example() -> None:
    assert framing().message(b"Hello", 1) == bytes.fromhex("8185 37fa213d 7f9f4d5158")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 70000])
def test_wrap_masks_in_place(size: int) -> None:
    socket = framing()
    payload = bytes(i % 251 for i in range(size))
    buffer = bytearray(socket.headroom) + payload
    view = socket.wrap(buffer, socket.headroom, len(buffer))
    assert isinstance(view, memoryview)
    assert view.obj is buffer
    assert unmasked(bytes(view)) == payload


def test_spdy_goes_inside() -> None:
    socket = WebSocketFraming(SpdyFraming(), lambda: MASK)
    buffer = bytearray(socket.headroom) + b"hello"
    assert (
        unmasked(bytes(socket.wrap(buffer, socket.headroom, len(buffer))))
        == bytes.fromhex("00000003 00000005") + b"hello"
    )
    frame = bytes.fromhex("00000003 00000005") + b"world"
    assert received(socket, server_frame(frame[:3]), server_frame(frame[3:])) == b"world"


def test_the_inner_framings_answers_are_wrapped() -> None:
    socket = WebSocketFraming(SpdyFraming(), lambda: MASK)
    ping = bytes.fromhex("80030006 00000004 00000002")
    received(socket, server_frame(ping))
    assert unmasked(socket.outgoing()) == ping
    assert socket.outgoing() == b""


@given(st.lists(st.binary(max_size=400), max_size=6), st.data())
def test_any_cut_of_the_stream_gives_the_same_payload(payloads: list[bytes], data: st.DataObject) -> None:
    stream = bytearray()
    for payload in payloads:
        middle = data.draw(st.integers(0, len(payload)))
        stream += server_frame(payload[:middle], 2, final=False)
        stream += data.draw(st.sampled_from([b"", server_frame(b"beat", 9), server_frame(b"", 10)]))
        stream += server_frame(payload[middle:], 0)
    bounds = [0, *sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20))), len(stream)]
    pieces = [bytes(stream[a:b]) for a, b in pairwise(bounds)]
    assert received(framing(), *pieces) == b"".join(payloads)


@given(st.binary(max_size=1000))
def test_hostile_bytes_raise_tunnel_errors_only(noise: bytes) -> None:
    socket = WebSocketFraming(SpdyFraming(), lambda: MASK)
    with contextlib.suppress(TunnelError):
        received(socket, noise[: len(noise) // 2], noise[len(noise) // 2 :])


def test_a_long_message_is_not_waited_for() -> None:
    socket = framing()
    whole = server_frame(b"x" * 100_000)
    assert received(socket, whole[:50_000]) == b"x" * (50_000 - 10)


def test_a_ping_is_answered() -> None:
    socket = framing()
    received(socket, server_frame(b"Hello", 9))
    assert socket.outgoing() == bytes.fromhex("8a85 37fa213d 7f9f4d5158")


def test_a_flood_of_pings_ends_the_connection() -> None:
    with pytest.raises(ProtocolError, match="faster"):
        received(framing(), server_frame(b"", 9) * 5000)


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"\x03\xe8bye", r"code 1000: bye\)"),
        (b"\x03\xe9", r"code 1001\)"),
        (b"", r"code 1005\)"),
    ],
)
def test_a_close_frame_says_why(payload: bytes, words: str) -> None:
    with pytest.raises(PeerClosed, match=words):
        received(framing(), server_frame(payload, 8))


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        ("c200", "reserved"),
        ("8285 37fa213d 0000000000", "masked"),
        ("8105 48656c6c6f", "opcode 1"),
        ("8000", "opcode 0"),
        ("0201 00 8201 00", "opcode 2"),
        ("8b00", "unknown opcode 11"),
        ("0900", "fragmented"),
        ("897e 0080", "too long"),
        ("827e 0005", "length"),
        ("827f 0000000000000100", "length"),
        ("827f ffffffffffffffff", "length"),
        ("8801 00", "one byte"),
    ],
)
def test_faults(frame: str, words: str) -> None:
    with pytest.raises(ProtocolError, match=words):
        received(framing(), bytes.fromhex(frame))
