"""What a session that was killed has left of its intercepts, cleared by the same person later."""

from meshdev.intercept.lease import Record
from meshdev.kube import leases
from meshdev.kube.client import KubeApi
from meshdev.kube.observing import Observer
from meshdev.kube.workloads import Resolved
from meshdev.sidecar.join import patch


async def clear(api: KubeApi, resolved: Resolved, holder: str) -> tuple[str, ...]:
    """Delete *holder*'s expired Leases of the workload, and take a sidecar that nobody needs out of its template.

    What was cleared, for people. Raises ForbiddenError, ClusterError.
    """
    workload, observer = resolved.workload, Observer()

    def undecided(each: Record) -> bool:
        return each.holder == holder and observer.life(each) == "unknown"

    there = await observer.look(api, lambda: leases.of_workload(api, workload), undecided)
    dead = [each for each in there.records if each.holder == holder and observer.life(each) == "expired"]
    for each in dead:
        await leases.delete(api, each)
    unpatched = workload.has_template and await patch.leave(
        api, resolved, lambda: leases.anyone_on(api, workload, observer)
    )
    return (f"{workload} in namespace {workload.namespace}",) if dead or unpatched else ()
