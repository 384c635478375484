"""Which return paths a pod is asked to probe, and what is reported of them to the session."""

from meshdev.intercept.spec import Port
from meshdev.wire.agent import ProbeRelays
from meshdev.wire.modes import PROXY
from tests.manager.claims import HTTP, spec
from tests.manager.control.claimant import Claimant
from tests.manager.control.sidecars import Control, agent_of, envoy_of, sidecar
from tests.manager.standin import POD
from tests.waiting import until


async def test_the_ways_of_a_claim_are_tried_and_the_worst_of_them_is_told(mesh: Control, claimant: Claimant) -> None:
    both = spec("b", HTTP, Port(9090, "tcp", 3001), Port(9090, "udp", 3002), mode=PROXY)
    claimant.claim(both)
    async with sidecar(mesh) as made:
        await until(lambda: made.agent.tries == ProbeRelays((20000, 20001), POD.address))
        assert (await claimant.reported("joined", both)).return_path == "untried"
        await made.state(return_paths=((20000, "open"),))
        await made.state(return_paths=((20000, "open"), (20001, "silent")))
        await claimant.report(lambda report: report.return_path == "silent")
        await made.state(return_paths=((20000, "open"), (20001, "refused")))
        await claimant.report(lambda report: report.return_path == "refused")
        await made.state(return_paths=((20000, "open"), (20001, "open")))
        await claimant.report(lambda report: report.return_path == "open")
        claimant.withdraw(both)
        await until(lambda: made.agent.tries == ProbeRelays((), POD.address))


async def test_ways_are_tried_when_envoy_is_there_and_again_for_another_agent(
    mesh: Control, claimant: Claimant
) -> None:
    claimant.claim()
    async with agent_of(mesh) as first:
        await until(lambda: first.wants() == ["8080"])
        assert first.tries is None
        async with envoy_of(mesh):
            await until(lambda: first.tries == ProbeRelays((20000,), POD.address))
            async with agent_of(mesh) as second:
                await until(lambda: second.tries == first.tries)
