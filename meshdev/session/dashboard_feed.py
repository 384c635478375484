"""What the dashboard's page is sent: made while at least one page is open, and for nobody otherwise."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from meshdev.dashboard.client_events import MAX_WAITING, ClientEvents, FeedEvent
from meshdev.kube.client import KubeApi
from meshdev.observe.topology import Topology, hop, workload_node
from meshdev.session import dashboard_view as view
from meshdev.session.checks import checks
from meshdev.session.dashboard_cluster import ClusterView
from meshdev.session.inspecting import Inspectable
from meshdev.session.records import PodRecord, RecordFeed, Subscription
from meshdev.session.state import SessionState
from meshdev.wire.access import Watch
from meshdev.wire.session_inspect import InspectedRequest

#: How often requests are sent, and the state, at most; and how often the tunnel's figures are noted, in seconds.
REQUESTS_SECONDS: Final = 0.25
STATE_SECONDS: Final = 1.0
SAMPLE_SECONDS: Final = 1.0
LINGER_SECONDS: Final = 3.0
#: Points of the history.
MAX_POINTS: Final = 300

_ALL: Final = Watch(on=True, all=True)


@dataclass(frozen=True)
class Observed:
    """What the dashboard shows of a session."""

    api: KubeApi
    holder: str
    state: Callable[[], SessionState]
    records: RecordFeed
    intercepts: Callable[[], tuple[Inspectable, ...]]
    """One's own that have a claim."""
    leave: Callable[[str], Awaitable[None]]
    """End that one of them. Raises InterceptError where there is none with that id."""


class SessionFeed:
    """The :class:`meshdev.dashboard.server.DashboardFeed` of a session. Works inside :meth:`run`."""

    def __init__(self, observed: Observed, clock: Callable[[], float] = time.monotonic) -> None:
        self._observed = observed
        self._clock = clock
        self._clients: set[ClientEvents] = set()
        self._someone = asyncio.Event()
        self._nobody = asyncio.Event()
        self._tunnel = _TunnelHistory()
        self._state: FeedEvent | None = None
        self._number = 0

    async def leave(self, id_: str) -> None:
        """End that intercept of one's own; wait until it is undone. Raises InterceptError."""
        await self._observed.leave(id_)

    async def events(self) -> AsyncGenerator[FeedEvent, None]:
        """Until it is closed."""
        waiting = ClientEvents()
        waiting.put(FeedEvent("history", {"points": list(self._tunnel.points)}))
        if self._state is not None:
            waiting.put(self._state)
        self._clients.add(waiting)
        self._nobody.clear()
        self._someone.set()
        try:
            while True:
                for each in await waiting.take():
                    yield each
        finally:
            self._clients.discard(waiting)
            if not self._clients:
                self._someone.clear()
                self._nobody.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sample())
            while True:
                await self._someone.wait()
                looking = group.create_task(self._look())
                await self._until_left()
                looking.cancel()
                await asyncio.wait((looking,))

    async def _until_left(self) -> None:
        """Until no page has been open for LINGER_SECONDS: one that is loaded again finds what it had."""
        while True:
            await self._nobody.wait()
            try:
                async with asyncio.timeout(LINGER_SECONDS):
                    await self._someone.wait()
            except TimeoutError:
                return

    async def _sample(self) -> None:
        while True:
            self._tunnel.note(self._observed.state(), self._clock(), time.time())
            await asyncio.sleep(SAMPLE_SECONDS)

    async def _look(self) -> None:
        """While pages are open."""
        async with asyncio.TaskGroup() as group:
            cluster = ClusterView(self._observed.api, group, self._clock)
            requests = _Requests(self._observed, cluster, self._clock)
            try:
                await self._keep_sending(cluster, requests)
            finally:
                self._state = None
                requests.close()
                cluster.close()

    async def _keep_sending(self, cluster: ClusterView, requests: "_Requests") -> None:
        next_state = 0.0
        while True:
            chosen = self._observed.intercepts()
            cluster.follow({each.namespace for each in chosen})
            self._put_requests(requests.take(chosen))
            if self._clock() >= next_state:
                next_state = self._clock() + STATE_SECONDS
                self._state = FeedEvent("state", self._made(cluster, requests))
                self._put(self._state)
            await asyncio.sleep(REQUESTS_SECONDS)

    def _put(self, event: FeedEvent) -> None:
        for each in self._clients:
            each.put(event)

    def _put_requests(self, found: tuple[list[InspectedRequest], int]) -> None:
        requests, skipped = found
        if requests or skipped:
            numbered = [each.as_json() | {"number": self._number + at} for at, each in enumerate(requests, skipped + 1)]
            self._number += skipped + len(requests)
            self._put(FeedEvent("requests", {"requests": numbered, "skipped": skipped}))

    def _made(self, cluster: ClusterView, requests: "_Requests") -> view.Json:
        state, holder, now = self._observed.state(), self._observed.holder, self._clock()
        loads = requests.topology.edges(now)
        intercepts = view.intercepts(state, holder, cluster.intercepts, now)
        nodes = view.nodes(cluster.workloads, intercepts, requests.topology.nodes, holder, self._observed.api.namespace)
        notes = view.unshown(cluster.workloads, nodes, requests.topology.uncounted)
        return {
            "time": round(time.time(), 3),
            "session": view.session(state, holder),
            "nodes": nodes,
            "edges": view.edges(loads),
            "intercepts": intercepts,
            "tunnel": view.tunnel(state, *self._tunnel.rates),
            "health": [each.as_json() for each in checks(state, cluster.errors, notes)],
        }


