"""All pods of one intercept: what the API server and their sidecars report together. Pure; the clock is an argument."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Final

from meshdev.config import CONTROL_PORT, RELAYS_PORT
from meshdev.errors import ClusterError, ImageError, InterceptError, MeshdevError
from meshdev.intercept.spec import Port
from meshdev.kube.replicas import Replica, Sidecar
from meshdev.kube.startup import IMAGE_REASONS, Where, hint_for
from meshdev.modes.state import PodsState
from meshdev.wire.counts import InterceptCounts
from meshdev.wire.intercepts import MAX_EXCLUDED, Report
from meshdev.wire.session_intercepts import PendingListener

#: A sidecar that runs is at the manager within a second. The API server shows up to 2.4 s late that it runs.
MANAGER_SECONDS: Final = 4.0
#: Where a sidecar of a former manager is in the pod, too, ours waits for it to leave (sidecar.agent.firewall).
FORMER_SECONDS: Final = 100.0
#: A pod that reported that the relay does not answer may still reach it within this time: it probes each second.
SILENT_SECONDS: Final = 4.0
#: An agent that cannot be attested: it was tried several times by then.
ATTEST_SECONDS: Final = 12.0
#: A pod may find a node as soon as another has left it; nodes that are added take minutes.
SCHEDULE_SECONDS: Final = 15.0
#: A port without a listener in a pod: a container that is just started again listens within this time.
LISTENER_SECONDS: Final = 2.0
#: A pod that reports and is none of the workload's; the watch may be late by some of it.
LEFT_SECONDS: Final = 2.0


class Pods:
    """The replicas that count are those that are ready and stay; until there is one, all that stay."""

    def __init__(self, clock: Callable[[], float], manager: str, workload: str, *, tcp: bool) -> None:
        """Sidecars are for *manager* and *workload* (its uid); *tcp*: its relays' return path can be probed."""
        self._clock = clock
        self._manager = manager
        self._workload = workload
        self._unknown: Mapping[str, str] = {}
        self._tcp = tcp
        self._replicas: Mapping[str, Replica] = {}
        self._reports: dict[str, Report] = {}
        self._gone = InterceptCounts()
        self._since: dict[tuple[str, str], float] = {}
        self._without_listener: dict[str, dict[str, float]] = {}  # of a pod, by port: since when nothing listens
        self._served: set[str] = set()  # pods that had a listener on every port
        self._known = False  # whether the watch is current
        self._outside: dict[str, float] = {}
        self._left: dict[str, None] = {}
        self.proven = False
        """Set once the intercept is up: from then on a program that does not listen is no fault of the return path."""

    def watched(self, replicas: Mapping[str, Replica]) -> None:
        """The pods as they are now, by uid."""
        self._replicas = replicas
        self._known = True

    def unwatched(self) -> None:
        """The watch is interrupted: pods that report and are not known may be new ones of its own."""
        self._known = False
        self._outside = {}

    def unknown(self, pods: Mapping[str, str]) -> None:
        """Pods whose agent is not part of the claim yet, by name: why it is not attested."""
        self._unknown = pods

    def reported(self, report: Report) -> None:
        """A sidecar's report. What a pod has counted stays counted when its Envoy restarts or it is removed."""
        before = self._reports.pop(report.pod, None)
        if before is not None and (report.state == "gone" or report.counts.matched < before.counts.matched):
            self._gone += replace(before.counts, older=0)
        if report.state != "gone":
            self._reports[report.pod] = report
            if report.state == "acked" and not report.pending:
                self._served.add(report.pod)
        else:
            self._served.discard(report.pod)
        since, now = self._without_listener.pop(report.pod, {}), self._clock()
        if report.state != "gone":
            self._without_listener[report.pod] = {port: since.get(port, now) for port in report.pending}

    def state(self, up: int, ports: Sequence[Port]) -> PodsState:
        """All of it at this moment, of an intercept of *ports* with *up* local programs."""
        pending = self.pending
        return PodsState(
            reports=tuple(self._reports.values()),
            counts=self.counts,
            acked=self.acked(up),
            total=self.total,
            pending=tuple(
                PendingListener(port.remote, port.transport, pending[pod_port(port)])
                for port in ports
                if pod_port(port) in pending
            ),
            idle=self.all_pending({pod_port(port) for port in ports}),
        )

    @property
    def counts(self) -> InterceptCounts:
        """Requests of all pods, those that are gone too; connections that are older than the redirects."""
        return sum((report.counts for report in self._reports.values()), self._gone)

    @property
    def total(self) -> int:
        """Pods that count."""
        return len(list(self._counting()))

    def acked(self, up: int) -> int:
        """Pods of those that have taken the intercept as it is now, with *up* local programs and all of its ports."""
        return sum(
            self._why_not(replica, up) is None
            and not self._pending(replica.name)
            and (replica.name in self._served or not self._soon_pending(replica.name))
            for replica in self._counting()
        )

    @property
    def pending(self) -> dict[str, int]:
        """Ports (``9999``, ``9090/udp``) on which nothing listens, and in how many of the pods that count."""
        found: dict[str, int] = {}
        for replica in self._counting():
            for port in sorted(self._pending(replica.name)):
                found[port] = found.get(port, 0) + 1
        return found

    def all_pending(self, ports: AbstractSet[str]) -> bool:
        """Whether nothing listens on any of *ports*, in all pods that count: it does nothing yet."""
        return bool(self.total) and all(self._pending(each.name) >= ports for each in self._counting())

    def _pending(self, pod: str) -> set[str]:
        now, ports = self._clock(), self._without_listener.get(pod, {})
        return {port for port, since in ports.items() if now - since >= LISTENER_SECONDS}

    def _soon_pending(self, pod: str) -> set[str]:
        """Ports that may get their listener at any moment."""
        return self._without_listener.get(pod, {}).keys() - self._pending(pod)

    def waiting(self, up: int) -> str | None:
        """What the first pod waits for; None when all have taken it."""
        reasons = [
            why
            for replica in self._counting()
            if (why := self._why_not(replica, up) or self._listener_wanted(replica)) is not None
        ]
        if not self.total:
            unscheduled = next(self._unscheduled(), None)
            return f"pod {unscheduled.name} to get a node; {unscheduled.stuck}" if unscheduled else "a pod"
        return reasons[0] if reasons else None

    def suspects(self) -> tuple[str, ...]:
        """Pods that report and are none of its own, as far as the watch shows: one that died silently does not show
        new ones. Look for them in a list that begins now, and call :meth:`listed`."""
        if not self._known:
            return ()
        now, own = self._clock(), self._own()
        self._outside = {name: self._outside.get(name, now) for name in self._reports if name not in own}
        late = (name for name, since in self._outside.items() if now - since >= LEFT_SECONDS)
        return tuple(name for name in late if name not in self._left)

    def listed(self, replicas: Mapping[str, Replica], suspects: Sequence[str]) -> None:
        """The existing pods, by uid, listed after :meth:`suspects` named *suspects*: those that are not in it left."""
        self.watched(replicas)
        self._left.update((name, None) for name in suspects if name not in self._own())

    def left(self) -> tuple[str, ...]:
        """Pods that have its sidecar and are none of its own any more: relabelled, or not selected now.

        They stay named here, so that they stay out, until they are its own again.
        """
        if self._known:
            own = self._own()
            self._left = dict.fromkeys([name for name in self._left if name not in own][-MAX_EXCLUDED:])
        return tuple(self._left)

    def _own(self) -> set[str]:
        return {each.name for each in self._replicas.values()}

    def trouble(self) -> MeshdevError | None:
        """Why waiting longer is of no use, if it is of none."""
        now = self._clock()
        seen: dict[tuple[str, str], float] = {}
        found: MeshdevError | None = None
        for replica in [*self._counting(), *self._unscheduled()]:
            for kind, seconds, error in self._troubles(replica):
                seen[replica.uid, kind] = since = self._since.get((replica.uid, kind), now)
                if now - since >= seconds:
                    found = found or error
        self._since = seen
        return found

    def stuck(self) -> str:
        """Why a container of the first pod that has a pending listener waits; empty where none does."""
        waiting = (each for each in self._counting() if each.stuck and self._pending(each.name))
        return next((f"pod {each.name}: {each.stuck}" for each in waiting), "")

    def _unscheduled(self) -> Iterator[Replica]:
        """Pods without a node, where no other pod counts."""
        return (each for each in self._replicas.values() if not self.total and each.stuck and not each.leaving)

    def _counting(self) -> Iterator[Replica]:
        stay = [each for each in self._replicas.values() if each.node and not each.leaving]
        ready = [each for each in stay if each.ready]
        return iter(ready or stay)

    def _why_not(self, replica: Replica, up: int) -> str | None:
        report = self._reports.get(replica.name)
        if report is None:
            sidecar = next(self._ours(replica), None)
            if sidecar is None:
                return f"a sidecar in pod {replica.name}"
            why = sidecar.reason or self._unknown.get(replica.name)
            reason = f": {why}" if why else ""
            return f"the sidecar of pod {replica.name}, which is {sidecar.state}{reason}"
        if report.state != "acked" or report.up != up:
            return f"pod {replica.name} to apply the intercept{f': {report.text}' if report.text else ''}"
        if self._tcp and report.return_path != "open" and not (self.proven and report.return_path == "refused"):
            return f"pod {replica.name} to reach this machine"
        return None

    def _listener_wanted(self, replica: Replica) -> str | None:
        soon = sorted(self._soon_pending(replica.name))
        return f"something to listen on port {soon[0]} of pod {replica.name}" if soon else None

    def _troubles(self, replica: Replica) -> Iterator[tuple[str, float, MeshdevError]]:
        """What is wrong with it now, and after how many seconds that is an error."""
        report = self._reports.get(replica.name)
        if not replica.node:
            describe = f"kubectl -n {replica.namespace} describe pod {replica.name}"
            error = InterceptError(f"no pod runs; of pod {replica.name}: {replica.stuck}", hint=describe)
            yield "unscheduled", SCHEDULE_SECONDS, error
        elif report is None:
            yield from self._silence(replica)
        elif report.state == "nacked":
            why = f"the sidecar of pod {replica.name} refuses the intercept: {report.text}"
            yield "nacked", 0.0, InterceptError(why)
        elif report.return_path == "refused" and not self.proven:
            yield (
                "refused",
                SILENT_SECONDS,
                InterceptError(
                    f"pod {replica.name} reaches the manager, and its connections to this machine are refused there",
                    hint=f"a NetworkPolicy may reject them (port {RELAYS_PORT} of the traffic-manager pod); otherwise "
                    "the log of its container relay says why",
                ),
            )
        elif report.return_path == "silent":
            yield (
                "silent",
                SILENT_SECONDS,
                InterceptError(
                    f"pod {replica.name} reaches the manager but not this machine: "
                    f"connections to the manager's port {RELAYS_PORT} get no answer",
                    hint="a NetworkPolicy may stop them: allow egress to the traffic-manager pod on this port",
                ),
            )

    def _ours(self, replica: Replica) -> Iterator[Sidecar]:
        """Those of this manager and workload. Another one may still be there, and ours waits for its end."""
        ours = (self._manager, self._workload)
        return (each for each in replica.sidecars if (each.manager, each.workload) == ours)

    def _silence(self, replica: Replica) -> Iterator[tuple[str, float, MeshdevError]]:
        for sidecar in self._ours(replica):
            where = f"the sidecar {sidecar.name} of pod {replica.name}"
            if sidecar.failed:
                kind = ImageError if sidecar.cause in IMAGE_REASONS else ClusterError
                place = Where(replica.namespace, replica.name, sidecar.name, sidecar.image, sidecar.how)
                hint = hint_for(sidecar.cause, sidecar.reason, place)
                failure = kind(f"{where} cannot start: {sidecar.reason}", hint=hint)
                yield "failed", 0.0, failure
            elif sidecar.state == "running" and replica.name in self._unknown:
                why = self._unknown[replica.name] or "no answer yet"
                error = InterceptError(
                    f"{where} runs, and its agent is not attested: {why}", hint=_log(replica, sidecar)
                )
                yield "unknown", ATTEST_SECONDS, error
            elif sidecar.state == "running":
                others = [each.name for each in replica.sidecars if each.name != sidecar.name]
                log = _log(replica, sidecar)
                error = InterceptError(
                    f"{where} runs and does not reach the manager at {self._manager}", hint=_unconnected(others, log)
                )
                # Two troubles, so that the time for the second one begins when the first is over: the API server may
                # show the other's end before ours, which only now can have the redirects, is at the manager.
                yield ("behind", FORMER_SECONDS, error) if others else ("unconnected", MANAGER_SECONDS, error)


def _log(replica: Replica, sidecar: Sidecar) -> str:
    return f"kubectl -n {replica.namespace} logs {replica.name} -c {sidecar.name}"


def _unconnected(others: Sequence[str], log: str) -> str:
    if others:  # only one can have the redirects
        return f"{others[0]} in the same pod, of another manager or workload, does not end; {log}"
    return (
        "a NetworkPolicy may drop its egress: allow it to the traffic-manager pod, ports "
        f"{CONTROL_PORT} and {RELAYS_PORT}; its log: {log}"
    )


def pod_port(port: Port) -> str:
    """As pods report it: ``8080``, ``9090/udp``."""
    return f"{port.remote}/udp" if port.transport == "udp" else str(port.remote)
