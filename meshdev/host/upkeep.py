"""What of our device is missing, and how often it is worth putting back. Pure.

The kernel forgets nothing by itself, other programs make it: a network manager that flushes, another VPN's client, a
person. Repairs are bounded: where somebody takes a thing away again and again, fighting them would only load the
machine, so it is put back seldom and said.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Final, Literal

#: So many repairs of one kind within WINDOW_SECONDS are made at once; from then on one each PAUSE_SECONDS.
MOST_REPAIRS: Final = 20
WINDOW_SECONDS: Final = 60.0
PAUSE_SECONDS: Final = 5.0
#: So many within this time: what is put back does not stay long enough for anybody to use it.
RESTLESS_REPAIRS: Final = 4
RESTLESS_SECONDS: Final = 3.0

Kind = Literal["link", "address", "routes", "filter", "names", "containers"]

_NAMED: Final = 3  # so many routes in a sentence, the others as a number


@dataclass(frozen=True, slots=True)
class DeviceState:
    """Our device as the kernel has it, or as it shall be; *mtu* in bytes. ``routes`` are those of ours."""

    up: bool
    mtu: int
    addresses: frozenset[IPv4Address]
    routes: frozenset[IPv4Network]


@dataclass(frozen=True, slots=True)
class Damage:
    """One thing that is not as it shall be, for people; ``routes`` are those that are missing."""

    kind: Kind
    text: str
    routes: tuple[IPv4Network, ...] = ()


def damages(device: str, desired: DeviceState, actual: DeviceState) -> tuple[Damage, ...]:
    """What to repair, in this order: a device that is down takes no routes, and routes need its address.

    What there is beyond the desired state (a second address) is left alone.
    """
    found: list[Damage] = []
    if not actual.up:
        found.append(Damage("link", f"{device} was set down"))
    elif actual.mtu != desired.mtu:
        found.append(Damage("link", f"the MTU of {device} was changed from {desired.mtu} to {actual.mtu}"))
    if missing := sorted(desired.addresses - actual.addresses):
        found.append(Damage("address", f"the address {', '.join(map(str, missing))} was removed from {device}"))
    if routes := tuple(sorted(desired.routes - actual.routes)):
        found.append(Damage("routes", f"{_routes(routes)} of {device} {_was(routes)} deleted", routes))
    return tuple(found)


@dataclass(slots=True)
class Repairs:
    """How often one kind was repaired lately. Times are those of one monotonic clock, in seconds."""

    _times: deque[float] = field(default_factory=deque)

    def fighting(self, now: float) -> bool:
        """Whether somebody takes away again and again what is put back."""
        while self._times and now - self._times[0] > WINDOW_SECONDS:
            self._times.popleft()
        return len(self._times) >= MOST_REPAIRS

    def restless(self, now: float) -> bool:
        """Whether it was put back so often just now that it is not to be relied on."""
        return sum(now - time <= RESTLESS_SECONDS for time in self._times) >= RESTLESS_REPAIRS

    def due(self, now: float) -> float:
        """When the next repair may be made; *now* or earlier: at once."""
        return self._times[-1] + PAUSE_SECONDS if self.fighting(now) else now

    def made(self, now: float) -> None:
        """One was made. The latest MOST_REPAIRS count."""
        self._times.append(now)
        while len(self._times) > MOST_REPAIRS:
            self._times.popleft()


def _routes(routes: Sequence[IPv4Network]) -> str:
    shown = ", ".join(map(str, routes[:_NAMED]))
    more = f" and {len(routes) - _NAMED} more" if len(routes) > _NAMED else ""
    return f"the {'route' if len(routes) == 1 else 'routes'} {shown}{more}"


def _was(routes: Sequence[IPv4Network]) -> str:
    return "was" if len(routes) == 1 else "were"
