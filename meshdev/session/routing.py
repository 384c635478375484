"""Which addresses go into the tunnel: what is wished for, what the plan allows, what the helper made of it."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from meshdev.config import gateway_of
from meshdev.errors import UsageError
from meshdev.host.plan import Laptop, Wish, may_route, plan
from meshdev.session.helper_client import HelperClient
from meshdev.wire.control import Welcome
from meshdev.wire.helper.answers import Refused
from meshdev.wire.values import IPAddress

log = logging.getLogger(__name__)

#: Addresses that cluster DNS returned and no range covers; beyond that the oldest goes.
MAX_NAMED: Final = 2048
#: Addresses of API servers; a name behind a load balancer may show ever new ones.
MAX_OUTSIDE: Final = 64
#: Routes shown to people before "and so many more".
_SHOWN: Final = 4


class Routing:
    """The routes of one connection. Nothing is applied before :meth:`moved` told of the first address.

    *look* reads what the laptop's network is without us. Every method raises RouteError where the helper does.
    """

    def __init__(
        self, helper: HelperClient, also: Iterable[str], never: Iterable[str], look: Callable[[], Laptop]
    ) -> None:
        self._helper = helper
        self._look = look
        self._wish = Wish(also=_networks("--also", also), never=_networks("--never", never))
        self._seen: frozenset[IPv4Address] = frozenset()
        self._manager: frozenset[IPv4Address] = frozenset()
        self._gateway: IPv4Address | None = None
        self._relayed = False
        self._named: dict[IPv4Address, None] = {}
        self._laptop = Laptop()
        self._routes: tuple[IPv4Network, ...] = ()
        self._planned: tuple[IPv4Network, ...] | None = None
        self._notes: tuple[str, ...] = ()
        self._lock = asyncio.Lock()

    @property
    def routes(self) -> tuple[IPv4Network, ...]:
        """What the kernel has."""
        return self._routes

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of them."""
        return self._notes

    def inside(self, address: IPv4Address) -> bool:
        """Whether packets to *address* take the tunnel."""
        return any(address in route for route in self._routes)

    async def keep_outside(self, addresses: Iterable[IPAddress]) -> None:
        """These must never take the tunnel, as it goes there itself; earlier ones stay outside too."""
        outside = tuple(dict.fromkeys((*addresses, *self._wish.outside)))[:MAX_OUTSIDE]
        if set(outside) != set(self._wish.outside):
            self._wish = replace(self._wish, outside=outside)
            await self._apply()

    async def moved(self, welcome: Welcome) -> None:
        """The device has the address of *welcome*: apply everything, from that address on."""
        self._manager = frozenset({welcome.pod_address, *welcome.nameservers})
        self._gateway = gateway_of(welcome.address)
        self._planned = None
        await self._apply()

    async def want(
        self, *, ranges: Iterable[IPv4Network] | None = None, hosts: frozenset[IPv4Address] | None = None
    ) -> None:
        """What the cluster has, as far as the user may see."""
        if ranges is not None:
            self._wish = replace(self._wish, ranges=tuple(sorted(ranges)))
        if hosts is not None:
            self._seen = hosts
        await self._apply()

    async def relayed(self) -> None:
        """From now on relays are used: what they bring comes from the manager's own address in the session's pool."""
        if not self._relayed:
            self._relayed = True
            await self._apply()

    async def name(self, addresses: frozenset[IPv4Address]) -> None:
        """Route what cluster DNS answered, before the answer is handed out."""
        new = [item for item in addresses if not self.inside(item) and may_route(item, self._laptop, self._wish)]
        if not new:
            return
        for address in new:
            self._named[address] = None
        while len(self._named) > MAX_NAMED:
            del self._named[next(iter(self._named))]
        await self._apply()

    async def refresh(self) -> None:
        """Look at the laptop's own network again, and follow it where it changed."""
        if self._look() != self._laptop:
            await self._apply()

    def describe(self) -> str:
        """For people."""
        shown = ", ".join(map(str, self._routes[:_SHOWN]))
        more = len(self._routes) - _SHOWN
        return f"{shown} and {more} more" if more > 0 else shown

    async def _apply(self) -> None:
        if not self._manager:
            return
        async with self._lock:
            self._laptop = self._look()
            gateway = (self._gateway,) if self._relayed and self._gateway else ()
            hosts = dict.fromkeys((*gateway, *sorted(self._manager), *self._named, *sorted(self._seen)))
            made = plan(self._laptop, replace(self._wish, hosts=tuple(hosts)))
            if made.routes != self._planned:
                refused = await self._tell(made.routes)
                notes = (f"the kernel refuses the route {no.route}: {no.reason}" for no in refused)
                self._notes = (*made.notes, *notes)
                log.info("%d routes: %s", len(self._routes), self.describe())

    async def _tell(self, planned: tuple[IPv4Network, ...]) -> tuple[Refused, ...]:
        """Have *planned* set. Mostly it is one address more: that is told alone."""
        before = set(self._planned or ())
        if before and before < set(planned):
            answer = await self._helper.add_routes(route for route in planned if route not in before)
            self._routes = tuple(sorted({*self._routes, *answer.routes}))
        else:
            answer = await self._helper.set_routes(planned)
            self._routes = answer.routes
        self._planned = planned
        return answer.refused


def _networks(flag: str, texts: Iterable[str]) -> tuple[IPv4Network, ...]:
    try:
        return tuple(IPv4Network(text, strict=False) for text in texts)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}", hint=f"write a range of IPv4 addresses: {flag} 10.20.0.0/16") from error
