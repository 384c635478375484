"""Agents that are refused: those of earlier versions, whose Envoy got all connections, and hostile ones."""

import grpc
import pytest

from meshdev.wire import agent
from tests.manager.claims import spec
from tests.manager.control.claimant import Claimant
from tests.manager.control.sidecars import Control, agent_of, channel, hello, joined, metadata, token_of
from tests.waiting import until


async def test_an_agent_of_an_earlier_version_hears_nothing_but_that_it_is_one(
    mesh: Control, claimant: Claimant
) -> None:
    """With anything else it would not count the manager as lost, after which it exits."""
    claimant.claim()
    async with channel(mesh) as line:
        call = line.stream_stream(f"/{agent.FORMER_SERVICE}/Session")(metadata=metadata(token_of("b-1")))
        with pytest.raises(grpc.aio.AioRpcError, match="earlier version of meshdev than the manager") as refused:
            await call.read()
        assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert list(mesh.core.pods()) == []


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        agent.encode(hello()),
        b'{"state":{}}',
        b'{"listen":{"8080":1}}',
        b'{"listen":{"x":1},"folder":"/tmp"}',
        b"[" * 100_000,
    ],
)
async def test_a_hostile_agent_is_ended_and_costs_nothing(mesh: Control, claimant: Claimant, message: bytes) -> None:
    claimant.claim()
    async with joined(mesh) as made:
        await claimant.reported("acked")
        async with agent_of(mesh, name="evil") as evil:
            await until(lambda: evil.wants() == ["8080"])
            await evil.say(message)
            assert await evil.call.code() == grpc.StatusCode.INVALID_ARGUMENT
        claimant.claim(spec("b", value="again"))
        await until(lambda: "again" in made.envoy.routes())


async def test_an_agent_that_is_ended_while_it_is_written_to_hears_why(mesh: Control, claimant: Claimant) -> None:
    claimant.claim()
    async with joined(mesh), channel(mesh) as line:
        for _ in range(20):
            call = line.stream_stream(agent.METHOD)(metadata=metadata(token_of("evil")), timeout=5)
            await call.write(agent.encode(hello("evil")))
            await call.write(b"{}")
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                async for _ in call:
                    pass
            assert ended.value.code() == grpc.StatusCode.INVALID_ARGUMENT
