"""Bytes and durations out of what agents report, as :mod:`meshdev.manager.control.totals` counts requests. Pure.

They take more memory than counts, so of the last reports only those of claims are kept, and of so many at most: what is
more is not counted.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Final, Generic, TypeVar

from meshdev.manager.control.pods import HeldClaim
from meshdev.sidecar.envoy.claims import LiveClaim, pod_port
from meshdev.wire.agent import PodPort, State
from meshdev.wire.counts import Traffic

#: Of all agents together, by intercept or port; each takes 1 KB.
MAX_KEPT: Final = 16_384

L = TypeVar("L")


def keys_of(claim: LiveClaim) -> Iterator[str | PodPort]:
    """Under which agents count what is the claim's."""
    yield claim.spec.id
    if claim.spec.mode.takes_bytes:  # all that comes to the ports is its holder's
        yield from map(pod_port, claim.spec.ports)


class ReportedTraffic(Generic[L]):
    """What agents have reported last. *label* is by what it is counted."""

    def __init__(self, label: Callable[[LiveClaim], L], most: int = MAX_KEPT) -> None:
        self._label = label
        self._most = most
        self._kept: dict[Hashable, dict[str | PodPort, Traffic]] = {}
        self._count = 0

    def report(
        self, agent: Hashable, state: State, held: Sequence[HeldClaim], *, anew: bool
    ) -> list[tuple[L, Traffic]]:
        """What that agent has counted since its report before, by label; *anew*: it has begun to count anew.

        Nothing of the first one, as of requests. An agent that has begun when its claims were there reports none.
        """
        known = self._kept.get(agent)
        before = {} if known is None or anew else known
        reported: dict[str | PodPort, Traffic] = {**dict(state.traffic), **dict(state.flow_traffic)}
        now: dict[str | PodPort, Traffic] = {}
        found: list[tuple[L, Traffic]] = []
        room = self._most - self._count + len(known or ())
        for claim in (each.claim for each in held):
            for key in keys_of(claim):
                if (traffic := reported.pop(key, None)) is None or len(now) >= room:
                    continue
                now[key] = traffic
                more = traffic.since(before.get(key, _NOTHING))
                if known is not None and more:
                    found.append((self._label(claim), more))
        self._count += len(now) - len(known or ())
        self._kept[agent] = now
        return found

    def forget(self, agent: Hashable) -> None:
        """It is gone."""
        self._count -= len(self._kept.pop(agent, ()))


_NOTHING: Final = Traffic()
