"""Who watches which pods, and the records that sessions get of them. Pure.

A watch is a lease of one claim. While one with an edge to a pod holds, its agent is told so again and again, and what
comes from its Envoy and its agent goes to the sessions that watch: of a pod so many records a second, the rest is
counted. What waits for a session is bounded: more is counted, too.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from itertools import chain, islice, zip_longest
from typing import Final, Protocol

from meshdev.manager.control.access_logs import EnvoyLogs, LoggedPod
from meshdev.manager.control.certificates import Later
from meshdev.manager.control.pods import HeldClaim
from meshdev.observe.records import cut, masked
from meshdev.rate import TokenBucket
from meshdev.wire.access import (
    MAX_RECORDS,
    RECORDS_PER_SECOND,
    WATCH_SECONDS,
    AccessRecord,
    AccessRecords,
    Watch,
)
from meshdev.wire.control import encode_body
from meshdev.wire.manager import RecordsOfClaim
from meshdev.wire.watching import RENEW_SECONDS, ClaimRecords, WatchClaim

#: Records that wait for the tunnel container, of one claim and of all: one takes some 1.5 KB.
MAX_WAITING: Final = 2048
MAX_WAITING_IN_ALL: Final = 8192
#: Pods that are watched at a time. Each has up to two connections more then, one for each worker of its Envoy.
MAX_PODS: Final = 128

#: How often it is found out which pods are watched, because sessions and agents say something new, a second and at
#: once: with many it takes milliseconds.
_UPDATES_PER_SECOND: Final = 4.0
_UPDATES_AT_ONCE: Final = 16.0

_NOBODY: Final = Watch()


class WatchableClaims(Protocol):
    """What is needed of :class:`~meshdev.manager.control.core.Core`."""

    def held_by(self, key: str) -> list[HeldClaim]:
        """The claims with an edge to that key, oldest first."""

    def reached_by(self, alias: str) -> Iterable[str]:
        """The keys that a claim has an edge to."""

    def named(self) -> Iterable[str]:
        """The keys of all agents."""


class WaitingRecords:
    """Records of one pod that wait to be sent to one claim's session, and how many more there were."""

    def __init__(self, alias: str, intercept: str, pod: str, waiting: Counter[str]) -> None:
        self.name: Final = f"records {alias} {pod}"
        self._alias, self._intercept, self._pod = alias, intercept, pod
        self._records: deque[AccessRecord] = deque()
        self._dropped = self._before = 0
        self._waiting = waiting

    def __bool__(self) -> bool:
        return bool(self._records or self._dropped)

    def put(self, record: AccessRecord) -> None:
        """The newest; only counted where too many wait."""
        if self._waiting[self._alias] >= MAX_WAITING or self._waiting.total() >= MAX_WAITING_IN_ALL:
            self._dropped += 1
            return
        self._waiting[self._alias] += 1
        self._records.append(record)

    def close(self) -> None:
        """Nobody wants them any more."""
        self._waiting[self._alias] -= len(self._records)
        self._records.clear()
        self._dropped = 0

    def drop(self, count: int) -> None:
        """So many more there were."""
        self._dropped += count

    def take(self) -> RecordsOfClaim:
        """What goes into one message, the oldest first; it may be nothing by now."""
        some = tuple(self._records.popleft() for _ in range(min(MAX_RECORDS, len(self._records))))
        self._waiting[self._alias] -= len(some)
        records = AccessRecords(some, self._dropped)
        message = ClaimRecords(self._intercept, self._pod, records, self._before)
        self._before += len(some)
        self._dropped = 0
        return RecordsOfClaim(self._alias, encode_body(message))


Watching = Sequence[tuple[HeldClaim, Watch]]


@dataclass
class _Lease:
    watch: Watch
    until: float


