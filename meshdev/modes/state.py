"""An intercept at one moment, as an immutable value: what its holder claims, what runs here, what each pod reports.

``status``, the live events of a command and the Lease are views of it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from meshdev.intercept import match
from meshdev.intercept.lease import LeaseStatus
from meshdev.modes.plan import InterceptPlan
from meshdev.wire.counts import InterceptCounts
from meshdev.wire.intercepts import Report
from meshdev.wire.session_intercepts import InterceptStatus, LocalPort, PendingListener, PodIdentity


@dataclass(frozen=True)
class PodsState:
    """The pods of an intercept together (:class:`meshdev.modes.pods.Pods`)."""

    reports: tuple[Report, ...] = ()
    """The newest of each pod that has a sidecar."""
    counts: InterceptCounts = InterceptCounts()  # noqa: RUF009 -- it is immutable
    acked: int = 0
    """Pods that have taken the intercept as it is now."""
    total: int = 0
    pending: tuple[PendingListener, ...] = ()
    idle: bool = False
    """Nothing listens in the pods on any of its ports: they refuse, as without it."""


@dataclass(frozen=True)
class InterceptState:
    """One intercept. Published by whoever holds it."""

    since: float
    """When it was asked for, on the monotonic clock."""
    detached: bool = False
    plan: InterceptPlan | None = None
    """None while its target is still looked at."""
    proven: bool = False
    """Every pod that counts has reached this machine."""
    up: bool = False
    """It works, and the Lease has that, too."""
    local: tuple[LocalPort, ...] = ()
    pods: PodsState = PodsState()
    notes: tuple[str, ...] = ()

    @property
    def workload(self) -> str | None:
        """As people name it (``deployment/b``); None where nobody knows yet which one it is."""
        return str(self.plan.spec.workload) if self.plan is not None else None

    @property
    def local_up(self) -> int:
        """Ports whose local program listens."""
        return sum(port.up for port in self.local)

    def lease_status(self) -> LeaseStatus:
        """Its status in the Lease."""
        pods = self.pods
        pending = tuple(f"{each.port}/{each.transport}" for each in pods.pending)
        return LeaseStatus("active" if self.proven and not pods.idle else "pending", pods.acked, pods.total, pending)

    def status(self, now: float, *, live: bool = False) -> InterceptStatus | None:
        """What ``status`` shows at *now*, and *live* events, without identities; None while nothing is planned yet."""
        plan, pods = self.plan, self.pods
        if plan is None:
            return None
        spec = plan.spec
        return InterceptStatus(
            id=spec.id,
            target=str(spec.workload),
            namespace=spec.workload.namespace,
            mode=spec.mode,
            match=match.text(spec.match),
            ports=tuple(f"{port.local}:{port.remote}/{port.protocol}" for port in spec.ports),
            strategy=plan.strategy,
            state="active" if self.up and not pods.idle else "pending",
            fallback=spec.fallback,
            detached=self.detached,
            acked=pods.acked,
            total=pods.total,
            counts=pods.counts,
            local=self.local,
            notes=self.notes,
            age_s=round(now - self.since, 1),
            url=plan.url,
            pending_listeners=pods.pending,
            identities=() if live else tuple(sorted(_identities(pods.reports))),
        )


def _identities(reports: Iterable[Report]) -> Iterator[PodIdentity]:
    return (PodIdentity(each.pod, each.identity) for each in reports if each.identity)
