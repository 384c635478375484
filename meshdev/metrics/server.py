"""An HTTP server for one page, made to be safe where anybody may connect.

It answers ``GET /metrics`` and closes. Everything is bounded: connections, those of one address, bytes and time of a
request, time for the answer. What a page costs is bounded by :class:`Page`: however many ask, it is made once a second.
"""

import asyncio
import contextlib
import http
import logging
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

log = logging.getLogger(__name__)

#: At once; those that are too many are closed unanswered.
MAX_CONNECTIONS: Final = 32
#: At once from one address: one that keeps all of its own leaves some to others.
MAX_OF_ADDRESS: Final = 8
#: Bytes of a request's head. A scraper's takes 300.
MAX_HEAD: Final = 8 << 10
#: For a request, and for its answer, in seconds.
REQUEST_SECONDS: Final = 5.0
ANSWER_SECONDS: Final = 10.0
#: A page is good for so long.
FRESH_SECONDS: Final = 1.0

_BACKLOG: Final = 16


@dataclass(frozen=True)
class HttpAnswer:
    """What goes back."""

    status: http.HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"

    def encode(self) -> bytes:
        """As bytes of HTTP/1.1."""
        lines = [
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            f"Content-Type: {self.content_type}",
            f"Content-Length: {len(self.body)}",
            "Cache-Control: no-store",
            "X-Content-Type-Options: nosniff",
            "Cross-Origin-Resource-Policy: same-origin",  # no web page loads it into its own process
            "Connection: close",
        ]
        if self.status is http.HTTPStatus.METHOD_NOT_ALLOWED:
            lines.append("Allow: GET")
        return "\r\n".join([*lines, "", ""]).encode("ascii") + self.body


class Page:
    """What is served at *path*: *make* is awaited for it, at most once in :data:`FRESH_SECONDS`.

    *hosts*: the names by which it may be asked for, port included; None: any. On a laptop that keeps web pages out
    that have a name of their own lead to 127.0.0.1 (DNS rebinding).
    """

    def __init__(
        self, path: str, make: Callable[[], Awaitable[bytes]], content_type: str, hosts: frozenset[str] | None = None
    ) -> None:
        self._path = path
        self._make = make
        self._content_type = content_type
        self._hosts = hosts
        self._lock = asyncio.Lock()
        self._body = b""
        self._made: float | None = None

    async def answer(self, head: bytes) -> HttpAnswer:
        """To the request with that head, its empty line included."""
        request = _parsed(head)
        if request is None:
            return _refused(http.HTTPStatus.BAD_REQUEST)
        method, target, hosts = request
        if self._hosts is not None and not (len(hosts) == 1 and hosts[0] in self._hosts):
            return _refused(http.HTTPStatus.MISDIRECTED_REQUEST)
        if target.partition("?")[0] != self._path:
            return _refused(http.HTTPStatus.NOT_FOUND)
        if method != "GET":
            return _refused(http.HTTPStatus.METHOD_NOT_ALLOWED)
        return HttpAnswer(http.HTTPStatus.OK, await self._fresh(), self._content_type)

    async def _fresh(self) -> bytes:
        clock = asyncio.get_running_loop().time
        async with self._lock:
            if self._made is None or clock() - self._made > FRESH_SECONDS:
                self._body = await self._make()
                self._made = clock()
            return self._body


def _parsed(head: bytes) -> tuple[str, str, list[str]] | None:
    """Method, target and the values of Host; None for what is no request of HTTP/1."""
    try:
        first, *lines = head.decode("ascii").split("\r\n")
    except UnicodeDecodeError:
        return None
    words = first.split(" ")
    if len(words) != 3 or words[2] not in {"HTTP/1.0", "HTTP/1.1"}:
        return None
    pairs = [line.partition(":") for line in lines if line]
    return words[0], words[1], [value.strip().lower() for name, _, value in pairs if name.lower() == "host"]


def _refused(status: http.HTTPStatus) -> HttpAnswer:
    return HttpAnswer(status, f"{status.phrase}\n".encode())


@asynccontextmanager
async def serving(listener: socket.socket, page: Page) -> AsyncIterator[None]:
    """Serve *page* at *listener*, which is closed at the end, with all connections.

    Nobody is waited for.
    """
    connections: dict[asyncio.Task[None], str] = {}

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        source = str((writer.get_extra_info("peername") or ("",))[0])
        full = len(connections) >= MAX_CONNECTIONS or Counter(connections.values())[source] >= MAX_OF_ADDRESS
        if task is None or full:
            writer.transport.abort()
            return
        connections[task] = source
        try:
            await _exchange(reader, writer, page)
        except (OSError, TimeoutError, EOFError) as error:
            log.debug("%s is not answered: %r", source, error)
        finally:
            del connections[task]
            writer.transport.abort()

    server = await asyncio.start_server(connected, sock=listener, limit=MAX_HEAD, backlog=_BACKLOG)
    try:
        yield
    finally:
        server.close()
        for task in connections:
            task.cancel()
        if connections:
            await asyncio.wait(connections)


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, page: Page) -> None:
    """One request and its answer. Raises OSError, TimeoutError, or EOFError where it is cut short."""
    try:
        async with asyncio.timeout(REQUEST_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        answer = _refused(http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    else:
        answer = await page.answer(head)
    async with asyncio.timeout(ANSWER_SECONDS):
        writer.transport.set_write_buffer_limits(0)  # drain() is over when the kernel has everything
        writer.write(answer.encode())
        await writer.drain()
        writer.write_eof()
        with contextlib.suppress(asyncio.LimitOverrunError):  # closed with bytes unread, it would be reset
            await reader.read(MAX_HEAD)
