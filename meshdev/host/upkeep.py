"""What is missing of our device, and how often to restore it. Pure.

The kernel removes nothing by itself; other programs do: a network manager that flushes, another VPN's client, a
person. Repairs are limited: where something is removed again and again, restoring it each time would only load the
machine, so it is restored seldom and reported.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Final, Literal

from meshdev.text import first_few

#: This many repairs of one kind within WINDOW_SECONDS are made at once; after that one every PAUSE_SECONDS.
MOST_REPAIRS: Final = 20
WINDOW_SECONDS: Final = 60.0
PAUSE_SECONDS: Final = 5.0
#: This many within this time: what is restored does not stay long enough to be used.
RESTLESS_REPAIRS: Final = 4
RESTLESS_SECONDS: Final = 3.0

Kind = Literal["link", "address", "routes", "filter", "names", "containers"]


@dataclass(frozen=True, slots=True)
class DeviceState:
    """The actual or desired state of our device; *mtu* in bytes. ``routes`` are ours only."""

    up: bool
    mtu: int
    addresses: frozenset[IPv4Address]
    routes: frozenset[IPv4Network]


@dataclass(frozen=True, slots=True)
class Damage:
    """One difference from the desired state; ``text`` is for people, ``routes`` are the missing ones."""

    kind: Kind
    text: str
    routes: tuple[IPv4Network, ...] = ()


def damages(device: str, desired: DeviceState, actual: DeviceState) -> tuple[Damage, ...]:
    """What to repair, in order: a device that is down accepts no routes, and routes need its address.

    What exists beyond the desired state (a second address) is left alone.
    """
    found: list[Damage] = []
    if not actual.up:
        found.append(Damage("link", f"{device} was set down"))
    elif actual.mtu != desired.mtu:
        found.append(Damage("link", f"the MTU of {device} was changed from {desired.mtu} to {actual.mtu}"))
    if missing := sorted(desired.addresses - actual.addresses):
        found.append(Damage("address", f"the address {', '.join(map(str, missing))} was removed from {device}"))
    if routes := tuple(sorted(desired.routes - actual.routes)):
        found.append(Damage("routes", _deleted(routes, device), routes))
    return tuple(found)


@dataclass(slots=True)
class Repairs:
    """The recent repairs of one kind. Times are those of one monotonic clock, in seconds."""

    _times: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_REPAIRS))

    def fighting(self, now: float) -> bool:
        """Whether another program keeps undoing the repairs."""
        while self._times and now - self._times[0] > WINDOW_SECONDS:
            self._times.popleft()
        return len(self._times) >= MOST_REPAIRS

    def restless(self, now: float) -> bool:
        """Whether it was restored so often just now that it cannot be relied on."""
        return sum(now - time <= RESTLESS_SECONDS for time in self._times) >= RESTLESS_REPAIRS

    def due(self, now: float) -> float:
        """When the next repair may be made; at once if that is *now* or earlier."""
        return self._times[-1] + PAUSE_SECONDS if self.fighting(now) else now

    def made(self, now: float) -> None:
        """Record a repair."""
        self._times.append(now)


def _deleted(routes: Sequence[IPv4Network], device: str) -> str:
    nouns, verb = ("route", "was") if len(routes) == 1 else ("routes", "were")
    return f"the {nouns} {first_few(routes)} of {device} {verb} deleted"
