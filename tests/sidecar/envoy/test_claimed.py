"""Envoy gets only what is claimed, over unix sockets: whose connections, and in which order ends are tried."""

import asyncio
import socket
import stat
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from meshdev.intercept.match import HeaderMatch, Match
from meshdev.sidecar.envoy import stats
from meshdev.wire.counts import Counts
from tests.sidecar.pod import FIRST, End, Pod, length, pod, speak_http
from tests.waiting import until

MINE = Match(headers=(HeaderMatch("a", "exact", "1"),))
GET = b"GET / HTTP/1.1\r\nHost: b\r\nA: 1\r\n\r\n"


async def counts(app: Pod) -> Counts:
    return stats.read(await app.envoy.admin(stats.TARGET)).intercepts.get(FIRST, Counts())


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes = GET) -> bytes:
    async with asyncio.timeout(20):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        return await reader.readexactly(length(head))


def numbered() -> Callable[[End, Any, Any], Awaitable[None]]:
    """Answers with the number of the connection: a server that logs connections in."""
    made = 0

    async def answer(end: End, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal made
        made += 1
        mine = b"%s %d" % (end.name.encode(), made)
        while True:
            end.heard.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(mine), mine))

    return answer


def mode(path: str) -> str:
    """As ls shows it."""
    return stat.filemode(Path(path).stat().st_mode)


async def test_its_sockets_are_for_us_alone() -> None:
    async with pod() as app:
        app.claim(MINE)
        await app.serve()
        assert mode(app.socket) == "srw-------"
        assert [await app.get(a="1"), await app.get()] == ["laptop", "original"]


async def test_the_socket_of_an_envoy_that_was_killed_is_replaced() -> None:
    async with pod() as app:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(app.socket)
        app.claim(MINE)
        await app.serve()
        assert await app.get(a="1") == "laptop"


async def test_both_workers_of_an_envoy_serve_one_socket() -> None:
    async with pod(End("original", numbered()), End("laptop", numbered()), workers=2) as app:
        app.claim(MINE)
        await app.serve()
        clients = [await app.connect() for _ in range(40)]
        for _ in range(3):
            answers = await asyncio.gather(*(ask(*client) for client in clients))
            assert len(set(answers)) == len(clients)
        for _, writer in clients:
            writer.close()


@pytest.mark.parametrize("end", ["laptop", "original"])
@pytest.mark.parametrize("up", [True, False])
async def test_each_client_has_a_connection_of_its_own(end: str, up: bool) -> None:
    async with pod(End("original", numbered()), End("laptop", numbered())) as app:
        app.claim(MINE, up=up)
        await app.serve()
        if end == "original":
            await app.laptop.stop()
        elif not up:
            return
        clients = [await app.connect() for _ in range(10)]
        seen: list[set[bytes]] = [set() for _ in clients]
        for _ in range(5):
            answers = await asyncio.gather(*(ask(*client) for client in clients))
            for found, answer in zip(seen, answers, strict=True):
                found.add(answer)
        assert all(len(found) == 1 for found in seen), seen
        assert len(set().union(*seen)) == len(clients)
        assert all(answer.startswith(end.encode()) for found in seen for answer in found)
        for _, writer in clients:
            writer.close()


async def test_60_of_60_fall_back() -> None:
    async with pod() as app:
        app.claim(MINE)
        await app.serve()
        assert await app.get(a="1") == "laptop"
        await app.laptop.stop()
        reader, writer = await app.connect()
        found = Counter([await app.get(a="1") for _ in range(30)] + [await ask(reader, writer) for _ in range(30)])
        assert found == {"original": 30, b"original": 30}
        assert await counts(app) == Counts(61, 60, 0)
        await app.laptop.start()
        assert await ask(reader, writer) == b"laptop"
        assert await counts(app) == Counts(62, 60, 0)
        writer.close()


async def test_a_connection_that_the_laptop_closed_costs_no_request_and_is_no_fallback() -> None:
    async with pod() as app:
        app.claim(MINE)
        await app.serve()
        reader, writer = await app.connect()
        for _ in range(60):
            assert await ask(reader, writer) == b"laptop"
            await app.laptop.stop()
            await app.laptop.start()
            await app.envoy.has_closed("laptop")
        assert await counts(app) == Counts(60, 0, 0)
        writer.close()


