"""The pump through the framings of a port-forward, against a stand-in for the API server's end."""

import socket
from collections.abc import Callable, Iterator
from typing import Protocol

import pytest

from meshdev.errors import MeshdevError, PeerClosed, PortForwardError, ProtocolError
from meshdev.pump.loop import Loop
from meshdev.wire.frames import OPTIONAL, PACKET, PING, FrameDecoder, frame
from meshdev.wire.framing import Framing
from meshdev.wire.spdy import SpdyFraming
from meshdev.wire.websocket import WebSocketFraming
from tests.loops import one_round, until
from tests.pump.ends import End, drain, make_end, numbers, packet, put, take

MASK = bytes.fromhex("a1b2c3d4")
SPDY_PING = bytes.fromhex("80030006 00000004 00000002")


class Server(Protocol):
    """The far end of a framing: the bytes of the tunnel out of and into what is on the wire."""

    control: bytearray

    def unwrap(self, data: bytes) -> bytes: ...
    def wrap(self, payload: bytes) -> bytes: ...
    def ping(self) -> bytes: ...


class SpdyServer:
    """Takes SPDY frames apart; everything but data of stream 3 is kept as *control*."""

    def __init__(self) -> None:
        self._rest = b""
        self.control = bytearray()

    def unwrap(self, data: bytes) -> bytes:
        rest, payload = self._rest + data, bytearray()
        while len(rest) >= 8 and len(rest) >= 8 + int.from_bytes(rest[5:8], "big"):
            end = 8 + int.from_bytes(rest[5:8], "big")
            if rest[:4] == b"\0\0\0\3":
                payload += rest[8:end]
            else:
                self.control += rest[:end]
            rest = rest[end:]
        self._rest = rest
        return bytes(payload)

    def wrap(self, payload: bytes) -> bytes:
        return b"\0\0\0\3\0" + len(payload).to_bytes(3, "big") + payload

    def ping(self) -> bytes:
        return SPDY_PING


