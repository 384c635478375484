"""Access records that somebody here watches: several at once, each with claims of its own. Pure."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from meshdev.observe.records import masked
from meshdev.wire.access import AccessRecord, Watch
from meshdev.wire.watching import ClaimRecords

#: Records that wait for one subscriber: then the oldest make room, and are counted.
MAX_WAITING: Final = 4096
#: Pods whose records are counted: more than one manager's sessions have. The counts of one that has more begin anew.
_MAX_PODS: Final = 4096
#: The last ones of all that somebody watched.
MAX_RECENT: Final = 256

_NOTHING: Final = Watch()


class PodRecord(NamedTuple):
    """A record, and the pod that it comes from, which the claim *id* reaches."""

    id: str
    pod: str
    record: AccessRecord


class Subscription:
    """Made by :meth:`RecordFeed.subscribe`; :meth:`close` ends it. *on_news* is called when there is something to take.

    ``watch`` is what it wants of the claims ``ids``.
    """

    def __init__(self, feed: "RecordFeed", ids: frozenset[str], watch: Watch, on_news: Callable[[], None]) -> None:
        self.ids: Final = ids
        self.watch: Final = watch
        self._feed = feed
        self._on_news = on_news
        self._records: deque[PodRecord] = deque()
        self._dropped = 0

    def take(self) -> tuple[list[PodRecord], int]:
        """What came since the last time, the oldest first, and how many more there were that did not come."""
        found, dropped = list(self._records), self._dropped
        self._records.clear()
        self._dropped = 0
        return found, dropped

    def close(self) -> None:
        """Nothing more comes; what is nobody else's is not recorded any more. A second call does nothing."""
        self._feed.unsubscribe(self)

    def offer(self, id_: str, pod: str, records: Iterable[tuple[AccessRecord, AccessRecord]], dropped: int) -> None:
        """Keep what is wanted of these, each as it came and without values of credentials."""
        every = self.watch.all and id_ in self.ids
        wanted = [each for each in records if every or each[0].intercept in self.ids]
        self._records.extend(PodRecord(id_, pod, whole if self.watch.values else shown) for whole, shown in wanted)
        while len(self._records) > MAX_WAITING:
            self._records.popleft()
            dropped += 1
        if id_ in self.ids or wanted:
            self._dropped += dropped
        if self._records or self._dropped:
            self._on_news()


class RecordFeed:
    """All subscriptions of one session. *watch* tells the manager what is wanted of a claim (tunnel.claims)."""

    def __init__(self, watch: Callable[[str, Watch], None]) -> None:
        self._watch = watch
        self._subscriptions: list[Subscription] = []
        self.recent: Final[deque[PodRecord]] = deque(maxlen=MAX_RECENT)
        """What came last, the oldest first, without values of credentials."""
        self._asked: dict[str, Watch] = {}
        self._next: dict[tuple[str, str], int] = {}
        """By claim and pod, how many records have come or are known to be lost."""

    def subscribe(self, ids: Iterable[str], watch: Watch, on_news: Callable[[], None] = lambda: None) -> Subscription:
        """Records of requests that the claims *ids* take; of all that their pods get, with ``watch.all``."""
        made = Subscription(self, frozenset(ids), watch, on_news)
        self._subscriptions.append(made)
        self._ask()
        return made

    def unsubscribe(self, one: Subscription) -> None:
        """See :meth:`Subscription.close`."""
        if one in self._subscriptions:
            self._subscriptions.remove(one)
            self._ask()

    def renew(self) -> None:
        """To be called every RENEW_SECONDS while there are subscriptions."""
        for id_, watch in self._asked.items():
            self._watch(id_, watch)

    def on_records(self, message: ClaimRecords) -> None:
        """The manager's message. What nobody here has asked for is not kept: it was on its way, or is made up."""
        if message.id not in self._asked:
            return
        place = message.id, message.pod
        if place not in self._next and len(self._next) >= _MAX_PODS:
            self._next.clear()
        lost = max(0, message.before - self._next.get(place, message.before))  # less: the manager began anew
        self._next[place] = message.before + len(message.records.records)
        records = [(each, masked(each)) for each in message.records.records]
        self.recent.extend(PodRecord(message.id, message.pod, shown) for _, shown in records)
        for each in list(self._subscriptions):
            each.offer(message.id, message.pod, records, message.records.dropped + lost)

    def _ask(self) -> None:
        wanted: dict[str, Watch] = {}
        for one in self._subscriptions:
            for id_ in one.ids:
                wanted[id_] = _both(wanted.get(id_, _NOTHING), one.watch)
        for id_ in self._asked.keys() - wanted.keys():
            self._watch(id_, _NOTHING)
        for id_, watch in wanted.items():
            if self._asked.get(id_) != watch:
                self._watch(id_, watch)
        self._asked = wanted
        self._next = {place: count for place, count in self._next.items() if place[0] in wanted}


def _both(one: Watch, other: Watch) -> Watch:
    return Watch(True, one.all or other.all, one.values or other.values)