async def test_an_envoy_that_lost_its_stream_says_that_it_has_resources() -> None:
    """By that the manager knows that it is no other, and what it has acknowledged still holds."""
    async with pod() as app:
        app.claim(MINE)
        await app.serve()
        await app.envoy.ads.stop()
        await app.envoy.ads.start()
        await until(lambda: len(app.envoy.ads.first_versions) == 2)
        first, second = app.envoy.ads.first_versions
        assert (first, bool(second)) == ("", True)


def is_connecting(port: int) -> bool:
    """Whether a handshake with that port is under way (SYN_SENT is 02 in /proc/net/tcp)."""
    lines = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:])
    return any(fields[2].endswith(f":{port:04X}") and fields[3] == "02" for fields in lines)


async def test_the_laptop_is_tried_twice_and_that_is_no_fallback() -> None:
    async with pod() as app:
        app.claim(MINE)
        await app.serve()
        port = app.laptop.port
        await app.laptop.stop()
        app.laptop.listener = full = socket.create_server(("127.0.0.1", port), backlog=0)
        with socket.create_connection(("127.0.0.1", port)):
            asked = asyncio.ensure_future(app.get(a="1"))
            await until(lambda: is_connecting(port))  # no answer: the kernel asks again after 1 s, Envoy after 0.5
            full.setblocking(False)
            full.accept()[0].close()
            full.listen(10)
            await app.laptop.start()
            assert await asked == "laptop"
        assert await counts(app) == Counts(1, 0, 0)


async def test_without_fallback_the_laptop_is_tried_and_the_answer_says_so() -> None:
    async with pod() as app:
        app.claim(MINE, fallback=False)
        await app.serve()
        assert await app.get(a="1") == "laptop"
        await app.laptop.stop()
        answer = await app.ask(GET)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"meshdev: no program of a@laptop answers for port" in answer
        assert await counts(app) == Counts(2, 0, 1)


async def repeat(end: End, reader: Any, writer: Any) -> None:
    """Bytes, and half-closed connections."""
    while data := await reader.read(65536):
        writer.write(end.name[:1].encode() + data)
    writer.write(b"end")


@pytest.mark.parametrize("up", [True, False])
async def test_a_whole_port_of_unknown_protocol_is_bytes(up: bool) -> None:
    async with pod(End("original", repeat), End("laptop", repeat)) as app:
        app.claim(protocol="tcp", up=up)
        await app.serve()
        reader, writer = await app.connect()
        for data in (b"\0\xff" * 10, GET):
            writer.write(data)
            assert await reader.readexactly(len(data) + 1) == (b"l" if up else b"o") + data
        writer.write_eof()
        assert await reader.read() == b"end"
        writer.close()


async def test_a_match_on_a_port_of_unknown_protocol_is_requests() -> None:
    async with pod() as app:
        app.claim(MINE, protocol="tcp")
        await app.serve()
        config = await app.envoy.admin("/config_dump?resource=dynamic_listeners")
        assert "tcp_proxy" not in config
        assert [await app.get(a="1"), await app.get()] == ["laptop", "original"]


async def test_a_port_that_becomes_one_of_bytes_keeps_its_socket() -> None:
    """One takes over from another: requests under way are finished."""
    async with pod(End("original", speak_http), End("laptop", repeat)) as app:
        app.claim(MINE, protocol="tcp")
        await app.serve()
        kept = await app.connect()
        assert await ask(*kept, b"GET / HTTP/1.1\r\nHost: b\r\n\r\n") == b"original"
        for mode in (None, MINE, None):
            app.claim(mode, protocol="tcp")
            await app.serve()
        assert await ask(*kept, b"GET / HTTP/1.1\r\nHost: b\r\n\r\n") == b"original"
        reader, writer = await app.connect()
        writer.write(b"x")
        assert await reader.readexactly(2) == b"lx"
        writer.close()
        kept[1].close()


async def test_the_end_of_a_connection_that_was_upgraded_follows_at_once() -> None:
    """By itself Envoy waits for 1 s."""

    async def serve(_: End, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nbye")

    async with pod(laptop=End("laptop", serve)) as app:
        app.claim()
        await app.serve()
        reader, writer = await app.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: b\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        started = time.monotonic()
        assert (await reader.read()).endswith(b"\r\n\r\nbye")
        assert time.monotonic() - started < 0.8
        writer.close()
