"""The proxy of ``connect --socks``: SOCKS5, HTTP CONNECT and plain HTTP requests on one port (meshdev.wire.socks)."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address
from typing import Final

from meshdev.session.destinations import DestinationError, Destinations
from meshdev.session.laptop import Laptop
from meshdev.session.local_listener import local_listener
from meshdev.session.names import Names
from meshdev.session.state import SessionState
from meshdev.session.streams import CHUNK, Stream, join, reset
from meshdev.wire.socks import Handshake, ProxyRequest, ProxyRequestError
from meshdev.wire.values import ListenAddress

log = logging.getLogger(__name__)

#: At a time; each takes two of the usual 1,024 descriptors. Those that are too many are reset.
MAX_CONNECTIONS: Final = 256
#: For a request, and for a client to take an error and close.
REQUEST_SECONDS: Final = 10.0
_LINGER_SECONDS: Final = 2.0

_BACKLOG: Final = 128


@contextlib.contextmanager
def listening(at: ListenAddress | None) -> Iterator[socket.socket | None]:
    """Listen there inside, where somebody wants that. Raises LaptopError where the port is taken."""
    if at is None:
        yield None
        return
    with local_listener(at.port, "the proxy", "--socks HOST:PORT", str(at.host)) as listener:
        yield listener


def address(listener: socket.socket | None) -> ListenAddress | None:
    """Where it listens: for port 0, at the port that it got."""
    if listener is None:
        return None
    host, port, *_ = listener.getsockname()
    return ListenAddress(ip_address(host), port)


def show(at: ListenAddress | None, state: SessionState) -> SessionState:
    """*state*, with where the proxy listens, and a warning where that is for more than this machine."""
    if at is None:
        return state
    notes = state.notes
    if not at.host.is_loopback:
        notes = (*notes, f"the proxy at {at} takes connections of other machines: they reach the cluster, too")
    return replace(state, socks=str(at), notes=notes)


@asynccontextmanager
async def proxying(listener: socket.socket | None, laptop: Laptop, names: Names) -> AsyncIterator[None]:
    """Serve on *listener* inside, where there is one: names and addresses of the cluster through the tunnel."""
    if listener is None:
        yield
        return
    own = ip_address(listener.getsockname()[0]).is_loopback
    where = Destinations(names.lookup, laptop.routing.inside, laptop.network, loopback=own)
    async with serving(listener, where.connect):
        yield


@asynccontextmanager
async def serving(listener: socket.socket, connect: Callable[[ProxyRequest], Awaitable[Stream]]) -> AsyncIterator[None]:
    """Serve on *listener*, which is closed at the end, with all connections. *connect* raises DestinationError."""
    async with asyncio.TaskGroup() as group:
        proxy = _Proxy(connect, group)
        server = await asyncio.start_server(proxy.accept, sock=listener, limit=CHUNK, backlog=_BACKLOG)
        try:
            yield
        finally:
            server.close()
            proxy.end()


class _Proxy:
    def __init__(self, connect: Callable[[ProxyRequest], Awaitable[Stream]], group: asyncio.TaskGroup) -> None:
        self._connect = connect
        self._group = group
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A new connection."""
        if len(self._tasks) >= MAX_CONNECTIONS:
            log.warning("more than %d connections to the proxy", MAX_CONNECTIONS)
            reset(writer)
            return
        task = self._group.create_task(self._serve((reader, writer)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def end(self) -> None:
        """Cut all connections."""
        for task in self._tasks:
            task.cancel()

    async def _serve(self, client: Stream) -> None:
        try:
            request = await _asked(client)
            if request is not None and (target := await self._connected(request, client)) is not None:
                client[1].write(request.granted())
                target[1].write(request.first)
                await join(client, target)
        except* OSError as error:
            log.debug("a connection of the proxy ended: %s", error.exceptions[0])
        finally:
            if not client[1].is_closing():
                reset(client[1])

    async def _connected(self, request: ProxyRequest, client: Stream) -> Stream | None:
        try:
            return await self._connect(request)
        except DestinationError as error:
            log.debug("proxy: %s", error)
            await _answer_and_close(client, request.refused(error.failure, str(error)))
            return None


async def _asked(client: Stream) -> ProxyRequest | None:
    """What the client asks for; None where it was answered with an error, or asked for nothing in time."""
    handshake = Handshake()
    reader, writer = client
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            while handshake.request is None:
                writer.write(handshake.receive(await reader.read(CHUNK)))
    except TimeoutError:
        return None
    except ProxyRequestError as error:
        log.debug("proxy: %s", error)
        await _answer_and_close(client, error.answer)
    return handshake.request


async def _answer_and_close(client: Stream, answer: bytes) -> None:
    """Let the client read the answer: a close before its last bytes are read would reset the connection."""
    reader, writer = client
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            writer.write(answer)
            writer.write_eof()
            while await reader.read(CHUNK):
                pass
    writer.close()
