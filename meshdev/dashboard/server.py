"""The dashboard's HTTP server: the page's files, ``GET /events`` and ``POST /leave``. Everything is bounded.

It listens on a socket that it is given, so whoever calls it knows the port. Nothing that a client sends is logged.
"""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from http import HTTPStatus
from importlib.resources import files
from typing import Final, Protocol

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from meshdev.dashboard.client_events import ClientEvents, FeedEvent
from meshdev.dashboard.security import HEADERS, ErrorAnswer, Guard
from meshdev.errors import MeshdevError

log = logging.getLogger(__name__)

#: Pages that are open at once.
MAX_CLIENTS: Final = 8
#: Connections at once: then others make room for those with the token.
MAX_CONNECTIONS: Final = 64
#: Bytes of the first line, and of one header; and of a body.
MAX_LINE: Final = 4096
MAX_BODY: Final = 4096
#: For the first request of a connection, for a body, and between two requests, in seconds.
REQUEST_SECONDS: Final = 10.0
BODY_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 15.0
#: A client that reads nothing for so long is given up, in seconds.
STALLED_SECONDS: Final = 30.0
#: For handlers to end when the server does, in seconds.
END_SECONDS: Final = 0.5

_BACKLOG: Final = 16
_METHODS: Final = {"/events": "GET", "/leave": "POST"}
_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "json": "application/json",
    "svg": "image/svg+xml",
}


class DashboardFeed(Protocol):
    """What the page shows, and the one thing that it may do."""

    def events(self) -> AsyncGenerator[FeedEvent, None]:
        """Events for one more client, until it is closed. A client that reads slowly does not hold it up."""

    async def leave(self, id_: str) -> None:
        """Leave that intercept. Raises MeshdevError, also where it is not one of this session."""


@asynccontextmanager
async def serving(listener: socket.socket, feed: DashboardFeed, token: str) -> AsyncIterator[None]:
    """Serve the dashboard at *listener* to whoever has *token*. At the end all connections are closed."""
    port: int = listener.getsockname()[1]
    ended = asyncio.Event()
    site = _Site(feed, Guard(port, token), ended)
    server = web.Server(
        site.answer,
        handler_cancellation=True,
        access_log=None,
        logger=_quiet_log(),
        max_line_size=MAX_LINE,
        max_field_size=MAX_LINE,
        keepalive_timeout=IDLE_SECONDS,
        lingering_time=0,
        auto_decompress=False,
    )
    connections = _Connections(server, site)
    listening = await asyncio.get_running_loop().create_server(connections.accept, sock=listener, backlog=_BACKLOG)
    ending_idle = asyncio.ensure_future(connections.keep_ending_idle())
    try:
        yield
    finally:
        ending_idle.cancel()
        ended.set()
        listening.close()
        transports = [each.transport for each in server.connections]
        await server.shutdown(END_SECONDS)
        for each in transports:
            if each is not None:
                each.abort()  # closed with bytes unread, it would stay as long as its client


class _Site:
    """Answers requests."""

    def __init__(self, feed: DashboardFeed, guard: Guard, ended: asyncio.Event) -> None:
        self._feed = feed
        self._guard = guard
        self._ended = ended
        self._files = _static_files()
        self._encoded: dict[str, tuple[Mapping[str, object], bytes]] = {}
        self.began: set[web.RequestHandler] = set()
        """Connections that have sent a request."""
        self.trusted: set[web.RequestHandler] = set()
        """Those that have shown the token."""
        self.streaming: set[web.RequestHandler] = set()
        """Those that get events."""

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """To one request."""
        self.began.add(request.protocol)
        values = _values(request)
        file = self._files.get(request.path)
        if refusal := self._guard.refuses_file(values) if file else self._guard.refuses(values):
            return _refused(refusal)
        if not file:
            self.trusted.add(request.protocol)
        match request.method, request.path:
            case "GET", _ if file:
                return file()
            case "GET", "/events":
                return await self._stream(request)
            case "POST", "/leave":
                return await self._leave(request)
        if file or request.path in _METHODS:
            return _error(HTTPStatus.METHOD_NOT_ALLOWED, "method", f"only by {_METHODS.get(request.path, 'GET')}")
        return _error(HTTPStatus.NOT_FOUND, "not-found", "there is no such page")

    async def _stream(self, request: web.BaseRequest) -> web.StreamResponse:
        if len(self.streaming) >= MAX_CLIENTS:
            return _error(
                HTTPStatus.SERVICE_UNAVAILABLE, "full", f"{MAX_CLIENTS} pages are open already", "close one of them"
            )
        self.streaming.add(request.protocol)
        try:
            response = web.StreamResponse(headers={**HEADERS, "Content-Type": "text/event-stream"})
            await response.prepare(request)
            try:
                await self._send_events(response)
            except (ConnectionError, TimeoutError):  # it is gone, or reads nothing
                if request.transport is not None:
                    request.transport.abort()
            return response
        finally:
            self.streaming.discard(request.protocol)

    async def _send_events(self, response: web.StreamResponse) -> None:
        """Until the feed or the server ends. Raises ConnectionError or TimeoutError where the client does."""
        waiting = ClientEvents()
        filling = asyncio.ensure_future(self._fill(waiting))
        over = (filling, asyncio.ensure_future(self._ended.wait()))
        taking = asyncio.ensure_future(waiting.take())
        try:
            while not any(each.done() for each in over):
                await asyncio.wait((taking, *over), return_when=asyncio.FIRST_COMPLETED)
                if taking.done():
                    for event in taking.result():
                        async with asyncio.timeout(STALLED_SECONDS):
                            await response.write(self._encode(event))
                    taking = asyncio.ensure_future(waiting.take())
            if filling.done():
                filling.result()
        finally:
            for each in (taking, *over):
                each.cancel()
            await asyncio.gather(taking, *over, return_exceptions=True)

    async def _fill(self, waiting: ClientEvents) -> None:
        async with aclosing(self._feed.events()) as events:
            async for event in events:
                waiting.put(event)

    def _encode(self, event: FeedEvent) -> bytes:
        """As text/event-stream has it; what all clients get is encoded once."""
        data, text = self._encoded.get(event.name, (None, b""))
        if data is not event.data:
            body = json.dumps(event.data, separators=(",", ":"))
            text = f"event: {event.name}\ndata: {body}\n\n".encode()
            self._encoded[event.name] = event.data, text
        return text

    async def _leave(self, request: web.BaseRequest) -> web.Response:
        if refusal := self._guard.refuses_type(_values(request)):
            return _refused(refusal)
        id_ = _id(await _body(request))
        if id_ is None:
            return _error(HTTPStatus.BAD_REQUEST, "body", 'the body has to be {"id": "…"}')
        try:
            await self._feed.leave(id_)
        except MeshdevError as error:
            return _json(HTTPStatus.CONFLICT, {"error": error.as_json()})
        return _json(HTTPStatus.OK, {})


