"""One Envoy's stream of ADS, state of the world, as a state machine: what it asked, what it took, what is next.

A goal is sent in the order of ORDER, each kind after the one before was acknowledged, so that Envoy never meets a name
before what it means. A cluster that is no longer used goes last, by :meth:`prune`, when no route has led there
for a while: a request that is still on its way finds neither otherwise. What Envoy refuses ends the goal: it goes on
with what it had.
Source: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol (eventual consistency considerations).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from meshdev.sidecar.envoy.protos import CLUSTERS, ENDPOINTS, LISTENERS, ORDER, ROUTES, Packed

#: Kinds that Envoy asks for as a whole; of the others it names what it needs.
_WHOLE: Final = frozenset({CLUSTERS, LISTENERS})
#: Names that one Envoy may ask for, and characters of one: twice the ports of a pod, and what names.py makes of them.
MAX_NAMES: Final = 512
MAX_NAME: Final = 64

Resources = Mapping[str, Any]


@dataclass(frozen=True)
class DiscoveryAnswer:
    """One DiscoveryResponse."""

    kind: str
    version: str
    nonce: str
    resources: tuple[Any, ...]


@dataclass
class _Watch:
    """What Envoy has of one kind."""

    names: frozenset[str] = frozenset()
    sent: dict[str, Any] | None = None
    """The last answer that is not refused; None before any."""
    nonce: str = ""
    pending: bool = False
    goal: Packed | None = None
    """What the last answer was sent for."""
    known: dict[str, Any] = field(default_factory=dict)
    """Everything that it took since the last pruning: a request may be on its way there. What it refused is not among
    it: sent once more, it would be refused once more."""


class AdsStream:
    """One stream's life. :meth:`aim` and :meth:`on_request` return what is to be sent now."""

    def __init__(self) -> None:
        self._watches: dict[str, _Watch] = {}
        self._goal: Packed | None = None
        self._nonce = 0
        self.refused: str | None = None
        """Envoy's error about the goal, of which no more is sent then."""
        self.settled = False
        """Envoy has taken all of the goal. Clusters of former ones may be there still: :attr:`unused`."""
        self._pruning = False

    @property
    def unused(self) -> bool:
        """Whether Envoy has clusters that the goal, which it has taken, does not need."""
        return self.settled and self._goal is not None and self._watches[CLUSTERS].sent != self._goal[CLUSTERS]

    def prune(self) -> list[DiscoveryAnswer]:
        """Take away the clusters that the goal does not need; nothing while Envoy has not taken it."""
        self._pruning = self.unused
        return self._next()

    def aim(self, goal: Packed) -> list[DiscoveryAnswer]:
        """From now on *goal* is what Envoy shall have."""
        self._goal = goal
        self.refused, self.settled, self._pruning = None, False, False
        return self._next()

    def on_request(self, kind: str, names: frozenset[str], nonce: str, error: str | None) -> list[DiscoveryAnswer]:
        """A DiscoveryRequest; *error* is that of a refusal. What belongs to an older answer is skipped."""
        if kind not in ORDER or len(names) > MAX_NAMES:
            return []
        watch = self._watches.setdefault(kind, _Watch())
        if nonce and nonce != watch.nonce:
            return []
        if nonce:
            watch.pending = False
            if error is not None:
                watch.sent = None
                if self._goal is watch.goal:
                    self.refused, self.settled = error or "refused without a reason", False
            elif watch.sent is not None:
                watch.known.update(watch.sent)
        if kind not in _WHOLE:
            watch.names = names
        if watch.sent is not None and kind not in _WHOLE:
            watch.sent = {name: one for name, one in watch.sent.items() if name in watch.names}
        return self._next()

    def _next(self) -> list[DiscoveryAnswer]:
        """At most one answer: the next kind waits until Envoy acknowledged or refused this one."""
        if self._goal is None or self.refused is not None:
            return []
        for kind in ORDER:
            step = self._step(kind, self._goal[kind])
            if step == [] and kind == CLUSTERS:
                # Envoy acknowledges clusters only when the new ones have their endpoints, or after 15 s
                # (source/common/upstream/cluster_manager_impl.cc: updateClusterCounts).
                return self._step(ENDPOINTS, self._goal[ENDPOINTS]) or []
            if step is not None:
                return step
        clusters = self._watches[CLUSTERS]
        if self._pruning and clusters.sent != self._goal[CLUSTERS]:
            clusters.known = {}
            return [self._answer(CLUSTERS, clusters, self._goal[CLUSTERS])]
        self.settled = True
        return []

    def _step(self, kind: str, goal: Resources) -> list[DiscoveryAnswer] | None:
        """What is to be sent of that kind, nothing (an answer is awaited), or None: Envoy has it."""
        watch = self._watches.get(kind)
        if watch is None:
            # What Envoy names it has to ask for first; without need it does not ask at all.
            return None if kind not in _WHOLE and not goal else []
        if watch.pending:
            return []
        if kind == CLUSTERS:
            wanted = {**watch.known, **goal}
        elif kind == LISTENERS:
            wanted = dict(goal)
        else:
            wanted = {name: goal[name] for name in watch.names if name in goal}
            if watch.sent is not None and wanted.items() <= watch.sent.items():
                wanted = watch.sent
            elif not wanted:
                wanted = watch.sent or {}
        if wanted != watch.sent and (wanted or kind in _WHOLE):
            return [self._answer(kind, watch, wanted)]
        # It asks for the rest in a moment, because of what it has just taken.
        return None if kind in _WHOLE or goal.keys() <= watch.names else []

    def _answer(self, kind: str, watch: _Watch, resources: Resources) -> DiscoveryAnswer:
        self._nonce += 1
        if kind in _WHOLE:
            before = watch.sent or {}
            self._expect_requests(kind, {name for name, one in resources.items() if before.get(name) != one})
        watch.nonce, watch.pending, watch.goal, watch.sent = str(self._nonce), True, self._goal, dict(resources)
        sent = tuple(resources[name] for name in sorted(resources))
        digest = hashlib.sha256(b"".join(each.SerializeToString(deterministic=True) for each in sent))
        return DiscoveryAnswer(kind, digest.hexdigest()[:16], watch.nonce, sent)

    def _expect_requests(self, kind: str, changed: set[str]) -> None:
        """A new cluster waits for endpoints, a new listener for routes, though Envoy may seem to have them already."""
        watch = self._watches.get(ENDPOINTS if kind == CLUSTERS else ROUTES)
        if watch is not None and watch.sent is not None and changed:
            keep = set(watch.sent) - changed if kind == CLUSTERS else set()
            watch.sent = {name: one for name, one in watch.sent.items() if name in keep}
