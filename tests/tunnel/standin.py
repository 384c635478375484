"""A laptop's end in memory, and the ways to a manager: straight, through a relay that can fail, or to a script."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from meshdev.pump.transport import ByteTransport, SocketTransport
from meshdev.tun.device import TunDevice
from meshdev.tun.memory import memory_pair
from meshdev.tunnel.pool import Pool
from meshdev.wire.control import Hello, Welcome
from meshdev.wire.framing import Framing, PlainFraming
from tests.manager.standin import HELLO
from tests.waiting import until

Address = tuple[str, int]


@dataclass(frozen=True)
class Connection:
    """What dialling gives."""

    transport: ByteTransport
    framing: Framing
    kind: str = "plain"


async def dial(address: Address) -> Connection:
    """A plain TCP connection in place of a port-forward."""
    sock = socket.socket()
    sock.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return Connection(SocketTransport(sock), PlainFraming())


@dataclass
class Laptop:
    """A pool over a device in memory; ``kernel`` is the laptop's side of each queue."""

    device: TunDevice
    far: TunDevice
    welcomes: list[Welcome] = field(default_factory=list)

    @property
    def kernel(self) -> list[int]:
        return [queue.fileno() for queue in self.far.queues]

    def pool(
        self,
        dialling: Callable[[], Awaitable[Connection]],
        hello: Hello = HELLO,
        on_welcome: Callable[[Welcome], Awaitable[None]] | None = None,
    ) -> Pool:
        return Pool(self.device.queues, dialling, hello, on_welcome or self._note)

    async def _note(self, welcome: Welcome) -> None:
        self.welcomes.append(welcome)

    def close(self) -> None:
        self.device.close()
        self.far.close()


def make_laptop(carriers: int = 1) -> Laptop:
    return Laptop(*memory_pair(carriers))


class Relay:
    """Copies between a client and *target*; can be frozen (a black hole) and cut (an end of the stream)."""

    def __init__(self, target: Address) -> None:
        self.target = target
        self.address: Address = ("", 0)
        self.accepted = 0
        self._open = asyncio.Event()
        self._open.set()
        self._writers: set[asyncio.StreamWriter] = set()

    def freeze(self) -> None:
        self._open.clear()

    def thaw(self) -> None:
        self._open.set()

    def cut(self) -> None:
        for writer in list(self._writers):
            writer.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Relay"]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = server.sockets[0].getsockname()
        try:
            yield self
        finally:
            server.close()
            self.thaw()
            self.cut()
            await until(lambda: not self._writers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._writers.add(writer)
        try:
            far_reader, far_writer = await asyncio.open_connection(*self.target)
            self._writers.add(far_writer)
            try:
                await asyncio.gather(self._copy(reader, far_writer), self._copy(far_reader, writer))
            finally:
                far_writer.close()
                self._writers.discard(far_writer)
        finally:
            writer.close()
            self._writers.discard(writer)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def scripted(answers: Sequence[bytes], *, hang_up: bool = False) -> AsyncIterator[Address]:
    """A server that answers each connection's first bytes with the next of *answers* (the last one for ever)."""
    left = list(answers)
    writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        try:
            await reader.read(1 << 16)
            writer.write(left.pop(0) if len(left) > 1 else left[0])
            await writer.drain()
            if hang_up:
                writer.write_eof()  # what is still on its way to us must not turn the end into a reset
            while await reader.read(1 << 16):
                pass
        except ConnectionError:
            pass
        finally:
            writer.close()
            writers.discard(writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()
        for writer in list(writers):
            writer.close()
        await until(lambda: not writers)
