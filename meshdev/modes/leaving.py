"""What a session that was killed has left of its intercepts, cleared by the same person later."""

import time

from meshdev.kube import leases
from meshdev.kube.client import KubeApi
from meshdev.kube.workloads import Resolved
from meshdev.sidecar.join import patch


async def clear(api: KubeApi, resolved: Resolved, holder: str) -> tuple[str, ...]:
    """Delete *holder*'s expired Leases of the workload, and take a sidecar that nobody needs out of its template.

    What was cleared, for people. Raises ForbiddenError, ClusterError.
    """
    workload = resolved.workload
    there = await leases.of_workload(api, workload)
    dead = [each for each in there.records if each.holder == holder and each.expired(time.time())]
    for each in dead:
        await leases.delete(api, each)
    unpatched = workload.has_template and await patch.leave(api, resolved, lambda: leases.anyone_on(api, workload))
    return (f"{workload} in namespace {workload.namespace}",) if dead or unpatched else ()
