"""The token of an agent, fetched through the API server: a port-forward asks for it, on a port that the log names.

The rights to both are what proves that somebody may speak for a pod (docs/security.md). RBAC: ``get`` on pods/log, and
what :mod:`meshdev.kube.portforward` needs. What answers may be hostile: time and size are bounded.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Final, TypeVar

from meshdev.errors import ClusterError, PeerClosed
from meshdev.kube.client import KubeApi
from meshdev.kube.portforward import PortForward
from meshdev.wire.announcement import REPLY_SIZE, REQUEST, AnnouncementReader, parse_reply

#: Time for the announcement, which an agent writes as soon as it runs, and then for the exchange; in seconds.
LOG_SECONDS: Final = 10.0
EXCHANGE_SECONDS: Final = 3.0
#: Bytes of a log that are read: the announcement is repeated each 64 KiB and first in a log that was not rotated.
MAX_LOG: Final = 16 << 20
_READ: Final = 64 << 10

T = TypeVar("T")

#: Forwards a port of a pod: namespace, pod, port.
Forward = Callable[[str, str, int], Awaitable[PortForward]]


async def fetch(api: KubeApi, forward: Forward, namespace: str, pod: str, container: str) -> str:
    """The token of the agent in a container that runs; 64 hexadecimal digits.

    Raises ClusterError (also in time: where the log says nothing, or nothing answers), ProtocolError where something
    else answers, ForbiddenError, UnreachableError, CredentialError and the kinds of TunnelError.
    """
    port = await _within(LOG_SECONDS, "its log does not name its port", _announced(api, namespace, pod, container))
    return await fetch_at(forward, namespace, pod, port)


async def fetch_at(forward: Forward, namespace: str, pod: str, port: int) -> str:
    """The same from a *port* that is known; the agent need not run yet. Raises as :func:`fetch` does."""
    return await _within(EXCHANGE_SECONDS, f"port {port} does not answer", _exchanged(forward, namespace, pod, port))


async def _within(seconds: float, what: str, work: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise ClusterError(f"{what} within {seconds:.0f} seconds") from None


async def _announced(api: KubeApi, namespace: str, pod: str, container: str) -> int:
    """All announcements of a container's log are of one process: the first one counts."""
    reader, read = AnnouncementReader(), 0
    async with aclosing(api.follow_log(namespace, pod, container, LOG_SECONDS)) as pieces:
        async for piece in pieces:
            if (found := reader.feed(piece)) is not None:
                return found.port
            read += len(piece)
            if read > MAX_LOG:
                raise ClusterError(f"its log does not name its port in {MAX_LOG >> 20} MiB")
    raise ClusterError("its log has ended and does not name its port")


async def _exchanged(forward: Forward, namespace: str, pod: str, port: int) -> str:
    dialled = await forward(namespace, pod, port)
    try:
        await _send(dialled)
        return parse_reply(await _reply(dialled))
    except OSError as error:
        raise ClusterError(f"the port-forward to port {port} broke: {error}") from error
    finally:
        dialled.transport.close()


async def _send(dialled: PortForward) -> None:
    room = dialled.framing.headroom
    buffer = bytearray(room) + REQUEST
    left = memoryview(bytes(dialled.framing.wrap(buffer, room, len(buffer))))
    while left:
        try:
            left = left[dialled.transport.send(left) :]
        except BlockingIOError:
            await _ready(dialled, writing=True)


async def _reply(dialled: PortForward) -> bytes:
    """The first bytes that come, as many as a reply has, and what came along with them.

    Pings are not answered: nobody asks twice in EXCHANGE_SECONDS.
    """
    buffer, found = memoryview(bytearray(_READ)), bytearray()
    with suppress(PeerClosed):  # what came before may be enough
        while len(found) < REPLY_SIZE:
            try:
                size = dialled.transport.recv_into(buffer)
            except BlockingIOError:
                await _ready(dialled, writing=False)
                continue
            if not size:
                break
            for part in dialled.framing.unwrap(buffer[:size]):
                found += part
    return bytes(found)


async def _ready(dialled: PortForward, *, writing: bool) -> None:
    loop, descriptor = asyncio.get_running_loop(), dialled.transport.fileno()
    ready = asyncio.Event()
    (loop.add_writer if writing else loop.add_reader)(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        (loop.remove_writer if writing else loop.remove_reader)(descriptor)
