"""A pump between a memory device and a socket, with the test at both far ends."""

import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field

from meshdev.errors import MeshdevError
from meshdev.pump.loop import Loop
from meshdev.pump.pump import Pump
from meshdev.pump.transport import ByteTransport, SocketTransport
from meshdev.tun.device import TunDevice
from meshdev.tun.memory import memory_pair
from meshdev.wire import frames
from meshdev.wire.framing import Framing, PlainFraming


def packet(number: int, size: int = 60) -> bytes:
    """Something that looks like a packet to a memory device, told from others by its number."""
    return bytes(frames.VNET_HEADER_SIZE) + number.to_bytes(4, "big") + bytes(size - 14)


def numbers(packets: Iterable[bytes]) -> list[int]:
    """Which packets these are."""
    return [int.from_bytes(one[frames.VNET_HEADER_SIZE :][:4], "big") for one in packets]


def take(fd: int, limit: int = 1 << 20) -> list[bytes]:
    """Every packet that waits at a queue's descriptor."""
    taken: list[bytes] = []
    while len(taken) < limit:
        try:
            taken.append(os.read(fd, 1 << 17))
        except BlockingIOError:
            break
    return taken


def put(fd: int, packets: Iterable[bytes]) -> int:
    """Write packets until the queue is full; how many it took."""
    count = 0
    for one in packets:
        try:
            os.write(fd, one)
        except BlockingIOError:
            break
        count += 1
    return count


def drain(sock: socket.socket) -> bytes:
    """All bytes that wait at a non-blocking socket; the end of the stream is as good as nothing."""
    data = bytearray()
    while True:
        try:
            piece = sock.recv(1 << 20)
        except BlockingIOError:
            return bytes(data)
        if not piece:
            return bytes(data)
        data += piece


@dataclass
class End:
    """A pump under test: *kernel* is the far side of its TUN queue, *wire* the far side of its stream."""

    pump: Pump
    device: TunDevice
    kernel: int
    far_device: TunDevice
    wire: socket.socket
    ended: list[MeshdevError]
    heard: list[tuple[int, bytes]] = field(default_factory=list)
    decoder: frames.FrameDecoder = field(default_factory=frames.FrameDecoder)

    def attach(self) -> None:
        self.pump.attach(self.device.queues[0].fileno(), self.device.offload)

    def sent(self) -> list[tuple[int, bytes]]:
        """Frames that came out on the wire since the last call."""
        return [(kind, bytes(body)) for kind, body in self.decoder.feed(memoryview(drain(self.wire)))]

    def close(self) -> None:
        self.wire.close()
        self.device.close()
        self.far_device.close()


def make_end(
    loop: Loop,
    framing: Framing | None = None,
    *,
    buffer: int | None = None,
    transport: ByteTransport | None = None,
) -> End:
    """A pump that is neither started nor attached.

    *buffer* bounds the kernel's buffers of its stream; a *transport* takes the place of the stream to ``wire``.
    """
    near, far = socket.socketpair()
    far.setblocking(False)
    for sock in (near, far):
        if buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
    if transport is not None:
        near.close()
    device, far_device = memory_pair()
    end: End
    ended: list[MeshdevError] = []
    pump = Pump(
        loop,
        transport or SocketTransport(near),
        framing or PlainFraming(),
        on_frame=lambda kind, body: end.heard.append((kind, body)),
        on_end=ended.append,
    )
    end = End(pump, device, far_device.queues[0].fileno(), far_device, far, ended)
    return end
