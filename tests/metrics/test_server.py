"""The server of one page: what it answers, and what it does with clients that mean no good."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from meshdev.metrics import server
from meshdev.metrics.server import Page, serving
from tests.loops import open_descriptors
from tests.metrics.client import exchange, get, read
from tests.waiting import until


class Served:
    """The server, and how often its page was made."""

    def __init__(self) -> None:
        self.made = 0
        self.port = 0
        self.gate: asyncio.Event | None = None

    async def make(self) -> bytes:
        self.made += 1
        if self.gate is not None:
            await self.gate.wait()
        return f"page {self.made}\n".encode()


@asynccontextmanager
async def served(hosts: frozenset[str] | None = None) -> AsyncIterator[Served]:
    made = Served()
    listener = socket.create_server(("127.0.0.1", 0))
    made.port = listener.getsockname()[1]
    async with serving(listener, Page("/metrics", made.make, "text/plain; version=0.0.4", hosts)):
        yield made


async def test_the_page() -> None:
    async with served() as it:
        status, headers, body = await get(it.port)
    assert (status, body) == (200, b"page 1\n")
    assert headers == {
        "content-type": "text/plain; version=0.0.4",
        "content-length": "7",
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "cross-origin-resource-policy": "same-origin",
        "connection": "close",
    }


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/metrics?a=b", 200),
        ("GET", "/", 404),
        ("GET", "/metrics/", 404),
        ("GET", "http://127.0.0.1/metrics", 404),
        ("POST", "/metrics", 405),
        ("HEAD", "/metrics", 405),
        ("OPTIONS", "/metrics", 405),
        ("DELETE", "/other", 404),
    ],
)
async def test_it_answers_nothing_else(method: str, target: str, status: int) -> None:
    async with served() as it:
        found, headers, _ = await get(it.port, target, method=method)
        assert found == status
        assert headers.get("allow") == ("GET" if status == 405 else None)
        assert it.made == (status == 200)


@pytest.mark.parametrize(
    "request_",
    [
        b"\r\n\r\n",
        b"GET /metrics\r\n\r\n",
        b"GET /metrics HTTP/2.0\r\n\r\n",
        b"GET  /metrics HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1 \r\n\r\n",
        b"GET /metr\xefcs HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\r\n\r\n",
    ],
)
async def test_what_is_no_request(request_: bytes) -> None:
    async with served() as it:
        assert read(await exchange(it.port, request_))[0] == 400
        assert it.made == 0


async def test_a_head_that_is_too_long() -> None:
    async with served() as it:
        answer = await exchange(it.port, b"GET /metrics HTTP/1.1\r\nA: " + b"a" * server.MAX_HEAD + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 431 ")


HOSTS = frozenset({"127.0.0.1:9", "localhost:9"})


@pytest.mark.parametrize(
    ("hosts", "status"),
    [
        (["127.0.0.1:9"], 200),
        (["LocalHost:9"], 200),
        (["127.0.0.1"], 421),
        (["localhost:10"], 421),
        (["evil.example:9"], 421),
        (["127.0.0.1.evil.example:9"], 421),
        (["127.0.0.1:9", "evil.example"], 421),
        ([], 421),
        ([""], 421),
    ],
)
async def test_by_which_names_it_may_be_asked_for(hosts: list[str], status: int) -> None:
    lines = "".join(f"Host: {host}\r\n" for host in hosts)
    async with served(HOSTS) as it:
        found, _, body = read(await exchange(it.port, f"GET /metrics HTTP/1.1\r\n{lines}\r\n".encode()))
    assert found == status
    assert (b"page" in body) == (status == 200)


async def test_however_many_ask_it_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FRESH_SECONDS", 60)
    async with served() as it:
        it.gate = asyncio.Event()
        asking = [asyncio.ensure_future(get(it.port)) for _ in range(server.MAX_OF_ADDRESS)]
        await until(lambda: it.made)
        it.gate.set()
        assert {body for _, _, body in await asyncio.gather(*asking)} == {b"page 1\n"}
        assert it.made == 1


async def test_an_old_page_is_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "FRESH_SECONDS", 0)
    async with served() as it:
        assert [(await get(it.port))[2] for _ in range(2)] == [b"page 1\n", b"page 2\n"]


async def test_clients_that_say_nothing_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.1)
    async with served() as it:
        assert await exchange(it.port, b"") == b""
        assert await exchange(it.port, b"GET /metrics HTTP/1.1\r\n") == b""
        assert (await get(it.port))[0] == 200


async def test_one_address_cannot_take_all_connections() -> None:
    async with served() as it:
        silent = [await asyncio.open_connection("127.0.0.1", it.port) for _ in range(server.MAX_OF_ADDRESS)]
        try:
            with pytest.raises(ConnectionResetError):
                await exchange(it.port, b"GET /metrics HTTP/1.1\r\n\r\n")
            head = b"GET /metrics HTTP/1.1\r\n\r\n"
            reader, writer = await asyncio.open_connection("127.0.0.1", it.port, local_addr=("127.0.0.2", 0))
            writer.write(head)
            assert read(await reader.read())[0] == 200
            writer.close()
        finally:
            for _, writer in silent:
                writer.close()


async def test_a_client_that_takes_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ANSWER_SECONDS", 0.2)
    before = len(open_descriptors())

    async def large() -> bytes:
        return bytes(64 << 20)

    listener = socket.create_server(("127.0.0.1", 0))
    async with serving(listener, Page("/metrics", large, "text/plain")):
        with socket.create_connection(listener.getsockname()) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            await until(lambda: len(open_descriptors()) == before + 3)  # the listener, and both ends
            await until(lambda: len(open_descriptors()) == before + 2)
    await until(lambda: len(open_descriptors()) == before)


async def test_nothing_is_left_at_its_end() -> None:
    before = open_descriptors(), len(asyncio.all_tasks())
    async with served() as it:
        reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
        writer.write(b"GET ")
        await until(lambda: len(asyncio.all_tasks()) > before[1])
    with pytest.raises(ConnectionResetError):
        await reader.read()
    writer.close()
    await until(lambda: (open_descriptors(), len(asyncio.all_tasks())) == before)
    with pytest.raises(ConnectionRefusedError):
        await get(it.port)
