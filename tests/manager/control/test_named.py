"""Agents that a claim names no more, and those that come before it names them, as all do."""

import asyncio

from tests.manager.control.claimant import B, Claimant
from tests.manager.control.identities import agents
from tests.manager.control.sidecars import PORT, Control, sidecar
from tests.manager.control.test_service import permitted
from tests.waiting import until


async def test_an_agent_that_is_named_later_is_told_and_one_that_is_no_more_leaves(
    mesh: Control, claimant: Claimant
) -> None:
    claimant.claim(agents=())
    # Until then its handshakes fail.
    asyncio.get_running_loop().call_later(0.3, lambda: claimant.agents(B, *agents("b-1"), part=2))
    async with sidecar(mesh) as made:
        await until(lambda: made.agent.wants() == ["8080"])
        await until(lambda: permitted(mesh) == {20000: {"b-1"}})
        await made.listen()
        await until(lambda: made.agent.redirects() == ["8080"])
        await made.state(PORT)
        await claimant.reported("acked")
        claimant.agents(B, *agents("b-2"), part=2)
        await until(lambda: made.agent.wants() == [] and B.id not in made.envoy.routes())
        await made.state()
        await claimant.reported("gone")
        await until(lambda: permitted(mesh) == {20000: set()})
