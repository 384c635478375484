"""A client of the dashboard that speaks plain HTTP, well or badly, and a feed that shows what a test wants."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from meshdev.dashboard import server
from meshdev.dashboard.client_events import FeedEvent
from tests.metrics.client import exchange, read

TOKEN: Final = "right-token-right-token-right-token"  # noqa: S105 -- of the tests

Answer = tuple[int, dict[str, str], bytes]


class SyntheticFeed:
    """Each client gets :attr:`first`, and then what is put."""

    def __init__(self, *first: FeedEvent) -> None:
        self.first = first
        self.clients: list[asyncio.Queue[FeedEvent]] = []
        self.left: list[str] = []
        self.error: Exception | None = None

    async def events(self) -> AsyncGenerator[FeedEvent, None]:
        queue: asyncio.Queue[FeedEvent] = asyncio.Queue()
        self.clients.append(queue)
        try:
            for each in self.first:
                yield each
            while True:
                yield await queue.get()
        finally:
            self.clients.remove(queue)

    async def leave(self, id_: str) -> None:
        if self.error is not None:
            raise self.error
        self.left.append(id_)

    def put(self, name: str, **data: object) -> None:
        for each in self.clients:
            each.put_nowait(FeedEvent(name, data))


class Dashboard:
    """A server that runs, and requests to it: without *headers* as the page sends them."""

    def __init__(self, port: int, feed: SyntheticFeed) -> None:
        self.port = port
        self.feed = feed

    def head(self, method: str, path: str, headers: Mapping[str, str | None]) -> bytes:
        """One with the value None is left out."""
        base: dict[str, str | None] = {
            "Host": f"127.0.0.1:{self.port}",
            "Authorization": f"Bearer {TOKEN}",
            "Connection": "close",
        }
        lines = [f"{name}: {value}" for name, value in {**base, **headers}.items() if value is not None]
        return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode("latin-1")

    async def ask(
        self, method: str, path: str, headers: Mapping[str, str | None] | None = None, body: bytes = b""
    ) -> Answer:
        length = {"Content-Length": str(len(body))} if body else {}
        return read(await exchange(self.port, self.head(method, path, {**length, **(headers or {})}) + body))

    async def post(self, body: object, headers: Mapping[str, str | None] | None = None) -> Answer:
        typed = {"Content-Type": "application/json", **(headers or {})}
        return await self.ask("POST", "/leave", typed, body if isinstance(body, bytes) else json.dumps(body).encode())

    @asynccontextmanager
    async def streaming(self) -> AsyncIterator["EventReader"]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(self.head("GET", "/events", {}))
            yield EventReader(reader)
        finally:
            writer.close()


class EventReader:
    """Reads text/event-stream; chunks of HTTP/1.1 begin and end with whole events, as the server writes them."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    async def status(self) -> int:
        head = await self._reader.readuntil(b"\r\n\r\n")
        return int(head.split()[1])

    async def next(self) -> tuple[str, Any]:
        async with asyncio.timeout(10):
            size = int(await self._reader.readline(), 16)
            chunk = await self._reader.readexactly(size + 2)
        name, data = chunk.decode().strip().split("\n")
        return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


@asynccontextmanager
async def dashboard(feed: SyntheticFeed | None = None) -> AsyncIterator[Dashboard]:
    """A server at a free port."""
    feed = feed or SyntheticFeed()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        async with server.serving(sock, feed, TOKEN):
            yield Dashboard(port, feed)