class _Connections:
    """Makes the protocol of each connection, and ends those that do nothing."""

    def __init__(self, server: web.Server, site: _Site) -> None:
        self._server = server
        self._site = site

    def accept(self) -> asyncio.Protocol:
        """For one more connection: where there are too many, the oldest without the token makes room."""
        there = self._server.connections
        if len(there) >= MAX_CONNECTIONS:
            others = (each.transport for each in there if each not in self._site.trusted)
            oldest = next((each for each in others if each is not None and not each.is_closing()), None)
            if oldest is None:
                return _Closing()
            oldest.abort()
        return self._server()

    async def keep_ending_idle(self) -> None:
        """End those that have sent no request, or do not read an answer, for REQUEST_SECONDS, or twice that."""
        former: set[web.RequestHandler] = set()
        while True:
            await asyncio.sleep(REQUEST_SECONDS)
            there = {*self._server.connections}
            self._site.began &= there
            self._site.trusted &= there
            idle = {each for each in there - self._site.streaming if self._is_idle(each)}
            for each in idle & former:
                if each.transport is not None:
                    each.transport.abort()
            former = idle

    def _is_idle(self, one: web.RequestHandler) -> bool:
        unread = one.transport.get_write_buffer_size() if one.transport is not None else 0
        return one not in self._site.began or unread > 0


class _Closing(asyncio.Protocol):
    """One connection too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _static_files() -> dict[str, Callable[[], web.Response]]:
    """What makes the answer for each path. All files are read at once: no path is ever looked for in a file system."""
    found: dict[str, Callable[[], web.Response]] = {}
    for each in files("meshdev.dashboard").joinpath("static").iterdir():
        kind = _TYPES.get(each.name.rpartition(".")[2])
        if kind is not None:
            found[f"/{each.name}"] = _file(kind, each.read_bytes())
    found["/"] = found["/index.html"]
    return found


def _file(kind: str, body: bytes) -> Callable[[], web.Response]:
    return lambda: web.Response(body=body, headers={**HEADERS, "Content-Type": kind})


def _values(request: web.BaseRequest) -> Callable[[str], list[str]]:
    return lambda name: request.headers.getall(name, [])


async def _body(request: web.BaseRequest) -> bytes:
    """The body; empty where it is too long or too slow."""
    found = b""
    with suppress(TimeoutError):
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_any():
                found += chunk
                if len(found) > MAX_BODY:
                    return b""
            return found
    return b""


def _id(body: bytes) -> str | None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    match found:
        case {"id": str(id_), **others} if not others:
            return id_
    return None


def _refused(refusal: ErrorAnswer) -> web.Response:
    return _error(refusal.status, refusal.code, refusal.message, refusal.hint)


def _error(status: HTTPStatus, code: str, message: str, hint: str | None = None) -> web.Response:
    """And nothing more comes through this connection: what else it sends is not read."""
    answer = _json(status, {"error": {"code": code, "message": message, "hint": hint}})
    answer.force_close()
    return answer


def _json(status: HTTPStatus, data: object) -> web.Response:
    body = json.dumps(data).encode()
    return web.Response(status=status, body=body, headers={**HEADERS, "Content-Type": "application/json"})


class _NoBadRequests(logging.Filter):
    """What is no HTTP is answered with 400. The log would have its header lines, and so perhaps a token."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


def _quiet_log() -> logging.Logger:
    made = logging.getLogger(f"{__name__}.http")
    if not made.filters:
        made.addFilter(_NoBadRequests())
    return made