class _Requests:
    """Records of all that the pods of one's own intercepts get: into the topology, and the newest for the page."""

    def __init__(self, observed: Observed, cluster: ClusterView, clock: Callable[[], float]) -> None:
        self._feed = observed.records
        self._here = observed.api.namespace
        self._cluster = cluster
        self._clock = clock
        self._subscription: Subscription | None = None
        self._intercepts: dict[str, Inspectable] = {}
        """Those that the subscription is of, by id."""
        self.topology: Final = Topology(clock())

    def take(self, chosen: tuple[Inspectable, ...]) -> tuple[list[InspectedRequest], int]:
        """What came since the last time, the newest MAX_WAITING of it, and how many more there were."""
        former, ids = self._subscription, frozenset(each.id for each in chosen)
        found, dropped = former.take() if former is not None else ([], 0)
        known = self._intercepts | {each.id: each for each in chosen}
        if former is None or former.ids != ids:
            self._subscription = self._feed.subscribe(ids, _ALL)
            self._intercepts = {each.id: each for each in chosen}
            if former is not None:
                former.close()
        mine = [each for each in found if each.id in known]
        workloads, now = self._cluster.workloads, self._clock()
        for each in mine:
            one = known[each.id]
            target = workload_node(one.target, one.namespace, self._here)
            self.topology.add(now, hop(each.record, workloads.source(each.record.source), target))
        shown = [self._shown(each, known[each.id]) for each in mine[-MAX_WAITING:]]
        return shown, dropped + len(mine) - len(shown)

    def close(self) -> None:
        """Nothing is recorded for this any more."""
        if self._subscription is not None:
            self._subscription.close()

    def _shown(self, found: PodRecord, one: Inspectable) -> InspectedRequest:
        workload = self._cluster.workloads.addresses.get(found.record.source)
        return InspectedRequest(one.namespace, one.target, found.pod, found.record, workload)


class _TunnelHistory:
    """Bytes a second and round trips of the last minutes."""

    def __init__(self) -> None:
        self.points: Final[deque[view.Json]] = deque(maxlen=MAX_POINTS)
        self.rates = (0.0, 0.0)
        """To the cluster, to the laptop."""
        self._former: tuple[float, int, int] | None = None

    def note(self, state: SessionState, now: float, time_of_day: float) -> None:
        """The state *now*, on the monotonic clock."""
        sent, received = state.traffic.bytes_to_cluster, state.traffic.bytes_to_laptop
        if self._former is not None and now > self._former[0]:
            since, sent_then, received_then = self._former
            self.rates = (sent - sent_then) / (now - since), (received - received_then) / (now - since)
            self.points.append(
                {
                    "time": round(time_of_day, 3),
                    "to_cluster": round(self.rates[0]),
                    "to_laptop": round(self.rates[1]),
                    "rtt_ms": view.round_trip(state),
                }
            )
        self._former = now, sent, received
