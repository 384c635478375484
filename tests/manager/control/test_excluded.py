"""Pods that a claim leaves out, although their sidecars have its token."""

from tests.manager.claims import spec
from tests.manager.control.claimant import Claimant
from tests.manager.control.sidecars import PORT, Control, joined
from tests.waiting import until

B = spec("b")


async def test_a_pod_that_is_excluded_leaves_and_comes_back(mesh: Control, claimant: Claimant) -> None:
    claimant.claim()
    async with joined(mesh) as one, joined(mesh, name="b-2") as two:
        assert {(await claimant.reported("acked")).pod for _ in range(2)} == {"b-1", "b-2"}
        claimant.claim(excluded=("b-2",))
        await until(lambda: two.agent.wants() == [] and B.id not in two.envoy.routes())
        await two.state()
        heard = await claimant.report(lambda _: True)  # b-1 has nothing new to say: it is acked as it was
        assert (heard.pod, heard.state) == ("b-2", "gone")
        assert (one.agent.wants(), B.id in one.envoy.routes()) == (["8080"], True)
        claimant.claim()
        await until(lambda: two.agent.wants() == ["8080"])
        await two.state(PORT)
        await claimant.report(lambda report: (report.pod, report.state) == ("b-2", "acked"))
