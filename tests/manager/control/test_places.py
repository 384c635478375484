"""Places for streams: none takes more of them than it needs, whatever it does, and none keeps what others need."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from meshdev.manager.control import places, service
from meshdev.manager.control.places import MAX_OF_KEY
from meshdev.sidecar.envoy.tls import CONTROL_NAME
from meshdev.wire import agent
from tests.manager.control.claimant import B, Claimant
from tests.manager.control.identities import agents, identity
from tests.manager.control.sidecars import Control, agent_of, channel, control, envoy_of, hello, joined
from tests.manager.control.test_connections import tls
from tests.manager.standin import Manager
from tests.waiting import until

ADS = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
ABORTED = grpc.StatusCode.ABORTED


@pytest.fixture
async def small(
    _impatient: None, manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Control]:
    """It has places for 8 streams."""
    monkeypatch.setattr(service, "MAX_STREAMS", 8)
    monkeypatch.setattr(places, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(places, "UNNAMED_SECONDS", 0.3)
    assert manager.holders() == []
    async with control(tmp_path) as made:
        yield made


async def test_the_newest_stream_of_a_key_counts(mesh: Control, claimant: Claimant) -> None:
    claimant.claim()
    async with agent_of(mesh) as first, envoy_of(mesh) as first_envoy:
        await until(lambda: first.wants() == ["8080"])
        async with joined(mesh):
            # INTERNAL: where this client was about to write.
            codes = {await first.call.code(), await first_envoy.call.code()}
            assert codes <= {ABORTED, grpc.StatusCode.INTERNAL}
            await claimant.reported("acked")
            assert len(list(mesh.core.pods())) == 1


async def test_one_key_does_not_take_the_places_of_others(small: Control, claimant: Claimant) -> None:
    claimant.claim()
    await until(small.core.named)
    async with AsyncExitStack() as undo:
        lines = [await undo.enter_async_context(channel(small, identity("evil"))) for _ in range(4)]
        calls = [line.stream_stream(method)() for method in (agent.METHOD, ADS, agent.METHOD, ADS) for line in lines]
        # They say nothing.
        await until(lambda: sum(call.done() for call in calls) == len(calls) - 2 * MAX_OF_KEY)
        async with joined(small):
            await claimant.reported("acked")


@asynccontextmanager
async def many(mesh: Control, number: int) -> AsyncIterator[list[Any]]:
    async with AsyncExitStack() as undo:
        yield [await undo.enter_async_context(agent_of(mesh, name=f"h-{each}")) for each in range(number)]


async def test_who_is_named_no_more_gives_its_place_to_others(small: Control, claimant: Claimant) -> None:
    claimant.claim()
    async with many(small, 5) as made:
        await until(lambda: all(each.wants() == ["8080"] for each in made))
        claimant.agents(B, *agents("b-1", "h-4"))
        assert {await each.call.code() for each in made[:1]} == {ABORTED}
        await until(lambda: len(list(small.core.pods())) == 4)
        assert made[4].wants() == ["8080"]


async def test_where_there_are_enough_places_it_keeps_its_own(small: Control, claimant: Claimant) -> None:
    claimant.claim()
    async with many(small, 4) as made:
        await until(lambda: all(each.wants() == ["8080"] for each in made))
        claimant.agents(B, *agents("h-3"))
        await until(lambda: made[0].wants() == [])
        with suppress(TimeoutError):
            await until(lambda: any(each.call.done() for each in made), seconds=1)
        assert not any(each.call.done() for each in made)
        claimant.agents(B, *agents("h-0"))
        await until(lambda: made[0].wants() == ["8080"])


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    """RFC 9113, section 4.1."""
    return len(body).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + body


def headers() -> bytes:
    """Each literal, without indexing, with a new name (RFC 7541, section 6.2.2)."""
    each = {
        ":method": "POST",
        ":scheme": "https",
        ":authority": CONTROL_NAME,
        ":path": agent.METHOD,
        "te": "trailers",
        "content-type": "application/grpc",
    }
    pairs = [(name.encode(), value.encode()) for name, value in each.items()]
    return b"".join(b"\0" + b"".join(bytes((len(text),)) + text for text in pair) for pair in pairs)


async def takes_nothing(mesh: Control) -> asyncio.StreamWriter:
    """An agent whose window is 0 (SETTINGS_INITIAL_WINDOW_SIZE), so that no write ends; it breaks the protocol."""
    _reader, writer = await asyncio.open_connection("127.0.0.1", mesh.port, ssl=tls(mesh), server_hostname=CONTROL_NAME)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"\0\x04\0\0\0\0"))
    writer.write(frame(1, 4, 1, headers()))
    for message in (agent.encode(hello()), agent.encode(identity().consents)):
        writer.write(frame(0, 0, 1, b"\0" + len(message).to_bytes(4) + message))
    await until(lambda: [each for each in mesh.core.pods() if each._last_want is not None])
    writer.write(frame(0, 0, 1, b"\0" + (2).to_bytes(4) + b"{}"))
    await until(lambda: not list(mesh.core.pods()))
    return writer


async def test_a_peer_that_takes_nothing_holds_its_place_no_longer_than_others(
    small: Control, claimant: Claimant, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service, "WRITE_SECONDS", 0.2)
    claimant.claim()
    await until(lambda: identity().key in small.core.named())
    writer = await takes_nothing(small)
    async with joined(small):
        await claimant.reported("acked")
    assert "Traceback" not in caplog.text
    writer.transport.abort()


async def test_a_key_has_few_calls_that_end_with_their_connections_only(
    small: Control, claimant: Claimant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "WRITE_SECONDS", 0.05)
    claimant.claim()
    await until(lambda: identity().key in small.core.named())
    writers = [await takes_nothing(small) for _ in range(MAX_OF_KEY)]
    async with agent_of(small, name="b-2"), channel(small, identity()) as line:  # gRPC has room for others
        call = line.stream_stream(agent.METHOD)(timeout=5)
        assert await call.code() == ABORTED
        for each in writers:
            each.transport.abort()

        async with asyncio.timeout(5):
            while await call.code() in {ABORTED, grpc.StatusCode.INTERNAL}:  # as above
                call = line.stream_stream(agent.METHOD)(timeout=5)
                with suppress(grpc.RpcError, asyncio.InvalidStateError):
                    await call.write(b"{}")
        assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT
