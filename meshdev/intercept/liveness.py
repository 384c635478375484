"""Which Leases are renewed, decided by watching them change: clocks of different machines are never compared.

A Lease's ``renewTime`` is its holder's clock, and a laptop's clock may be minutes off. What counts is that the object
changed (its resourceVersion) while it was observed, as client-go's leader election does it (``observedTime`` in
tools/leaderelection). Before the first observation only the API server's own clock helps: when it last wrote the
Lease (``managedFields``), against when it answered (``Date``). That is one clock, so it may shorten the look, and a
Lease that it wrote a moment ago counts as renewed; but nothing is found expired without a look of
:data:`CONFIRM_SECONDS`, longer than any holder pauses between two renewals.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from meshdev.intercept.lease import RENEW_SECONDS, STALE_SECONDS, Record

Life = Literal["renewed", "expired", "unknown"]

#: The shortest look that finds a Lease expired, in seconds: one renewal is due in it, however the last one was timed.
CONFIRM_SECONDS: Final = RENEW_SECONDS + 2.0
#: Two API servers of one cluster may differ by this much; a Lease written later than that "in future" proves nothing.
_SERVERS_SKEW: Final = 5.0


@dataclass(frozen=True)
class _Sighting:
    """One Lease: since when, by the looker's clock, it has this version."""

    version: str
    since: float
    changed: bool  # seen to change, so *since* is the time of a renewal
    age: float | None  # by the server's clock, when it was first seen


class Sightings:
    """What one process saw of a selection of Leases. *now* is always that process's own clock, in seconds."""

    def __init__(self) -> None:
        self._seen: dict[str, _Sighting] = {}

    def saw(self, records: Iterable[Record], now: float, server_now: float | None) -> None:
        """All of the selection, read *now*, when the API server's clock showed *server_now* (epoch, if known)."""
        self._seen = {each.uid: self._sighting(each, now, server_now) for each in records}

    def blind(self) -> None:
        """Nothing could be seen for a while: holders may not have reached the API server either."""
        self._seen.clear()

    def silent(self, record: Record, now: float) -> float:
        """Seconds since it was last written, as far as that is known; never negative."""
        seen = self._seen.get(record.uid)
        if seen is None or seen.version != record.version:
            return 0.0
        return max(0.0, now - seen.since) + (seen.age or 0.0)

    def life(self, record: Record, now: float) -> Life:
        """Whether its session renews it. "unknown": only a longer observation can show."""
        seen = self._seen.get(record.uid)
        if seen is None:
            return "unknown"
        if seen.version != record.version:
            return "renewed"
        looked = max(0.0, now - seen.since)
        credit = min(seen.age or 0.0, record.duration - CONFIRM_SECONDS)
        if looked + credit > record.duration:
            return "expired"
        fresh = seen.age is not None and seen.age + looked <= record.duration
        return "renewed" if seen.changed or fresh else "unknown"

    def stale(self, record: Record, now: float) -> bool:
        """Expired for so long that any session may delete it."""
        limit = record.duration + STALE_SECONDS
        return self.life(record, now) == "expired" and self.silent(record, now) > limit

    def maybe_stale(self, record: Record, now: float) -> bool:
        """Whether a longer look might find it stale."""
        seen = self._seen.get(record.uid)
        aged = seen is not None and seen.age is not None
        return self.life(record, now) == "unknown" and (
            not aged or self.silent(record, now) > record.duration + STALE_SECONDS - CONFIRM_SECONDS
        )

    def _sighting(self, record: Record, now: float, server_now: float | None) -> _Sighting:
        former = self._seen.get(record.uid)
        if former is None:
            return _Sighting(record.version, now, changed=False, age=_age(record, server_now))
        if former.version == record.version:
            return former
        return _Sighting(record.version, now, changed=True, age=None)


def _age(record: Record, server_now: float | None) -> float | None:
    if record.written is None or server_now is None or record.written > server_now + _SERVERS_SKEW:
        return None
    return max(0.0, server_now - record.written)
