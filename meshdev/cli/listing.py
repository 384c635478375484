"""Read the Leases of all users for ``list``, and print them."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from meshdev.intercept import match
from meshdev.intercept.lease import Record
from meshdev.kube import leases
from meshdev.kube.client import KubeApi
from meshdev.kube.kubeconfig import Options
from meshdev.kube.observing import Observer, Progress
from meshdev.text import age, visible
from meshdev.wire.answers import ListedIntercept, ListedState
from meshdev.wire.message import dump
from meshdev.wire.session_intercepts import PodIdentity

_GAP = "   "
#: Pods, and the SPIFFE ids that their Envoys show.
Identities = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Row:
    """One user's intercept. *state* is the Lease's, or "expired" for one that is no longer renewed."""

    record: Record
    state: ListedState
    age_s: float
    mine: bool
    identities: Identities = ()
    """Of the pods, where it is this machine's."""

    def as_json(self) -> dict[str, object]:
        """The keys that scripts rely on."""
        spec, status = self.record.spec, self.record.status
        return dump(
            ListedIntercept(
                target=str(spec.workload),
                namespace=spec.workload.namespace,
                mode=spec.mode,
                match=match.text(spec.match),
                ports=tuple(f"{port.local}:{port.remote}/{port.protocol}" for port in spec.ports),
                holder=self.record.holder,
                age_s=self.age_s,
                state=self.state,
                mine=self.mine,
                acked=status.acked,
                total=status.total,
                pending_listeners=status.pending,
                identities=tuple(PodIdentity(pod, identity) for pod, identity in self.identities),
            )
        )


@dataclass(frozen=True)
class Listed:
    """The intercepts, the oldest first, and the errors of Leases that cannot be read."""

    rows: tuple[Row, ...]
    troubles: tuple[str, ...]
    namespace: str


async def find(
    options: Options, own: Mapping[str, Identities] | None, waiting: Progress, *, everywhere: bool
) -> Listed:
    """The intercepts of all users. *own* are those of this machine's session by id, None where there is none.

    A Lease that was last written long ago is observed until it is known whether it is renewed: up to 12 s where the
    API server reports when that was, else 30 s. *waiting* is called with what is waited for.
    """
    observer = Observer(waiting=waiting)
    async with await KubeApi.open(options) as api:
        namespace = "" if everywhere else api.namespace
        found = await observer.look(
            api, lambda: leases.all_of(api, namespace), lambda each: observer.life(each) == "unknown"
        )
        now = api.server_time() or time.time()
        rows = (
            row(record, own, leases.current_holder(), now, expired=observer.life(record) == "expired")
            for record in found.records
        )
        return Listed(tuple(rows), found.troubles, api.namespace)


def row(record: Record, own: Mapping[str, Identities] | None, me: str, now: float, *, expired: bool) -> Row:
    """The row of one Lease. Mine is what has my name, and no other session of that name renews it."""
    ours = own is None or record.spec.id in own or expired
    state: ListedState = "expired" if expired else record.status.state
    identities = (own or {}).get(record.spec.id, ())
    return Row(record, state, max(0.0, now - record.created), record.holder == me and ours, identities)


def table(found: Listed, *, everywhere: bool) -> str:
    """A table as kubectl prints it: columns as wide as needed, no lines."""
    if not found.rows:
        return "No intercepts" if everywhere else f"No intercepts in namespace {found.namespace}"
    head = ("NAMESPACE", "TARGET", "MODE", "MATCH", "PORTS", "STATE", "PODS", "AGE", "HOLDER")
    lines = [head, *(tuple(map(visible, _cells(each))) for each in found.rows)]
    shown = [line if everywhere else line[1:] for line in lines]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return "\n".join(
        _GAP.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in shown
    )


def _cells(one: Row) -> tuple[str, ...]:
    spec, status = one.record.spec, one.record.status
    return (
        spec.workload.namespace,
        str(spec.workload),
        str(spec.mode),
        match.text(spec.match),
        ",".join(f"{port.local}:{port.remote}/{port.protocol}" for port in spec.ports),
        one.state + (f" (pending listener: {','.join(status.pending)})" if status.pending else ""),
        f"{status.acked}/{status.total}",
        age(one.age_s),
        one.record.holder + (" (you)" if one.mine else ""),
    )
