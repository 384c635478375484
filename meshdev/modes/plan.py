"""What an intercept will do, found out without touching anything."""

import asyncio
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from meshdev.errors import InterceptError
from meshdev.intercept.spec import Spec
from meshdev.kube import leases
from meshdev.kube.access import Access
from meshdev.kube.client import KubeApi, Object
from meshdev.kube.observing import Observer
from meshdev.kube.ports import resolve_ports
from meshdev.kube.replicas import replica
from meshdev.kube.rights import require
from meshdev.kube.urls import url_of
from meshdev.kube.workloads import Resolved, pods_of, resolve
from meshdev.modes.intent import Intent
from meshdev.modes.link import Link
from meshdev.sidecar.join.choice import choose
from meshdev.sidecar.join.container import SidecarSpec
from meshdev.wire.session_intercepts import Strategy


@dataclass(frozen=True)
class InterceptPlan:
    """What will be done; nothing of it is yet."""

    resolved: Resolved
    spec: Spec
    sidecar: SidecarSpec
    strategy: Strategy
    pods: int
    """How many there are now."""

    @property
    def has_tcp(self) -> bool:
        """Whether it has relays whose return path can be probed by connecting."""
        return any(port.transport == "tcp" for port in self.spec.ports)

    @property
    def url(self) -> str | None:
        """Where one of its TCP ports is asked for in the cluster."""
        return url_of(self.resolved.template["spec"], self.resolved.services, self.spec.ports, self.spec.mode)

    def describe(self) -> str:
        """For people."""
        served = ", ".join(f"{port.remote}/{port.protocol} → {port.local}" for port in self.spec.ports)
        many = "1 pod" if self.pods == 1 else f"{self.pods} pods"
        return f"{self.spec.workload} in namespace {self.spec.workload.namespace}, {many}, {served}"


async def look(link: Link, intent: Intent, namespace: str) -> InterceptPlan:
    """Raises InterceptError, AdmissionError, ForbiddenError, ClusterError: what would keep it from coming up."""
    resolved = await resolve(link.api, intent.target, namespace)
    ports = resolve_ports(intent.ports, resolved.ports, intent.mode, str(intent.target))
    pods, terms, _ = await asyncio.gather(
        pods_of(link.api, resolved), link.sidecars(), require(link.api, *_rights(resolved.workload.namespace))
    )
    spec = Spec(
        id=secrets.token_hex(16),
        workload=resolved.workload,
        mode=intent.mode,
        match=intent.match,
        ports=ports,
        fallback=intent.fallback,
        trace=link.trace,
    )
    await _refuse_shared(link.api, resolved, pods)
    sidecar = SidecarSpec(terms.image, terms.manager, link.manager_namespace, resolved.workload.uid)
    strategy = await choose(link.api, resolved, pods, sidecar, intent.strategy)
    return InterceptPlan(resolved, spec, sidecar, strategy, len(pods))


def _rights(namespace: str) -> tuple[Access, ...]:
    """What attesting agents takes (meshdev.kube.attestation), after sidecars were put into pods."""
    return Access("get", "", "pods/log", namespace), Access("create", "", "pods/portforward", namespace)


async def _refuse_shared(api: KubeApi, resolved: Resolved, pods: Iterable[Object]) -> None:
    """Raise InterceptError where a pod is intercepted as another workload's: it has one sidecar, of one workload.

    A Service that is a workload itself may select pods that another one selects, or that are targets themselves.
    """
    own = resolved.workload.uid
    others = {
        each.workload: pod for pod in map(replica, pods) for each in pod.sidecars if each.workload not in {"", own}
    }
    if not others:
        return
    there = await leases.all_of(api, resolved.workload.namespace)
    for workload in dict.fromkeys(record.spec.workload for record in there.records):
        pod = others.get(workload.uid)
        if pod is not None and await leases.anyone_on(api, workload, Observer()):
            holders = sorted({each.holder for each in there.records if each.spec.workload == workload})
            raise InterceptError(
                f"pod {pod.name} is intercepted as a pod of {workload} already, by {', '.join(holders)}",
                hint=f"name the same target: {workload}",
            )