class Watches:
    """Belongs to one event loop. *send* gets records that wait, and takes some of them whenever there is room; *later*
    and *clock* as those of Core."""

    def __init__(
        self, claims: WatchableClaims, send: Callable[[WaitingRecords], None], later: Later, clock: Callable[[], float]
    ) -> None:
        self._claims = claims
        self._send = send
        self._later = later
        self._clock = clock
        self._leases: dict[str, _Lease] = {}
        self._agents: dict[str, Callable[[Watch], None]] = {}
        self._by_key: dict[str, Watch] = {}
        """By key what its agent has last been sent, of those that are watched."""
        self._rates: dict[str, TokenBucket] = {}
        self._queues: dict[tuple[str, str], WaitingRecords] = {}
        self._waiting: Counter[str] = Counter()
        self._looking = self._late = False
        self._updates = TokenBucket(_UPDATES_PER_SECOND, _UPDATES_AT_ONCE, clock())
        self._take: Callable[[HeldClaim, AccessRecord], None] | None = None
        """For control itself: gets what any claim takes."""
        self._missed: Callable[[int], None] = lambda _: None

    # -- who watches -----------------------------------------------------------------------------------------------

    def tunnel_connected(self) -> None:
        """Another tunnel container, or another connection: who watches says so again."""
        for alias in list(self._leases):
            self._forget(alias)
        self._update_agents()

    def watch_all(
        self, take: Callable[[HeldClaim, AccessRecord], None], missed: Callable[[int], None] = lambda _: None
    ) -> None:
        """From now on *take* gets the records of requests that claims take, without values of credentials: of all pods,
        as far as there are no more than MAX_PODS, and sessions watch none of the others. *missed* gets how many more
        there were."""
        self._take, self._missed = take, missed
        self.refresh()

    def refresh(self) -> None:
        """A claim may reach other pods now: their first requests are recorded, too."""
        if self._leases or self._take is not None:
            self._update_soon()
            self._look_later()

    def on_watch(self, message: WatchClaim) -> None:
        """A session watches a claim, still, or no more."""
        lease = self._leases.get(message.id)
        if message.watch.on:
            self._leases[message.id] = _Lease(message.watch, self._clock() + WATCH_SECONDS)
        else:
            self._forget(message.id)
        if (lease.watch if lease else _NOBODY) != message.watch:
            self._update_soon()
        self._look_later()

    @contextmanager
    def agent(self, key: str, send: Callable[[Watch], None]) -> Iterator[None]:
        """The agent of *key* is told by *send* within the block, unless a newer stream takes its place."""
        self._agents[key] = send
        if key in self._by_key:
            send(self._by_key[key])
        try:
            yield
        finally:
            if self._agents.get(key) is send:
                del self._agents[key]

    def _look_later(self) -> None:
        if (self._leases or self._take is not None) and not self._looking:
            self._looking = True
            self._later(RENEW_SECONDS, self._look)

    def _look(self) -> None:
        """Leases end, and those that agents have are renewed."""
        self._looking = False
        now = self._clock()
        for alias in [alias for alias, lease in self._leases.items() if lease.until <= now]:
            self._forget(alias)
        self._update_agents(again=True)
        self._look_later()

    def _forget(self, alias: str) -> None:
        self._leases.pop(alias, None)
        for each in [each for each in self._queues if each[0] == alias]:
            self._queues.pop(each).close()
        del self._waiting[alias]

    def _update_soon(self) -> None:
        """At once, unless that is said again and again."""
        if self._late:
            return
        if delay := self._updates.delay(self._clock()):
            self._late = True
            self._later(delay, self._update_late)
        else:
            self._update_agents()

    def _update_late(self) -> None:
        self._late = False
        self._update_agents()

    def _update_agents(self, *, again: bool = False) -> None:
        """Those for whom it has changed; *again*: all that are watched."""
        wanted = self._wanted()
        for key in self._by_key.keys() - wanted.keys():
            self._rates.pop(key, None)
            self._send_watch(key, _NOBODY)
        for key, watch in wanted.items():
            if again or self._by_key.get(key) != watch:
                self._send_watch(key, watch)
        self._by_key = wanted

    def _wanted(self) -> dict[str, Watch]:
        """Where these are too many pods, one of each claim in turn: nobody takes all."""
        reached = {alias: sorted(self._claims.reached_by(alias)) for alias in self._leases}
        in_turn = chain.from_iterable(zip_longest(*reached.values()))
        chosen = frozenset(islice(dict.fromkeys(key for key in in_turn if key is not None), MAX_PODS))
        found: dict[str, Watch] = {}
        for alias, lease in self._leases.items():
            for key in reached[alias]:
                if key in chosen:
                    found[key] = _both(found.get(key, _NOBODY), lease.watch)
        if self._take is not None:
            for key in chain(self._by_key, self._claims.named()):  # those that are watched stay so
                if len(found) < MAX_PODS and key not in found and self._claims.held_by(key):
                    found[key] = Watch(on=True)
        return found

    def _send_watch(self, key: str, watch: Watch) -> None:
        if (send := self._agents.get(key)) is not None:
            send(watch)

    # -- records ---------------------------------------------------------------------------------------------------

    def logged(self, key: str, logs: EnvoyLogs) -> bool:
        """What the Envoy of a pod sends; False where nobody wants more of it."""
        held = self._claims.held_by(key) if key in self._by_key else []
        watching = self._watching(held)
        if not watching and (self._take is None or not held):
            return False
        pod = LoggedPod(each.claim for each in held)
        requests = [each for each in logs.requests if self._is_wanted(watching, pod.intercept(each))]
        connections = [each for each in logs.connections if self._is_wanted(watching, pod.flow(each))]
        records = [pod.request(each) if self._may(key) else None for each in requests]
        records += [pod.connection(each) if self._may(key) else None for each in connections]
        self._deliver(held, records, logs.unread)
        return True

    def is_watched(self, key: str) -> bool:
        """Whether somebody wants to know of that pod."""
        return key in self._by_key

    def recorded(self, key: str, records: AccessRecords) -> None:
        """What the agent of a pod sends: of requests that nobody claimed, which belong to no trace of ours."""
        held = self._claims.held_by(key) if key in self._by_key else []
        watching = self._watching(held)
        wanted = [each for each in records.records if self._is_wanted(watching, each.intercept)]
        self._deliver(held, [_without_span(each) if self._may(key) else None for each in wanted], records.dropped)

    def _watching(self, held: Iterable[HeldClaim]) -> Watching:
        return [(each, self._leases[each.alias].watch) for each in held if each.alias in self._leases]

    def _is_wanted(self, watching: Watching, intercept: str | None) -> bool:
        if self._take is not None and intercept is not None:
            return True
        return any(watch.all or held.claim.spec.id == intercept for held, watch in watching)

    def _may(self, key: str) -> bool:
        """Whether the pod may have one record more."""
        now = self._clock()
        return self._rates.setdefault(key, TokenBucket(RECORDS_PER_SECOND, RECORDS_PER_SECOND, now)).take(now)

    def _deliver(self, claims: Sequence[HeldClaim], records: Iterable[AccessRecord | None], dropped: int = 0) -> None:
        """Each to every session that wants it, once. None is one that there is only the number of."""
        changed, watching = set(), self._watching(claims)
        holders = {held.claim.spec.id: held.claim.holder for held in claims}
        for found in records:
            if found is None:
                dropped += 1
                continue
            record = replace(found, holder=holders.get(found.intercept or "", ""))
            hidden = masked(record)
            self._take_own(claims, hidden)
            for held, watch in _one_a_session(watching, record.intercept):
                queue = self._queue(held)
                queue.put(cut(record) if watch.values and held.claim.spec.id == record.intercept else hidden)
                changed.add(queue)
        if dropped:
            self._missed(dropped)
            for held, _ in _one_a_session(watching, None, every=True):
                queue = self._queue(held)
                queue.drop(dropped)
                changed.add(queue)
        for queue in changed:
            self._send(queue)

    def _take_own(self, claims: Sequence[HeldClaim], record: AccessRecord) -> None:
        held = next((each for each in claims if each.claim.spec.id == record.intercept), None)
        if self._take is not None and held is not None:
            self._take(held, record)

    def _queue(self, held: HeldClaim) -> WaitingRecords:
        found = self._queues.get((held.alias, held.pod))
        if found is None:
            found = WaitingRecords(held.alias, held.claim.spec.id, held.pod, self._waiting)
            self._queues[held.alias, held.pod] = found
        return found


def _without_span(record: AccessRecord) -> AccessRecord:
    return replace(record, span_id=None, parent_span_id=None, sampled=False)


def _one_a_session(watching: Watching, intercept: str | None, *, every: bool = False) -> Watching:
    """By which claim each session gets a record: the one that took the request, else one by which it watches all."""
    found: dict[IPv4Address | None, tuple[HeldClaim, Watch]] = {}
    for held, watch in watching:
        own = held.claim.spec.id == intercept
        if own or ((watch.all or every) and held.session not in found):
            found[held.session] = held, watch
    return list(found.values())


def _both(one: Watch, other: Watch) -> Watch:
    return Watch(True, one.all or other.all, one.values or other.values)
