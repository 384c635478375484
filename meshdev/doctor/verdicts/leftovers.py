"""The connection that is up, and what former ones left behind."""

from collections.abc import Sequence
from dataclasses import dataclass

from meshdev.doctor.verdicts.finding import Finding, ok, warning
from meshdev.text import first_few
from meshdev.wire.session_api import Status


def connection(status: Status) -> Finding:
    """How the connection is, if there is one."""
    where = f"to {status.context or 'the cluster'}, namespace {status.namespace or 'default'}"
    match status.state:
        case "connected":
            return ok(f"connected {where}")
        case "disconnected":
            ended = f"; {status.notes[0]}" if status.notes else ""
            return ok(f"none{ended}")
        case "connecting":
            return ok(f"connecting {where}")
        case _:
            why = first_few(status.notes) or "the notes of meshdev status say why"
            return warning(f"{status.state} {where}: {why}", "meshdev status")


def on_this_machine(leftovers: Sequence[str]) -> Finding:
    """What a helper that was killed could not undo."""
    if leftovers:
        return warning(f"left over from a connection that crashed: {first_few(leftovers)}", "meshdev restore")
    return ok("nothing is left over on this machine")


@dataclass(frozen=True, slots=True)
class DeadIntercept:
    """One that its session does not renew, with the name of its Lease."""

    workload: str
    holder: str
    lease: str

    def __str__(self) -> str:
        return f"{self.workload} ({self.holder})"


@dataclass(frozen=True, slots=True)
class ClusterLeftovers:
    """In one namespace: intercepts of dead sessions, and the pods with a sidecar that runs though nobody intercepts
    their workload.

    Sidecars leave by themselves a minute after the last session; one in a template stays (*patched*).
    """

    namespace: str
    expired: Sequence[DeadIntercept] = ()
    sidecars: Sequence[str] = ()
    patched: Sequence[str] = ()


def in_the_cluster(facts: ClusterLeftovers) -> Finding:
    """What dead sessions left in the namespace."""
    if facts.patched:
        return warning(
            f"the sidecar is still in the template of {first_few(facts.patched)}, which nobody intercepts",
            f"meshdev connect, then meshdev leave -n {facts.namespace} {facts.patched[0]}",
        )
    if facts.expired:
        return warning(
            f"{first_few(facts.expired)}: intercepted by a session that is gone",
            f"kubectl -n {facts.namespace} delete leases {' '.join(each.lease for each in facts.expired)}",
        )
    if facts.sidecars:
        return warning(
            f"a sidecar runs in {first_few(facts.sidecars)}, which nobody intercepts",
            "wait a minute: sidecars leave by themselves",
        )
    return ok(f"nothing is left over in namespace {facts.namespace}")
