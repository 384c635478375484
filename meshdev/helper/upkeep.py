"""Keep our changes to this machine in place: notice what other programs undo, restore it, report what cannot be.

The decisions, which are pure, are in :mod:`meshdev.host.upkeep`.
"""

import errno
from collections.abc import Callable, Iterable
from functools import partial
from ipaddress import IPv4Network
from typing import Final, Literal

from meshdev.errors import MeshdevError, RouteError
from meshdev.helper.device import Device
from meshdev.helper.routes import add_routes, own_routes
from meshdev.host.upkeep import Damage, DeviceState, Kind, Repairs, damages
from meshdev.netlink import links
from meshdev.netlink.changes import Changes
from meshdev.netlink.sock import Netlink
from meshdev.wire.helper.limits import MAX_PROBLEMS

#: Notifications come in bursts: those within this time are handled together. In seconds, as all here.
SETTLE_SECONDS: Final = 0.02
#: The least time between two checks: reading thousands of routes takes a while.
SPACING_SECONDS: Final = 0.25
#: Check without notifications, too: some may have been lost, and a repair that failed may succeed now.
LOOK_SECONDS: Final = 5.0

_KINDS: Final[tuple[Kind, ...]] = ("link", "address", "routes", "filter", "names", "containers")
_NAMES: Final[dict[Kind, str]] = {"link": "state", "address": "address", "routes": "routes"}
_FAILED: Final = {
    "filter": "the packet filter cannot be restored",
    "names": "DNS queries do not reach meshdev",
    "containers": "containers of this machine do not reach the cluster",
}


class Upkeep:
    """The state of one connection. Not thread-safe. Times are those of one monotonic clock, in seconds."""

    def __init__(self, netlink: Netlink) -> None:
        """Subscribe to the kernel's notifications. Raises OSError."""
        self._netlink = netlink
        self._changes = Changes()
        self._repairs: dict[Kind, Repairs] = {kind: Repairs() for kind in _NAMES}
        self._problems: dict[Kind, str] = {}
        self._repaired: list[str] = []
        self._looked = 0.0
        self._due = 0.0

    def fileno(self) -> int:
        """Readable when there are notifications; then call :meth:`take_news`."""
        return self._changes.fileno()

    def take_news(self, device: Device | None, now: float) -> None:
        """Read the notifications; one about *device* brings the next check forward."""
        if self._changes.take(device.index if device else None):
            self._due = min(self._due, max(now + SETTLE_SECONDS, self._looked + SPACING_SECONDS))

    @property
    def news(self) -> int:
        """A counter: while it is the same, links, addresses and routes of this machine have not changed."""
        return self._changes.count

    @property
    def due(self) -> float:
        """When to call :meth:`look` next."""
        return self._due

    def look(self, device: Device, routes: Iterable[IPv4Network], now: float) -> None:
        """Compare the device with its desired state and restore what is missing. It must have an address."""
        self._looked, self._due = now, now + LOOK_SECONDS
        for kind in ("link", "address", "routes"):
            self._problems.pop(kind, None)
        try:
            found = damages(device.name, device.desired(frozenset(routes)), self._actual(device))
        except OSError as error:
            gone = error.errno == errno.ENODEV
            self._problems["link"] = f"{device.name} was removed" if gone else f"its state cannot be read: {error}"
            return
        for damage in found:
            self._put_back(damage, partial(self._repair, device, damage), now)

    def check(self, kind: Literal["filter", "names", "containers"], refresh: Callable[[], str | None]) -> None:
        """Restore packet filter, DNS or containers by *refresh*, which returns what it found; once a heartbeat."""
        self._problems.pop(kind, None)
        try:
            found = refresh()
        except (MeshdevError, OSError) as error:  # /run may be full: the next heartbeat tries again
            self._problems[kind] = f"{_FAILED[kind]}: {error}"
        else:
            if found:
                self._note(found)

    def report(self, now: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """What is wrong now, and what was restored since the last call."""
        repaired, self._repaired = tuple(self._repaired), []
        problems = dict(self._problems)
        for kind, repairs in self._repairs.items():
            if kind not in problems and repairs.restless(now):
                problems[kind] = f"the {_NAMES[kind]} of our device: another program keeps undoing the repairs"
        return tuple(problems[kind] for kind in _KINDS if kind in problems), repaired

    def close(self) -> None:
        """End the subscription."""
        self._changes.close()

    def _put_back(self, damage: Damage, repair: Callable[[], None], now: float) -> None:
        kind, text = damage.kind, damage.text
        repairs = self._repairs[kind]
        if (due := repairs.due(now)) > now:
            self._due = min(self._due, due)
            self._problems[kind] = f"{text}, once more: another program keeps undoing the repairs"
            return
        repairs.made(now)
        try:
            repair()
        except (OSError, MeshdevError) as error:
            self._problems[kind] = f"{text}, and cannot be restored: {error}"
        else:
            self._note(text)

    def _note(self, text: str) -> None:
        if len(self._repaired) < MAX_PROBLEMS:
            self._repaired.append(text)

    def _repair(self, device: Device, damage: Damage) -> None:
        match damage.kind:
            case "link":
                device.put_back_link()
            case "address":
                device.put_back_address()
            case _ if device.address is not None:
                added = add_routes(self._netlink, device.index, device.address, damage.routes)
                if added.refused:
                    raise RouteError(f"{added.refused[0].route}: {added.refused[0].reason}")

    def _actual(self, device: Device) -> DeviceState:
        """The kernel's state of it. Raises OSError, ENODEV where the device is gone."""
        found = map(links.parse_link, self._netlink.dump(links.link_get(device.index)))
        link = next(filter(None, found), None)
        if link is None:
            raise OSError(errno.ENODEV, "no such device")
        addresses = filter(None, map(links.parse_address, self._netlink.dump(links.addresses_dump())))
        ours = frozenset(each.interface.ip for each in addresses if each.index == device.index)
        return DeviceState(link.up, link.mtu, ours, frozenset(own_routes(self._netlink, device.index)))