def unmasked(data: bytes) -> bytes:
    mask = (MASK * (len(data) // 4 + 1))[: len(data)]
    return (int.from_bytes(data, "big") ^ int.from_bytes(mask, "big")).to_bytes(len(data), "big")


class WebSocketServer:
    """Takes masked messages apart and hands what is in them to a SPDY server."""

    def __init__(self) -> None:
        self._rest = b""
        self._inner = SpdyServer()
        self.control = self._inner.control

    def unwrap(self, data: bytes) -> bytes:
        rest, payload = self._rest + data, bytearray()
        while len(rest) >= 2:
            wide = {126: 2, 127: 8}.get(rest[1] & 0x7F, 0)
            size = int.from_bytes(rest[2 : 2 + wide], "big") if wide else rest[1] & 0x7F
            head = 2 + wide + len(MASK)
            if len(rest) < head + size:
                break
            assert (rest[0], rest[head - 4 : head]) == (0x82, MASK)
            payload += self._inner.unwrap(unmasked(rest[head : head + size]))
            rest = rest[head + size :]
        self._rest = rest
        return bytes(payload)

    def wrap(self, payload: bytes) -> bytes:
        inner = self._inner.wrap(payload)
        if len(inner) < 126:
            return bytes([0x82, len(inner)]) + inner
        if len(inner) < 1 << 16:
            return bytes([0x82, 126]) + len(inner).to_bytes(2, "big") + inner
        return bytes([0x82, 127]) + len(inner).to_bytes(8, "big") + inner

    def ping(self) -> bytes:
        return bytes([0x82, len(SPDY_PING)]) + SPDY_PING


def websocket() -> Framing:
    return WebSocketFraming(SpdyFraming(), lambda: MASK)


@pytest.fixture(params=["spdy", "websocket"])
def way(request: pytest.FixtureRequest, loop: Loop) -> Iterator[tuple[End, Server]]:
    make: Callable[[], Framing]
    make, server = (SpdyFraming, SpdyServer()) if request.param == "spdy" else (websocket, WebSocketServer())
    end = make_end(loop, make(), buffer=64 * 1024)
    end.pump.start(ping=False)
    end.attach()
    yield end, server
    end.pump.end(PeerClosed("the test is over"))
    end.close()


def tunnel_frames(decoder: FrameDecoder, payload: bytes) -> list[tuple[int, bytes]]:
    return [(kind, bytes(body)) for kind, body in decoder.feed(memoryview(payload))]


def test_packets_and_control_frames_to_the_cluster(loop: Loop, way: tuple[End, Server]) -> None:
    end, server = way
    decoder, received = FrameDecoder(), list[tuple[int, bytes]]()
    total, sent = 200, 0

    def all_of_it() -> bool:
        nonlocal sent
        sent += put(end.kernel, (packet(number, 30 + 300 * number) for number in range(sent, total)))
        if sent == total // 2:
            end.pump.send(frame(OPTIONAL, b"x" * 1000))
        received.extend(tunnel_frames(decoder, server.unwrap(drain(end.wire))))
        return len([1 for kind, _ in received if kind == PACKET]) == total

    until(loop, all_of_it)
    assert [body for kind, body in received if kind == PACKET] == [packet(n, 30 + 300 * n) for n in range(total)]
    end.pump.send(frame(OPTIONAL, b"x" * 1000))
    assert tunnel_frames(decoder, server.unwrap(drain(end.wire)))[-1] == (OPTIONAL, b"x" * 1000)


@pytest.mark.parametrize("piece", [1, 7, 1000, 100_000])
def test_packets_to_the_laptop_however_the_server_cuts_them(loop: Loop, way: tuple[End, Server], piece: int) -> None:
    end, server = way
    sent = [packet(number, 30 + number) for number in range(20)]
    payload = b"".join(frame(PACKET, one) for one in sent)
    wire = b"".join(server.wrap(payload[start : start + 700]) for start in range(0, len(payload), 700))
    arrived: list[bytes] = []
    for start in range(0, len(wire), piece):
        end.wire.send(wire[start : start + piece])
        one_round(loop)
        arrived += take(end.kernel)
    assert arrived == sent


def test_the_servers_pings_are_echoed_between_packets_even_of_a_full_stream(
    loop: Loop, way: tuple[End, Server]
) -> None:
    end, server = way
    count = 0
    while took := put(end.kernel, (packet(count + index, 1400) for index in range(50))):
        count += took
        one_round(loop)
        one_round(loop)
    end.wire.send(server.ping() * 2)
    one_round(loop)
    decoder, received = FrameDecoder(), list[tuple[int, bytes]]()

    def all_of_it() -> bool:
        received.extend(tunnel_frames(decoder, server.unwrap(drain(end.wire))))
        return len(received) == count

    until(loop, all_of_it)
    assert numbers(body for _, body in received) == list(range(count))
    assert bytes(server.control) == SPDY_PING * 2


def test_a_heartbeat_passes(loop: Loop, way: tuple[End, Server]) -> None:
    end, server = way
    end.wire.send(server.wrap(frame(PING, b"question")))
    one_round(loop)
    assert server.unwrap(drain(end.wire)) == frame(PING + 1, b"question")


REFUSAL = b"error forwarding port 9000 to pod: connection refused"


def data_frame(stream: int, flags: int, payload: bytes) -> bytes:
    return stream.to_bytes(4, "big") + bytes([flags]) + len(payload).to_bytes(3, "big") + payload


@pytest.mark.parametrize(
    ("wire", "kind", "words"),
    [
        (data_frame(1, 1, REFUSAL), PortForwardError, "connection refused"),
        (data_frame(3, 1, b"") + data_frame(1, 1, b""), PeerClosed, "the pod closed"),
        (data_frame(3, 1, b"") + data_frame(1, 1, REFUSAL), PortForwardError, "connection refused"),
        (bytes.fromhex("80030007 00000008 00000000 00000000"), PeerClosed, "closing the port-forward"),
        (data_frame(5, 0, b"x"), ProtocolError, "never opened"),
        (data_frame(3, 0, b"\xff" * 9), ProtocolError, "claims"),
    ],
)
def test_what_the_cluster_says_ends_the_carrier_with_its_words(
    loop: Loop, wire: bytes, kind: type[MeshdevError], words: str
) -> None:
    end = make_end(loop, SpdyFraming())
    end.pump.start(ping=False)
    end.wire.send(wire)
    one_round(loop)
    assert [type(error) for error in end.ended] == [kind]
    assert words in end.ended[0].message
    end.close()


def test_nothing_of_a_read_is_taken_after_the_end(loop: Loop) -> None:
    """One read holds several payloads; the frame in the first one ends the pump."""
    end = make_end(loop, SpdyFraming())
    end.pump._on_frame = lambda *_: end.pump.end(PeerClosed("enough"))
    end.pump.start(ping=False)
    end.attach()
    end.wire.send(b"".join(data_frame(3, 0, one) for one in (frame(OPTIONAL, b""), frame(PACKET, packet(1)), b"\1")))
    one_round(loop)
    assert take(end.kernel) == []
    assert end.wire.recv(1) == b""
    assert isinstance(end.wire, socket.socket)
    end.close()
