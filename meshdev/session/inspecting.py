"""The stream ``inspect``: requests that pods of this session's intercepts get, for as long as somebody looks."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from meshdev.errors import InterceptError, MeshdevError
from meshdev.kube.client import KubeApi
from meshdev.kube.clients import watch_clients
from meshdev.observe.filters import is_wanted
from meshdev.session.api import Exchange
from meshdev.session.records import PodRecord, RecordFeed, Subscription
from meshdev.wire.access import Watch
from meshdev.wire.session_api import Note
from meshdev.wire.session_inspect import MAX_REQUESTS, InspectedRequest, InspectRequest, Requests
from meshdev.wire.session_intercepts import Left

log = logging.getLogger(__name__)

#: How often it is looked which intercepts there are, in seconds.
_LOOK_SECONDS: Final = 0.5
#: A client that reads slowly is tried again after so many seconds; meanwhile its oldest records make room.
_LATE_SECONDS: Final = 0.1
#: Between two events for a client that wants the last requests only.
_LAST_SECONDS: Final = 0.25


@dataclass(frozen=True)
class Inspectable:
    """An intercept of this session: the claim's *id*, and the workload that it is on."""

    id: str
    namespace: str
    target: str


#: The intercepts that a request is for. Raises InterceptError, UsageError.
Choose = Callable[[InspectRequest], tuple[Inspectable, ...]]


class Inspector:
    """Serves streams of :class:`InspectRequest`."""

    def __init__(self, api: KubeApi, feed: RecordFeed, choose: Choose) -> None:
        self._api = api
        self._feed = feed
        self._choose = choose

    async def stream(self, request: InspectRequest, exchange: Exchange) -> None:
        """Until the client goes away, or none of the intercepts that it asked for is left.

        Raises InterceptError where there is none to begin with.
        """
        chosen = self._choose(request)
        if not chosen:
            raise _nothing_to_inspect(request)
        async with asyncio.TaskGroup() as group:
            inspection = _Inspection(self._feed, request, exchange)
            watching = [
                group.create_task(self._name_clients(namespace, inspection))
                for namespace in sorted({each.namespace for each in chosen})
            ]
            try:
                await inspection.run(lambda: self._choose(request), chosen)
            finally:
                for each in watching:
                    each.cancel()

    async def _name_clients(self, namespace: str, inspection: "_Inspection") -> None:
        def trouble(error: MeshdevError) -> None:
            log.info("pods of namespace %s are not watched: %s", namespace, error.message)

        try:
            async with aclosing(watch_clients(self._api, namespace, trouble)) as states:
                async for clients in states:
                    inspection.know(namespace, clients)
        except MeshdevError as error:
            inspection.know(namespace, {})
            inspection.note(f"clients are shown by their addresses: {error.message}")


class _Inspection:
    """One stream."""

    def __init__(self, feed: RecordFeed, request: InspectRequest, exchange: Exchange) -> None:
        self._feed = feed
        self._request = request
        self._exchange = exchange
        self._watch = Watch(True, request.all, request.values)
        self._news = asyncio.Event()
        self._known: dict[str, Mapping[IPv4Address, str]] = {}
        self._intercepts: dict[str, Inspectable] = {}
        """By id; also those that ended, whose last records may be on their way."""

    def know(self, namespace: str, clients: Mapping[IPv4Address, str]) -> None:
        """The pods of that namespace, by address."""
        self._known[namespace] = clients
        self._news.set()

    def note(self, text: str) -> None:
        """For people."""
        self._exchange.send(Note(text))

    async def run(self, choose: Callable[[], tuple[Inspectable, ...]], chosen: tuple[Inspectable, ...]) -> None:
        """See :meth:`Inspector.stream`."""
        self._remember(chosen)
        await self._until_clients_are_known({each.namespace for each in chosen})
        recent = [each for each in self._feed.recent if self._is_wanted(each)]
        self._send(recent, 0)
        if not self._request.follow:
            self._exchange.send(Left())
            return
        subscription = self._subscribe(chosen)
        closed = asyncio.ensure_future(self._exchange.closed())
        try:
            while chosen and not closed.done():
                await self._wait(closed)
                await self._forward(subscription, closed)
                now = choose()
                if {each.id for each in now} != {each.id for each in chosen}:
                    self._remember(now)
                    former, subscription = subscription, self._subscribe(now)
                    self._send(*former.take())
                    former.close()
                chosen = now
            if not closed.done():
                self._exchange.send(Left())
        finally:
            closed.cancel()
            subscription.close()

    def _subscribe(self, chosen: Iterable[Inspectable]) -> Subscription:
        return self._feed.subscribe([each.id for each in chosen], self._watch, self._news.set)

    def _remember(self, chosen: Iterable[Inspectable]) -> None:
        self._intercepts |= {each.id: each for each in chosen}

    async def _until_clients_are_known(self, namespaces: set[str]) -> None:
        """The first list of pods, unless that takes too long: without it the first requests come from addresses."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                while not namespaces <= self._known.keys():
                    self._news.clear()
                    await self._news.wait()

    async def _wait(self, closed: asyncio.Future[None]) -> None:
        """For records, or the client's end; not for long, since intercepts come and go."""
        news = asyncio.ensure_future(self._news.wait())
        await asyncio.wait((news, closed), timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        news.cancel()
        self._news.clear()

    async def _forward(self, subscription: Subscription, closed: asyncio.Future[None]) -> None:
        if self._request.last:
            await asyncio.wait((closed,), timeout=_LAST_SECONDS)
        while self._exchange.late and not closed.done():
            await asyncio.wait((closed,), timeout=_LATE_SECONDS)
        self._send(*subscription.take())

    def _send(self, records: list[PodRecord], dropped: int) -> None:
        shown = [self._shown(each) for each in records if each.id in self._intercepts]
        shown = [each for each in shown if is_wanted(self._request.filter, each)]
        if self._request.last:
            dropped += max(0, len(shown) - self._request.last)
            shown = shown[-self._request.last :]
        for at in range(0, max(len(shown), 1), MAX_REQUESTS):
            some = tuple(shown[at : at + MAX_REQUESTS])
            if some or dropped:
                self._exchange.send(Requests(some, dropped))
                dropped = 0

    def _shown(self, found: PodRecord) -> InspectedRequest:
        intercept = self._intercepts[found.id]
        workload = next(
            (each[found.record.source] for each in self._known.values() if found.record.source in each), None
        )
        return InspectedRequest(intercept.namespace, intercept.target, found.pod, found.record, workload)

    def _is_wanted(self, found: PodRecord) -> bool:
        return found.id in self._intercepts and (self._request.all or found.record.intercept in self._intercepts)


def _nothing_to_inspect(request: InspectRequest) -> InterceptError:
    target = request.target or "deployment/NAME"
    return InterceptError(
        f"this session does not intercept {request.target}" if request.target else "this session has no intercepts",
        hint=f"requests are seen in pods with a sidecar of yours: meshdev mesh {target} --header a=1, then "
        f"meshdev inspect {target} --all --follow",
    )
