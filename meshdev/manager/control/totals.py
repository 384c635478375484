"""Counters out of what agents report: what each has counted so far, which begins anew with each Envoy. Pure.

A counter for Prometheus never goes back and outlives the pods that it counts. So what counts is how much a report is
above the one before it, of the same agent:

* of another Envoy (``State.envoys``), or where a count is lower than before, all of it is new;
* nothing of an agent's first report is: it counted that before this process of control knew it. The first report of an
  agent that is new itself has no counts yet.

An agent's process has a key of its own, so another process in the same pod is another agent here. One that lost its
streams is remembered for ``core.EDGE_SECONDS``; what one counts while it is gone for longer is not counted here.

Bounded: labels are those of claims, of which the tunnel container has a limited number, and of those that ended a few
minutes ago, so that a last scrape finds their last counts. Above :data:`MAX_INTERCEPTS` or :data:`MAX_WORKLOADS` what
changed least recently is forgotten. Reasons of the passthrough proxy that this version does not know are one.
"""

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final, Generic, NamedTuple, TypeVar

from meshdev.intercept.spec import Workload
from meshdev.manager.control.pods import HeldClaim
from meshdev.manager.control.traffic import ReportedTraffic, keys_of
from meshdev.sidecar.envoy.claims import LiveClaim
from meshdev.sidecar.passthrough.heads import REASONS
from meshdev.wire.agent import FromAgent, PodPort, State
from meshdev.wire.counts import Counts, CountsByReason, Traffic

#: How long the counts of what ended can still be scraped, in seconds: a few scrapes at the usual intervals.
KEPT_SECONDS: Final = 300.0
#: At most 60 sessions have 32 claims each (meshdev.manager.tunnel.claims).
MAX_INTERCEPTS: Final = 4096
MAX_WORKLOADS: Final = 2048
#: Of bytes and durations, of which one intercept has 20 series; writing so many takes 0.1 s.
MAX_TRAFFIC: Final = 512
#: Of connections to the app from the pod's address (meshdev.sidecar.worker.dialling, which belongs to another process).
ADDRESS_REASONS: Final = frozenset({"no-socket", "in-use", "crowded", "refused", "lost"})
#: A reason that is not known here: another version's.
OTHER: Final = "other"

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class InterceptLabels(NamedTuple):
    """Of one holder's intercept."""

    id: str
    holder: str
    namespace: str
    workload: str

    @classmethod
    def of(cls, claim: LiveClaim) -> "InterceptLabels":
        """Those of that claim."""
        workload = claim.spec.workload
        return cls(claim.spec.id, claim.holder, workload.namespace, str(workload))


class WorkloadLabels(NamedTuple):
    """Of a workload whose pods have sidecars."""

    namespace: str
    workload: str

    @classmethod
    def of(cls, workload: Workload) -> "WorkloadLabels":
        """Those of that workload."""
        return cls(workload.namespace, str(workload))


@dataclass
class WorkloadTotals:
    """What the sidecars of one workload have counted."""

    accepted: int = 0
    claimed: int = 0
    without_envoy: int = 0
    errors: int = 0
    envoy_restarts: int = 0
    pod_address: Counter[str] = field(default_factory=Counter)
    raw: Counter[str] = field(default_factory=Counter)

    def copy(self) -> "WorkloadTotals":
        """As they are now: these go on."""
        return replace(self, pod_address=Counter(self.pod_address), raw=Counter(self.raw))


