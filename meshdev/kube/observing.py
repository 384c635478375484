"""Observe Leases for long enough to know which of them are renewed (:mod:`meshdev.intercept.liveness`)."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from meshdev.intercept.lease import Record
from meshdev.intercept.liveness import Life, Sightings
from meshdev.kube.client import KubeApi

#: How often Leases are listed again. Not a watch: users who may list need not be allowed to watch (``list -A``), and
#: of a watch that a middlebox has cut it cannot be known whether it is idle or dead.
_LOOK_SECONDS: Final = 1.0
#: Two durations of the longest Lease: by then everything is decided, whatever changed while it was looked at.
_LONGEST_SECONDS: Final = 240.0

Clock = Callable[[], float]
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Leases:
    """The intercepts, the oldest first, and the errors of Leases that cannot be read."""

    records: tuple[Record, ...]
    troubles: tuple[str, ...] = ()


def _silently(_: str) -> None:
    pass


class Observer:
    """What one process knows about the Leases of one workload or namespace.

    *clock* counts seconds; not while the machine sleeps, as nothing is seen then. *waiting* is called with what is
    waited for.
    """

    def __init__(
        self,
        clock: Clock = time.monotonic,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        waiting: Progress = _silently,
    ) -> None:
        self._clock = clock
        self._pause = pause
        self._waiting = waiting
        self._sightings = Sightings()

    def saw(self, api: KubeApi, there: Leases) -> None:
        """All of the selection, read this moment."""
        self._sightings.saw(there.records, self._clock(), api.server_time())

    def blind(self) -> None:
        """The API server was unreachable, perhaps for holders too: silence until now proves nothing."""
        self._sightings.blind()

    def life(self, record: Record) -> Life:
        """Whether it is renewed, as far as that is known."""
        return self._sightings.life(record, self._clock())

    def silent(self, record: Record) -> float | None:
        """For how long, in seconds, one that seems dead was not written; None for one that is renewed."""
        return None if self.life(record) == "renewed" else self._sightings.silent(record, self._clock())

    def stale(self, record: Record) -> bool:
        """Whether any session may delete it."""
        return self._sightings.stale(record, self._clock())

    def maybe_stale(self, record: Record) -> bool:
        """Whether a longer look might find that any session may delete it."""
        return self._sightings.maybe_stale(record, self._clock())

    async def look(
        self, api: KubeApi, read: Callable[[], Awaitable[Leases]], open_question: Callable[[Record], bool]
    ) -> Leases:
        """What *read* gives, once *open_question* holds of none of it: at once mostly, else within half a minute."""
        end = self._clock() + _LONGEST_SECONDS
        while True:
            there = await read()
            self.saw(api, there)
            asked = [each for each in there.records if open_question(each)]
            if not asked or self._clock() > end:
                return there
            self._waiting(f"whether {asked[0].holder} still renews the Lease of {asked[0].spec.workload}")
            await self._pause(_LOOK_SECONDS)
