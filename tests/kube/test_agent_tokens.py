"""Fetching an agent's token from a hand-made API server: what a log and whoever answers on the port can do wrong."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from meshdev.errors import ClusterError, MeshdevError, PortForwardError, ProtocolError
from meshdev.kube import agent_tokens
from meshdev.kube.client import KubeApi
from meshdev.kube.portforward import PortForward, dial
from meshdev.wire.announcement import REQUEST, Announcement, reply
from meshdev.wire.framing import CarrierKind
from meshdev.wire.spdy import opening
from tests.kube.proxies import Handler, listening
from tests.kube.test_portforward import client, switched
from tests.wire.test_spdy import data_frame

TOKEN = "5f" * 32
LINE = f"{Announcement(16200)}\n".encode()

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def server(log: list[bytes], answer: Answer, seen: list[bytes]) -> Handler:
    """Streams *log*, and goes on until the client leaves; *answer* is behind every port-forward."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            if b"/log?" not in (first := await reader.readuntil(b"\r\n")):
                await _forward(first, reader, writer)
                return
            seen.append(first)
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/plain\r\n\r\n")
            for piece in log:
                writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                await writer.drain()
            await reader.read()

    async def _forward(first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(first)
        await switched(reader, writer)
        await reader.readexactly(len(opening(16200)))
        await answer(reader, writer)
        await writer.drain()
        await reader.read()

    return serve


async def well(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    asked = await reader.readexactly(8 + len(REQUEST))
    assert asked[8:] == REQUEST
    writer.write(data_frame(reply(TOKEN)[:10]) + data_frame(reply(TOKEN)[10:]))


@contextlib.asynccontextmanager
async def cluster(
    folder: Path, log: list[bytes], answer: Answer = well
) -> AsyncIterator[tuple[KubeApi, Callable[[], Awaitable[str]], list[bytes]]]:
    seen: list[bytes] = []
    async with listening(server(log, answer, seen)) as port, client(folder, port) as api:

        async def forward(namespace: str, pod: str, port: int, kind: CarrierKind = "spdy") -> PortForward:
            return await dial(api, namespace, pod, port, kind, 2)

        yield api, lambda: agent_tokens.fetch(api, forward, "default", "b-1", "meshdev-1"), seen


async def test_the_log_of_that_container_names_the_port(tmp_path: Path) -> None:
    async with cluster(tmp_path, [b"2026 INFO noise\n" + LINE[:5], LINE[5:]]) as (_, fetch, seen):
        assert await fetch() == TOKEN
        log, forward = seen
        assert b"/pods/b-1/log?container=meshdev-1&follow=true " in log
        assert b"/pods/b-1/portforward " in forward


async def test_a_port_that_is_known_is_asked_without_the_log(tmp_path: Path) -> None:
    seen: list[bytes] = []
    async with listening(server([], well, seen)) as port, client(tmp_path, port) as api:

        async def forward(namespace: str, pod: str, port: int) -> PortForward:
            return await dial(api, namespace, pod, port, "spdy", 2)

        assert await agent_tokens.fetch_at(forward, "default", "b-1", 16200) == TOKEN
    assert [b"/pods/b-1/portforward " in each for each in seen] == [True]


async def test_it_is_there_as_soon_as_the_line_is(tmp_path: Path) -> None:
    """The log goes on for ever, and nobody waits for its end."""
    async with cluster(tmp_path, [LINE]) as (_, fetch, _):
        began = time.monotonic()
        await fetch()
        assert time.monotonic() - began < 1


async def garbage(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(data_frame(b"meshdev-agent/1 token " + b"z" * 200))


async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(data_frame(reply(TOKEN) * 100))
        await writer.drain()


async def silent(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    pass


async def slow(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for number in range(50):
        writer.write(data_frame(reply(TOKEN)[number : number + 1]))
        await writer.drain()
        await asyncio.sleep(0.05)


async def short(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readexactly(8 + len(REQUEST))
    writer.write(data_frame(reply(TOKEN)[:-1]))
    await writer.drain()
    writer.close()


async def refused(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    text = b"connection refused"
    writer.write(bytes.fromhex("00000001 01") + len(text).to_bytes(3, "big") + text)
    writer.write(bytes.fromhex("00000003 01 000000"))


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (garbage, ProtocolError, "is not the agent"),
        (endless, ProtocolError, "is not the agent"),
        (short, ProtocolError, "is not the agent"),
        (silent, ClusterError, "port 16200 does not answer within"),
        (slow, ClusterError, "port 16200 does not answer within"),
        (refused, PortForwardError, "connection refused"),
    ],
)
async def test_whoever_else_answers_is_told_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Answer, kind: type[MeshdevError], words: str
) -> None:
    monkeypatch.setattr(agent_tokens, "EXCHANGE_SECONDS", 0.5)
    async with cluster(tmp_path, [LINE], answer) as (_, fetch, _):
        began = time.monotonic()
        with pytest.raises(kind, match=words):
            await fetch()
        assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ([b"nothing\n"], "does not name its port within"),
        ([b"x" * (1 << 16)] * 40, "does not name its port in 2 MiB"),
        ([b"meshdev-agent/2 door=1\n"], "announces itself in version 2"),
    ],
)
async def test_a_log_that_says_nothing_of_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: list[bytes], words: str
) -> None:
    monkeypatch.setattr(agent_tokens, "LOG_SECONDS", 0.5)
    monkeypatch.setattr(agent_tokens, "MAX_LOG", 2 << 20)
    async with cluster(tmp_path, log) as (_, fetch, seen):
        with pytest.raises(MeshdevError, match=words):
            await fetch()
        assert len(seen) == 1
