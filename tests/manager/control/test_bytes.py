"""Ports without requests, with real gRPC: what is redirected, and whose their counts are."""

from meshdev.intercept.spec import Port
from meshdev.sidecar.envoy.protos import LISTENERS
from meshdev.wire.agent import Listen, PodPort
from meshdev.wire.counts import Counts
from meshdev.wire.modes import PROXY
from tests.manager.claims import spec
from tests.manager.control.claimant import Claimant
from tests.manager.control.sidecars import FOLDER, LISTENER_PORT, Control, sidecar
from tests.waiting import until


async def test_ports_without_requests(mesh: Control, claimant: Claimant) -> None:
    tcp, udp = Port(7000, "tcp", 1), Port(9090, "udp", 2)
    one = spec("raw", tcp, udp, mode=PROXY)
    claimant.claim(one)
    async with sidecar(mesh) as made:
        await until(lambda: made.agent.wants() == ["7000", "9090/udp"])
        await made.agent.say(Listen({PodPort(7000): LISTENER_PORT, PodPort(9090, "udp"): LISTENER_PORT + 1}, FOLDER))
        await made.state()
        await until(lambda: made.agent.redirects() == ["7000", "9090/udp"])
        await made.state(PodPort(7000), PodPort(9090, "udp"))
        await claimant.reported("acked", one)
        assert made.envoy.listens() == ["listener_7000", "listener_9090_udp"]
        flows = ((PodPort(7000), Counts(2, 0, 1)), (PodPort(9090, "udp"), Counts(3)), (PodPort(1), Counts(9)))
        await made.state(PodPort(7000), PodPort(9090, "udp"), flows=flows)
        assert (await claimant.report(lambda report: report.counts.matched == 5)).counts.errors == 1
        assert LISTENERS in made.envoy.has
