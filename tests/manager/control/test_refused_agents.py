"""Agents that a session vouched for, and that send what they should not: they are ended, and cost nothing."""

import grpc
import pytest

from meshdev.wire import agent
from tests.manager.claims import spec
from tests.manager.control.claimant import Claimant
from tests.manager.control.identities import identity
from tests.manager.control.sidecars import Control, agent_of, channel, hello, joined
from tests.waiting import until


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        agent.encode(hello()),
        b'{"consents":["x"]}',
        b'{"csr":"%s"}' % (b"A" * 2000),
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
    async with joined(mesh), channel(mesh, identity("evil")) as line:
        for _ in range(20):
            call = line.stream_stream(agent.METHOD)(timeout=5)
            await call.write(agent.encode(hello("evil")))
            await call.write(b"{}")
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                async for _ in call:
                    pass
            assert ended.value.code() == grpc.StatusCode.INVALID_ARGUMENT
