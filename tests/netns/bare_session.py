"""A session without a device, with hand-made packets: the test is its kernel."""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

import pytest

from meshdev.config import GRACE_SECONDS, TUNNEL_PORT
from meshdev.wire import frames
from meshdev.wire.control import Close, Hello, Welcome, decode, encode
from meshdev.wire.frames import PACKET, PING, PONG, frame
from tests.manager.standin import hello
from tests.netns.cluster import METADATA, POD, Cluster

PORT = 5000


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ip_packet(source: IPv4Address, target: IPv4Address, protocol: int, body: bytes) -> bytes:
    def header(check: int) -> bytes:
        return struct.pack(
            ">BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 0, 0, 64, protocol, check, source.packed, target.packed
        )

    return bytes(frames.VNET_HEADER_SIZE) + header(checksum(header(0))) + body


def udp(source: IPv4Address, target: IPv4Address, text: bytes, port: int = PORT) -> bytes:
    """A datagram from port 6000, without its optional checksum."""
    return ip_packet(source, target, 17, struct.pack(">HHHH", 6000, port, 8 + len(text), 0) + text)


def syn(source: IPv4Address, target: IPv4Address, port: int) -> bytes:
    body = struct.pack(">HHIIBBHHH", 6000, port, 1, 0, 5 << 4, 2, 1000, 0, 0)
    pseudo = source.packed + target.packed + struct.pack(">BBH", 0, 6, len(body))
    return ip_packet(source, target, 6, body[:16] + struct.pack(">H", checksum(pseudo + body)) + body[18:])


def connect(cluster: Cluster) -> socket.socket:
    with cluster.manager.inside():
        return socket.create_connection(("127.0.0.1", TUNNEL_PORT), timeout=10)


class Session:
    """A session without a device: the test is its kernel."""

    def __init__(self, cluster: Cluster, words: Hello) -> None:
        self._cluster = cluster
        self._holder = words.holder
        self._sock = connect(cluster)
        self._decoder = frames.FrameDecoder()
        self._waiting: list[tuple[int, bytes]] = []
        self.send(encode(words))
        welcome = decode(*self.frame())
        assert isinstance(welcome, Welcome)
        self.welcome = welcome
        self.address = welcome.address

    def send(self, *pieces: bytes) -> None:
        self._sock.sendall(b"".join(pieces))

    def packets(self, *packets: bytes) -> None:
        self.send(*(frame(PACKET, one) for one in packets))

    def frame(self) -> tuple[int, bytes]:
        while not self._waiting:
            data = self._sock.recv(1 << 17)
            assert data, "the manager ended the carrier"
            self._waiting += [(kind, bytes(body)) for kind, body in self._decoder.feed(memoryview(data))]
        return self._waiting.pop(0)

    def received(self) -> list[bytes]:
        """The packets that came before the answer to a heartbeat sent now."""
        self.send(frame(PING, b"question"))
        packets = []
        while (got := self.frame())[0] != PONG:
            packets.append(got[1])
        return [packet for packet in packets if packet[frames.VNET_HEADER_SIZE] >> 4 == 4]

    def close(self) -> None:
        """Gone when this returns: the manager answers the observer after it has undone the session."""
        with self._sock:
            self.send(encode(Close("bye", "")))
            while self._sock.recv(1 << 17):
                pass
        self.observe()

    def vanish(self) -> None:
        """Cut without a goodbye; gone, its grace too, when this returns."""
        self._sock.close()
        self.until_gone()

    def until_gone(self) -> None:
        """Wait until the manager has no session of this name."""
        holder = self._holder.encode()
        deadline = time.monotonic() + 2 * GRACE_SECONDS
        while holder in self.observe():
            assert time.monotonic() < deadline, "the session is still there"
            time.sleep(0.1)

    def observe(self) -> bytes:
        """What the manager tells an observer."""
        told = b""
        with connect(self._cluster) as observer:
            observer.sendall(encode(hello("observer", observer=True)))
            while data := observer.recv(1 << 17):
                told += data
        return told


@contextmanager
def pod_listener(cluster: Cluster, address: IPv4Address = POD) -> Iterator[socket.socket]:
    with cluster.pod.inside():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        sock.settimeout(10)
        sock.bind((str(address), PORT))
        yield sock


def received(session: Session, enough: Callable[[list[bytes]], bool]) -> list[bytes]:
    packets: list[bytes] = []
    deadline = time.monotonic() + 10  # TCP sends again what came before the queue was attached
    while time.monotonic() < deadline:
        packets += session.received()
        if enough(packets):
            return packets
    raise AssertionError(f"it never came: {packets}")


def arrives_alone(cluster: Cluster, session: Session, *forbidden: bytes) -> None:
    """None of *forbidden* reaches the pod: the honest datagram sent behind each of them is the next to arrive."""
    with pod_listener(cluster) as pod, pod_listener(cluster, METADATA) as metadata:
        for number, packet in enumerate(forbidden):
            honest = str(number).encode()
            session.packets(packet, udp(session.address, POD, honest))
            assert pod.recv(100) == honest
        metadata.setblocking(False)
        with pytest.raises(BlockingIOError):
            metadata.recv(100)
