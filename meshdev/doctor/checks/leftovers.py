"""The connection, and what former ones left."""

from typing import Final

from meshdev.doctor.checks.facts import DoctorFacts
from meshdev.doctor.runner import DoctorCheck
from meshdev.doctor.verdicts import leftovers
from meshdev.doctor.verdicts.finding import Finding, skipped
from meshdev.doctor.verdicts.leftovers import ClusterLeftovers, DeadIntercept
from meshdev.errors import ForbiddenError
from meshdev.intercept.lease import EXPIRED_SECONDS
from meshdev.kube import leases
from meshdev.kube.client import pods_path
from meshdev.kube.clients import workload_of
from meshdev.kube.observing import Observer
from meshdev.kube.replicas import replica
from meshdev.kube.watching import as_is, listed

GROUP: Final = "Connection"


def checks(facts: DoctorFacts) -> tuple[DoctorCheck, ...]:
    """What is up, and what should not be there."""

    async def connection() -> Finding:
        return leftovers.connection(await facts.status.get())

    async def machine() -> Finding:
        return leftovers.on_this_machine((await facts.status.get()).leftovers)

    async def cluster() -> Finding:
        try:
            return leftovers.in_the_cluster(await _in_the_cluster(facts))
        except ForbiddenError as error:
            return skipped(f"{error.message}: see rbac-intercept")

    return (
        DoctorCheck("connection", GROUP, connection, uses=[facts.status]),
        DoctorCheck("leftovers", GROUP, machine, uses=[facts.status]),
        DoctorCheck("leftovers-cluster", GROUP, cluster, needs=[facts.server]),
    )


async def _in_the_cluster(facts: DoctorFacts) -> ClusterLeftovers:
    api, namespace, observer = facts.api, facts.namespace, Observer()
    there = await leases.all_of(api, namespace)
    observer.saw(api, there)
    # One look and the server's own clock: enough to say so, though not to delete it (meshdev.intercept.liveness).
    expired = [each for each in there.records if (observer.silent(each) or 0.0) > EXPIRED_SECONDS]
    held = {each.spec.workload.uid for each in there.records}
    pods, _ = await listed(api, pods_path(namespace), {}, as_is)
    left = [
        (pod, sidecar) for pod in pods.values() for sidecar in replica(pod).sidecars if sidecar.workload not in held
    ]
    return ClusterLeftovers(
        namespace,
        tuple(DeadIntercept(str(each.spec.workload), each.holder, each.name) for each in expired),
        tuple(pod["metadata"]["name"] for pod, sidecar in left if sidecar.how != "patch"),
        tuple(dict.fromkeys(workload_of(pod) for pod, sidecar in left if sidecar.how == "patch")),
    )