class _Recent(Generic[K, V]):
    """At most *most* values; those that changed last, and were there a while ago."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._values: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def get(self, key: K, default: V) -> V:
        return self._values[key][1] if key in self._values else default

    def put(self, key: K, value: V) -> None:
        self._values[key] = self._clock(), value
        self._values.move_to_end(key)
        while len(self._values) > self._most:
            self._values.popitem(last=False)

    def items(self, live: AbstractSet[K]) -> Iterator[tuple[K, V]]:
        """Those that are *live*, or were not long ago."""
        now = self._clock()
        for key in live & self._values.keys():
            self._values[key] = now, self._values[key][1]
        for key in [key for key, (since, _) in self._values.items() if now - since > KEPT_SECONDS]:
            del self._values[key]
        for key, (_, value) in self._values.items():
            yield key, value


@dataclass(frozen=True)
class _Reported:
    """By one agent, the last time. The state is the one that its Pod keeps, which is in the budget of sidecars."""

    state: State
    held: Sequence[HeldClaim]
    workload: WorkloadLabels | None

    def counts(self) -> dict[str | PodPort, Counts]:
        """By intercept and by port."""
        return {**dict(self.state.intercepts), **dict(self.state.flows)}


class Totals:
    """Of everything that agents have reported to this process of control. *clock* is in seconds.

    *live* are all claims that there are, at any time.
    """

    def __init__(self, clock: Callable[[], float], live: Collection[HeldClaim]) -> None:
        self._live = live
        self._agents: dict[Hashable, _Reported] = {}
        self._requests: _Recent[InterceptLabels, Counts] = _Recent(MAX_INTERCEPTS, clock)
        self._traffic: _Recent[InterceptLabels, Traffic] = _Recent(MAX_TRAFFIC, clock)
        self._traffic_kept = ReportedTraffic(InterceptLabels.of)
        self._workloads: _Recent[WorkloadLabels, WorkloadTotals] = _Recent(MAX_WORKLOADS, clock)

    def report(self, agent: Hashable, message: FromAgent, held: Sequence[HeldClaim]) -> None:
        """What that agent reports; *held* are the claims that its pod serves. Other messages than State are skipped."""
        if not isinstance(message, State):
            return
        before = self._agents.get(agent)
        workload = before.workload if before is not None else None
        if held:
            workload = WorkloadLabels.of(held[0].claim.spec.workload)
        now = self._agents[agent] = _Reported(message.without_traffic(), held, workload)
        anew = before is not None and before.state.envoys != message.envoys
        # A claim that ended a moment ago was there when this was counted.
        claims = [*held, *(before.held if before is not None else ())]
        for label, more in self._traffic_kept.report(agent, message, claims, anew=anew):
            self._traffic.put(label, self._traffic.get(label, Traffic()) + more)
        if before is None:
            return
        old = before.state
        if (message.intercepts, message.flows, message.envoys) != (old.intercepts, old.flows, old.envoys):
            self._count_requests(now, before)
        if workload is not None and (message.passthrough, message.envoys) != (old.passthrough, old.envoys):
            self._count_passed(workload, message, old)

    def forget(self, agent: Hashable) -> None:
        """It is gone; what it has counted stays."""
        self._agents.pop(agent, None)
        self._traffic_kept.forget(agent)

    @property
    def claims(self) -> list[LiveClaim]:
        """All that there are now."""
        return [each.claim for each in self._live]

    def requests(self) -> dict[InterceptLabels, Counts]:
        """Those of all claims that there are, and of those that ended a while ago."""
        labels = frozenset(map(InterceptLabels.of, self.claims))
        return dict.fromkeys(labels, Counts()) | dict(self._requests.items(labels))

    def traffic(self) -> dict[InterceptLabels, Traffic]:
        """The same, of bytes and durations; of at most MAX_TRAFFIC, those that have none last."""
        labels = frozenset(map(InterceptLabels.of, self.claims))
        found = dict(self._traffic.items(labels))
        for label in islice(sorted(labels - found.keys()), MAX_TRAFFIC - len(found)):
            found[label] = Traffic()
        return found

    def workloads(self) -> dict[WorkloadLabels, WorkloadTotals]:
        """The same by workload."""
        labels = frozenset(WorkloadLabels.of(claim.spec.workload) for claim in self.claims)
        found = {each: WorkloadTotals() for each in labels} | dict(self._workloads.items(labels))
        return {each: totals.copy() for each, totals in found.items()}

    def _count_requests(self, now: _Reported, before: _Reported) -> None:
        base = before.counts() if before.state.envoys == now.state.envoys else {}
        counts = now.counts()
        # A claim that ended a moment ago was there when this was counted, unless another one has taken its place.
        for each in (*now.held, *before.held):
            labels, more = InterceptLabels.of(each.claim), Counts()
            for key in keys_of(each.claim):
                if (found := counts.pop(key, None)) is not None:
                    more += _grown(found, base.get(key, Counts()))
            if more != Counts():
                self._requests.put(labels, self._requests.get(labels, Counts()) + more)

    def _count_passed(self, workload: WorkloadLabels, now: State, before: State) -> None:
        total = self._workloads.get(workload, WorkloadTotals())
        new, old = now.passthrough, before.passthrough
        total.accepted += _more(new.accepted, old.accepted)
        total.claimed += _more(new.claimed, old.claimed)
        total.without_envoy += _more(new.without_envoy, old.without_envoy)
        total.errors += _more(new.errors, old.errors)
        total.pod_address.update(_by_reason(new.pod_address, old.pod_address, ADDRESS_REASONS))
        total.raw.update(_by_reason(new.raw, old.raw, REASONS))
        # The first one is no restart; of an agent in the same pod that is new the number is lower.
        total.envoy_restarts += max(now.envoys - max(before.envoys, 1), 0)
        self._workloads.put(workload, total)


def _grown(now: Counts, before: Counts) -> Counts:
    return Counts(
        _more(now.matched, before.matched), _more(now.fell_back, before.fell_back), _more(now.errors, before.errors)
    )


def _more(now: int, before: int) -> int:
    return now - before if now >= before else now


def _by_reason(now: CountsByReason, before: CountsByReason, known: Collection[str]) -> Counter[str]:
    base, found = dict(before), Counter[str]()
    for reason, count in now:
        found[reason if reason in known else OTHER] += _more(count, base.get(reason, 0))
    return found
