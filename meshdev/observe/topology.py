"""Who calls whom, how often, how well and how fast, over the last minute: edges made of access records.

An edge is counted in slots of :data:`SLOT_SECONDS`; the window is the last :data:`SLOTS` of them, the one that goes on
included. Of durations there is a histogram whose buckets grow by a fifth (2^¼). So a record costs the same however many
there were, and memory depends on the bounds alone: an edge has at most 3 KB. The clock is an argument.
"""

import math
from array import array
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from meshdev.wire.access import AccessRecord

#: At most: what is more is joined as ``workload/others`` and so on; requests of more edges are only counted.
MAX_EDGES: Final = 1000
MAX_WORKLOADS: Final = 200
MAX_ADDRESSES: Final = 32
MAX_LAPTOPS: Final = 32

SLOT_SECONDS: Final = 10.0
SLOTS: Final = 6
WINDOW_SECONDS: Final = SLOT_SECONDS * SLOTS

#: Buckets of durations, in microseconds: the first one ends at 2^4.25, the last one begins at 2^26.75 (113 s).
_STEPS: Final = 4
_FIRST: Final = 4 * _STEPS
_BUCKETS: Final = 27 * _STEPS - _FIRST
_NONE: Final = array("I", [0]) * _BUCKETS

_LIMITS: Final = {"workload": MAX_WORKLOADS, "address": MAX_ADDRESSES, "laptop": MAX_LAPTOPS}


def workload_node(workload: str, namespace: str, here: str) -> str:
    """The id of a workload (``deployment/b``): with its namespace where that is another one than *here*."""
    return workload if namespace == here else f"{workload}@{namespace}"


def address_node(address: IPv4Address) -> str:
    """The id of a client of whom only the address is known."""
    return f"address/{address}"


def laptop_node(holder: str) -> str:
    """The id of the machine of an intercept's holder."""
    return f"laptop/{holder}"


def kind_of(node: str) -> str:
    """``deployment`` and so on, ``workload`` for others, ``address``, ``laptop``."""
    return node.partition("/")[0]


class Hop(NamedTuple):
    """One request: from node *source* to node *target*, and on to node *laptop* where it was served there.

    *duration* is in microseconds; *failed*: there was no answer, or a 5xx.
    """

    source: str
    target: str
    laptop: str | None
    failed: bool
    duration: int


def hop(record: AccessRecord, source: str, target: str) -> Hop:
    """What *record* adds, of a request between these nodes."""
    served_there = record.served_by == "laptop" and record.holder
    failed = record.status >= 500 or (record.status == 0 and record.protocol != "tcp")
    return Hop(source, target, laptop_node(record.holder) if served_there else None, failed, record.duration)


class EdgeLoad(NamedTuple):
    """An edge: requests a second, the share that failed, and the median duration."""

    source: str
    target: str
    rate: float
    errors: float
    p50_ms: float


class Topology:
    """Edges of the last minute. *now* is always the caller's clock, in seconds, which never goes back."""

    def __init__(self, now: float) -> None:
        self._begin = now
        self._slot = int(now // SLOT_SECONDS)
        self._edges: dict[tuple[str, str], _Edge] = {}
        self._uses: Counter[str] = Counter()
        """Of each node, in how many edges it is."""
        self._groups: Counter[str] = Counter()
        self.uncounted = 0
        """Requests so far on edges that were too many."""

    def add(self, now: float, seen: Hop) -> None:
        """Count a request that ended *now*."""
        self._advance(now)
        self._count(seen.source, seen.target, seen)
        if seen.laptop is not None:
            self._count(seen.target, seen.laptop, seen)

    def edges(self, now: float) -> list[EdgeLoad]:
        """All that were used within the window."""
        self._advance(now)
        covered = max(1.0, now - max(self._begin, (self._slot - SLOTS + 1) * SLOT_SECONDS))
        return [
            EdgeLoad(source, target, each.count / covered, each.failed / each.count, each.median() / 1000)
            for (source, target), each in self._edges.items()
        ]

    @property
    def nodes(self) -> Iterator[str]:
        """Those at the ends of edges."""
        return iter(self._uses)

    def _advance(self, now: float) -> None:
        """Forget what is older than the window: once in a slot."""
        slot = int(now // SLOT_SECONDS)
        if slot == self._slot:
            return
        gone = range(max(self._slot + 1, slot - SLOTS + 1), slot + 1)
        self._slot = slot
        for ends, each in list(self._edges.items()):
            for former in gone:
                each.clear(former % SLOTS)
            if not each.count:
                del self._edges[ends]
                for node in ends:
                    self._release(node)

    def _count(self, source: str, target: str, seen: Hop) -> None:
        edge = self._edges.get((source, target)) or self._joined(source, target)
        if edge is None:
            self.uncounted += 1
        else:
            edge.add(self._slot % SLOTS, seen)

    def _joined(self, source: str, target: str) -> "_Edge | None":
        """An edge between these nodes, or between the groups in which they are joined; None where it is too many."""
        ends = self._enter(source), self._enter(target)
        edge = self._edges.get(ends)
        if edge is None and len(self._edges) < MAX_EDGES:
            edge = self._edges[ends] = _Edge()
        else:
            for node in ends:
                self._release(node)
        return edge

    def _enter(self, node: str) -> str:
        group = _group(node)
        if node not in self._uses:
            if self._groups[group] >= _LIMITS[group]:
                node = f"{group}/others"
            else:
                self._groups[group] += 1
        self._uses[node] += 1
        return node

    def _release(self, node: str) -> None:
        self._uses[node] -= 1
        if not self._uses[node]:
            del self._uses[node]
            if not node.endswith("/others"):
                self._groups[_group(node)] -= 1


def _group(node: str) -> str:
    kind = kind_of(node)
    return kind if kind in _LIMITS else "workload"


class _Edge:
    """Counts by slot, and their sums. *median* is remembered until the next change."""

    __slots__ = ("_counts", "_failures", "_histogram", "_histograms", "_median", "count", "failed")

    def __init__(self) -> None:
        self.count = 0
        self.failed = 0
        self._counts = [0] * SLOTS
        self._failures = [0] * SLOTS
        self._histogram = _NONE[:]
        self._histograms: list[array[int] | None] = [None] * SLOTS
        self._median: float | None = None

    def add(self, slot: int, seen: Hop) -> None:
        """One request in that slot."""
        bucket = min(max(int(math.log2(max(1, seen.duration)) * _STEPS) - _FIRST, 0), _BUCKETS - 1)
        histogram = self._histograms[slot]
        if histogram is None:
            histogram = self._histograms[slot] = _NONE[:]
        histogram[bucket] += 1
        self._histogram[bucket] += 1
        self._counts[slot] += 1
        self.count += 1
        self._failures[slot] += seen.failed
        self.failed += seen.failed
        self._median = None

    def clear(self, slot: int) -> None:
        """Forget that slot."""
        histogram = self._histograms[slot]
        if histogram is None:
            return
        for bucket, count in enumerate(histogram):
            if count:
                self._histogram[bucket] -= count
        self._histograms[slot] = None
        self.count -= self._counts[slot]
        self.failed -= self._failures[slot]
        self._counts[slot] = self._failures[slot] = 0
        self._median = None

    def median(self) -> float:
        """In microseconds, within a tenth: where in its bucket the middle one is follows from how many are there."""
        if self._median is None:
            self._median = self._guess()
        return self._median

    def _guess(self) -> float:
        left = self.count / 2
        for bucket, count in enumerate(self._histogram):
            if count and left <= count:
                return float(2 ** ((bucket + _FIRST + left / count) / _STEPS))
            left -= count
        return 0.0
