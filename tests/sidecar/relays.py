"""The manager's container *relay* in a few lines: TLS 1.2 by SNI, answered once the laptop's program has answered."""

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from typing import Any

from meshdev.config import RELAYS_PORT
from tests.sidecar.certificates import Certificates

#: Of the ClientHello.
_NAME = re.compile(rb"([1-9][0-9]{0,4})\.relay\.meshdev")
#: Before Envoy's own patience with a handshake is over.
_CONNECT_SECONDS = 0.4
_CHUNK = 1 << 16


class Relays:
    """Listens on *address*; relay N leads to port N of *to*, in the network that :attr:`place` enters."""

    def __init__(self, certificates: Certificates, address: str, to: str = "127.0.0.1") -> None:
        self.place: Callable[[], AbstractContextManager[None]] = nullcontext
        self.refuses: set[int] = set()
        """Relays that take nobody's certificate."""
        self.certificates: list[bytes] = []
        """Of those who came."""
        self.resumed = 0
        """How many came without showing it, by an earlier session."""
        self._context = certificates.relay()
        self._address = address
        self._to = to

    def become(self, context: ssl.SSLContext) -> None:
        """Speak TLS by that one from now on."""
        self._context = context

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Relays"]:
        with self.place():
            listener = socket.create_server((self._address, RELAYS_PORT), backlog=1000)
        server = await asyncio.start_server(self._serve, sock=listener)
        try:
            yield self
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with _resetting(writer):
                await self._relay(reader, writer)
        except* (OSError, ssl.SSLError):
            pass  # of either end; the other one sees it

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = await reader.read(_CHUNK)
        name = _NAME.search(hello)
        if name is None:
            raise ConnectionRefusedError
        number = int(name[1])
        laptop = await self._connect(number)
        with _resetting(laptop[1]):
            channel = _Channel(self._context, reader, writer, hello)
            await channel.handshake(lambda: self._refuse(number, channel))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(channel.to(laptop[1]))
                tasks.create_task(channel.back_from(laptop[0]))

    def _refuse(self, number: int, channel: "_Channel") -> bool:
        self.certificates.append(channel.peer)
        self.resumed += channel.resumed
        return number in self.refuses

    async def _connect(self, number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        with self.place():
            sock = socket.socket()
        sock.setblocking(False)
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                await asyncio.get_running_loop().sock_connect(sock, (self._to, number))
        except BaseException:
            sock.close()
            raise
        return await asyncio.open_connection(sock=sock)


class _Channel:
    """TLS on memory: its two directions end one by one."""

    def __init__(
        self, context: ssl.SSLContext, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, hello: bytes
    ) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._incoming.write(hello)
        self._reader = reader
        self._writer = writer

    @property
    def peer(self) -> bytes:
        return self._tls.getpeercert(binary_form=True) or b""

    @property
    def resumed(self) -> bool:
        return bool(self._tls.session_reused)

    async def handshake(self, refuse: Callable[[], bool]) -> None:
        """Our Finished is sent only to whom we do not refuse."""
        await self._do(self._tls.do_handshake)
        if refuse():
            raise ConnectionRefusedError
        await self._flush()

    async def to(self, laptop: asyncio.StreamWriter) -> None:
        while data := await self._read():
            laptop.write(data)
            await laptop.drain()
        laptop.write_eof()

    async def back_from(self, laptop: asyncio.StreamReader) -> None:
        while data := await laptop.read(_CHUNK):
            self._tls.write(data)
            await self._flush()
        self._writer.write_eof()

    async def _read(self) -> bytes:
        try:
            data: bytes = await self._do(lambda: self._tls.read(_CHUNK))
        except ssl.SSLZeroReturnError:
            return b""
        return data

    async def _do(self, step: Callable[[], Any]) -> Any:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                await self._flush()
                if not (data := await self._reader.read(_CHUNK)):
                    raise ConnectionResetError from None
                self._incoming.write(data)

    async def _flush(self) -> None:
        if data := self._outgoing.read():
            self._writer.write(data)
            await self._writer.drain()


@contextmanager
def _resetting(writer: asyncio.StreamWriter) -> Iterator[None]:
    """Where something fails the other end sees a reset (SO_LINGER of 0: socket(7))."""
    try:
        yield
    except BaseException:
        linger = struct.pack("ii", 1, 0)
        with suppress(OSError):
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
        raise
    else:
        writer.close()
