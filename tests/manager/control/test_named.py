"""Agents that come before their claim names them, as all do, and those that it names no more."""

from tests.manager.control.claimant import B, Claimant
from tests.manager.control.sidecars import PORT, Control, key_of, sidecar
from tests.manager.control.test_service import LOOPBACK, allowed
from tests.manager.standin import Manager
from tests.waiting import until


async def test_an_agent_that_is_named_later_is_told_and_one_that_is_no_more_leaves(
    mesh: Control, manager: Manager, claimant: Claimant
) -> None:
    claimant.claim(keys=())
    async with sidecar(mesh) as made:
        await until(lambda: made.agent.want is not None)
        assert (made.agent.wants(), allowed(manager)) == ([], {20000: set()})
        claimant.agents(B, key_of("b-1"), part=2)
        await until(lambda: made.agent.wants() == ["8080"])
        await until(lambda: allowed(manager) == {20000: {LOOPBACK}})
        await made.listen()
        await until(lambda: made.agent.redirects() == ["8080"])
        await made.state(PORT)
        await claimant.reported("acked")
        claimant.agents(B, key_of("b-2"), part=2)
        await until(lambda: made.agent.wants() == [] and B.id not in made.envoy.routes())
        await made.state()
        await claimant.reported("gone")
        await until(lambda: allowed(manager) == {20000: set()})
