"""The dashboard's server over real sockets: events, leaving, bounds, and its end."""

import asyncio
import socket

import pytest

from meshdev.dashboard import server
from meshdev.dashboard.client_events import FeedEvent
from meshdev.errors import InterceptError
from tests.dashboard.client import TOKEN, Dashboard, EventReader, SyntheticFeed, dashboard
from tests.metrics.client import exchange
from tests.waiting import until

HISTORY = FeedEvent("history", {"points": []})


async def test_events_come_in_order() -> None:
    async with dashboard(SyntheticFeed(HISTORY)) as there, there.streaming() as stream:
        assert await stream.status() == 200
        assert await stream.next() == ("history", {"points": []})
        there.feed.put("state", time=1, text='new\nline "é"')
        assert await stream.next() == ("state", {"time": 1, "text": 'new\nline "é"'})
        there.feed.put("requests", requests=[1], skipped=0)
        assert await stream.next() == ("requests", {"requests": [1], "skipped": 0})


async def test_the_feed_learns_at_once_that_a_page_is_closed() -> None:
    async with dashboard() as there:
        async with there.streaming() as stream:
            assert await stream.status() == 200
            await until(lambda: there.feed.clients)
        await until(lambda: not there.feed.clients)


async def test_leave_says_what_went_wrong() -> None:
    async with dashboard() as there:
        there.feed.error = InterceptError("it is not yours", hint="ask ann")
        status, _, body = await there.post({"id": "one"})
        assert status == 409
        assert body == b'{"error": {"code": "intercept", "message": "it is not yours", "hint": "ask ann"}}'


async def test_nine_clients_are_one_too_many() -> None:
    async with dashboard(SyntheticFeed(HISTORY)) as there:
        open_streams = [there.streaming() for _ in range(server.MAX_CLIENTS)]
        for each in open_streams:
            assert await (await each.__aenter__()).status() == 200
        status, _, body = await there.ask("GET", "/events")
        assert (status, b"close one of them" in body) == (503, True)
        assert len(there.feed.clients) == server.MAX_CLIENTS
        await open_streams.pop().__aexit__(None, None, None)
        await until(lambda: len(there.feed.clients) < server.MAX_CLIENTS)
        async with there.streaming() as stream:
            assert await stream.status() == 200
        for each in open_streams:
            await each.__aexit__(None, None, None)


def small_buffers(port: int) -> socket.socket:
    """A connection that takes little before its owner reads."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", port))
    sock.setblocking(False)
    return sock


async def test_who_reads_slowly_gets_the_newest_state_and_learns_how_many_requests_it_missed() -> None:
    """60 MB pass by a client that does not read; when it reads, it is soon up to date."""
    last, requests = 300, 0
    async with dashboard() as there:
        sock = small_buffers(there.port)
        reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 21)
        writer.write(there.head("GET", "/events", {}))
        await until(lambda: there.feed.clients)
        for number in range(last):
            there.feed.put("state", time=number, padding="x" * 200_000)
            there.feed.put("requests", requests=[{"number": requests}, {"number": requests + 1}], skipped=0)
            requests += 2
            await asyncio.sleep(0.001)
        await until(lambda: all(each.empty() for each in there.feed.clients))
        await reader.readuntil(b"\r\n\r\n")
        states: list[int] = []
        found = missed = 0
        stream = EventReader(reader)
        while not states or states[-1] != last - 1 or found + missed < requests:
            name, data = await stream.next()
            if name == "state":
                states.append(data["time"])
            else:
                found, missed = found + len(data["requests"]), missed + data["skipped"]
        writer.close()
    assert len(states) < 60, "what came meanwhile was replaced"
    assert found + missed == requests
    assert missed > 0


async def test_who_reads_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "STALLED_SECONDS", 0.1)
    async with dashboard() as there:
        with small_buffers(there.port) as sock:
            await asyncio.get_running_loop().sock_sendall(sock, there.head("GET", "/events", {}))
            await until(lambda: there.feed.clients)
            there.feed.put("state", padding="x" * 8_000_000)
            await until(lambda: not there.feed.clients)


async def test_who_sends_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.05)
    async with dashboard(SyntheticFeed(HISTORY)) as there, there.streaming() as stream:
        assert await stream.status() == 200
        assert await exchange(there.port, b"") == b""
        assert await exchange(there.port, b"GET / HTTP/1.1\r\nHost:") == b""
        there.feed.put("state", time=1)
        assert [(await stream.next())[0] for _ in range(2)] == ["history", "state"], "who reads events stays"


async def test_many_connections_of_others_keep_nobody_with_the_token_out() -> None:
    async with dashboard(SyntheticFeed(HISTORY)) as there, there.streaming() as stream:
        assert await stream.status() == 200
        idle = [await asyncio.open_connection("127.0.0.1", there.port) for _ in range(2 * server.MAX_CONNECTIONS)]
        async with there.streaming() as another:
            assert await another.status() == 200
        assert (await there.post({"id": "x"}))[0] == 200
        open_now = [reader for reader, _ in idle if not reader.at_eof()]
        assert len(open_now) <= server.MAX_CONNECTIONS
        assert await idle[0][0].read() == b"", "the oldest of those made room"
        there.feed.put("state", time=1)
        assert [(await stream.next())[0] for _ in range(2)] == ["history", "state"]
        for _, writer in idle:
            writer.close()


async def test_where_all_have_the_token_one_more_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
    async with dashboard(SyntheticFeed(HISTORY)) as there, there.streaming() as one, there.streaming() as other:
        assert [await one.status(), await other.status()] == [200, 200]
        assert not await is_answered(there)
        there.feed.put("state", time=1)
        assert [(await one.next())[0] for _ in range(2)] == ["history", "state"]


async def is_answered(there: Dashboard) -> bool:
    try:
        return b" 200 " in await exchange(there.port, there.head("GET", "/", {}))
    except ConnectionError:
        return False


async def test_nothing_is_left_when_it_ends() -> None:
    feed = SyntheticFeed(HISTORY)
    async with dashboard(feed) as there:
        port = there.port
        stream = there.streaming()
        reader = await stream.__aenter__()
        assert await reader.status() == 200
        stalled = small_buffers(port)
        await asyncio.get_running_loop().sock_sendall(stalled, there.head("GET", "/events", {}))
        await until(lambda: len(feed.clients) == 2)
        feed.put("state", padding="x" * 8_000_000)
    assert feed.clients == []
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    await stream.__aexit__(None, None, None)
    stalled.close()


async def test_a_feed_that_breaks_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(SyntheticFeed):
        async def leave(self, id_: str) -> None:
            raise RuntimeError(f"broken {id_}")

    async with dashboard(Broken()) as there:
        assert (await there.post({"id": "x"}))[0] == 500
    assert "broken x" in caplog.text
    assert TOKEN not in caplog.text
