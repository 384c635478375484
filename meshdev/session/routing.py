"""Which addresses go into the tunnel: what is desired, what the plan allows, what the helper made of it."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from meshdev.config import gateway_of
from meshdev.errors import UsageError
from meshdev.host.plan import DesiredRoutes, LaptopNetwork, LocalRoute, came_between, may_route, plan
from meshdev.host.trust import Judge, Refusals, Trust
from meshdev.kube.ranges import ClusterRanges
from meshdev.session.helper_client import HelperClient
from meshdev.text import first_few
from meshdev.wire.control import Welcome
from meshdev.wire.dns import Named
from meshdev.wire.helper.answers import RefusedRoute
from meshdev.wire.values import IPAddress

log = logging.getLogger(__name__)

#: Addresses that cluster DNS returned and no range covers; beyond that the least recently queried one is dropped.
MAX_NAMED: Final = 2048
#: Addresses of API servers; a name behind a load balancer may show ever new ones.
MAX_OUTSIDE: Final = 64
#: Routes shown to people before "and so many more".
_SHOWN: Final = 4


#: Between two looks at the rules of other programs, in seconds: reading 10,000 that have changed takes the helper
#: 0.3 s.
TRANSLATIONS_SECONDS: Final = 15.0


class Routing:
    """The routes of one connection. Nothing is applied before the first :meth:`set_address`.

    *look* reads what the laptop's network is without us. Every method raises RouteError where the helper does.
    """

    def __init__(
        self, helper: HelperClient, also: Iterable[str], never: Iterable[str], look: Callable[[], LaptopNetwork]
    ) -> None:
        self._helper = helper
        self._look = look
        self._desired = DesiredRoutes(also=_networks("--also", also), never=_networks("--never", never))
        self._seen: frozenset[IPv4Address] = frozenset()
        self._trust = Trust()
        self._judge = Judge(LaptopNetwork(), self._trust)
        self._refusals = Refusals()
        self._gateway: IPv4Address | None = None
        self._relayed = False
        self._named: dict[IPv4Address, Named] = {}
        self._laptop = LaptopNetwork()
        self._at_first: frozenset[IPv4Network] | None = None
        self._between: tuple[LocalRoute, ...] = ()
        self.routes: tuple[IPv4Network, ...] = ()
        """What the kernel has."""
        self._planned: tuple[IPv4Network, ...] | None = None
        self._notes: tuple[str, ...] = ()
        self._refused: tuple[RefusedRoute, ...] = ()
        self._translations: tuple[str, ...] = ()
        self._asked = -TRANSLATIONS_SECONDS
        self._lock = asyncio.Lock()

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of them."""
        return (*self._notes, *self._translations, *self._refusals.notes(self.inside))

    @property
    def problems(self) -> tuple[str, ...]:
        """Why addresses of the cluster are not reached: other programs came between, or the kernel refuses routes."""
        return tuple(
            f"the route {own.network} ({own.device}), which came later, keeps addresses of the cluster outside"
            for own in self._between[:_SHOWN]
        ) + tuple(f"the kernel refuses the route {no.route}: {no.reason}" for no in self._refused[:_SHOWN])

    def inside(self, address: IPv4Address) -> bool:
        """Whether packets to *address* take the tunnel."""
        return any(address in route for route in self.routes)

    async def keep_outside(self, addresses: Iterable[IPAddress]) -> None:
        """Never route these into the tunnel, whose own connections go there; earlier ones stay excluded, too."""
        outside = tuple(dict.fromkeys((*addresses, *self._desired.outside)))[:MAX_OUTSIDE]
        if set(outside) != set(self._desired.outside):
            self._desired = replace(self._desired, outside=outside)
            await self._apply()

    async def set_address(self, welcome: Welcome) -> None:
        """The device has the address of *welcome*: apply everything, from that address on."""
        self._trust = replace(self._trust, manager=frozenset({welcome.pod_address, *welcome.nameservers}))
        self._gateway = gateway_of(welcome.address)
        self._planned = None
        await self._apply()

    async def set_ranges(self, found: ClusterRanges) -> None:
        """The ranges of the cluster, as far as the user may see them."""
        ranges = found.services | found.pods
        self._trust = replace(self._trust, ranges=ranges, nodes=found.nodes)
        self._desired = replace(self._desired, ranges=tuple(sorted(ranges)))
        await self._apply()

    async def set_objects(self, hosts: frozenset[IPv4Address]) -> None:
        """Addresses of Services and endpoints that the user may see."""
        self._seen = hosts
        await self._apply()

    async def use_relays(self) -> None:
        """From now on relays are used: what they bring comes from the manager's own address in the session's pool."""
        if not self._relayed:
            self._relayed = True
            await self._apply()

    async def route_answers(self, answers: frozenset[Named]) -> None:
        """Route what cluster DNS answered where that may be, before the answer is handed out."""
        new = False
        for named in answers:
            if named.address in self._named:
                self._named[named.address] = self._named.pop(named.address)
            elif not self.inside(named.address):
                reason = self._refusal(named)
                if reason is None:
                    self._named[named.address] = named
                    new = True
                else:
                    self._refuse(named, reason)
        while len(self._named) > MAX_NAMED:
            del self._named[next(iter(self._named))]
        if new:
            await self._apply()

    async def refresh(self) -> None:
        """Look at the laptop's own network again, and follow it where it changed; try again what was refused."""
        if self._refused or self._look() != self._laptop:
            await self._apply()
        if self.routes and time.monotonic() - self._asked >= TRANSLATIONS_SECONDS:
            await self.find_translations()

    async def find_translations(self) -> None:
        """Ask whether another program of this machine gives the cluster's packets another destination."""
        self._asked = time.monotonic()
        found = await self._helper.find_translations()
        _log_new(self._translations, found)
        self._translations = found

    def describe(self) -> str:
        """For people."""
        return first_few(self.routes, _SHOWN)

    async def _apply(self) -> None:
        if not self._trust.manager:
            return
        async with self._lock:
            self._laptop = self._look()
            if self._at_first is None:
                self._at_first = frozenset(own.network for own in self._laptop.networks)
            gateway = (self._gateway,) if self._relayed and self._gateway else ()
            self._judge = Judge(self._laptop, self._trust)
            named = [each.address for each in self._named.values() if self._refusal(each) is None]
            seen = {each: self._judge.refusal(each, "object") for each in sorted(self._seen)}
            objects = [address for address, reason in seen.items() if reason is None]
            # The plan keeps the first ones where there are too many: a name never takes the place of an object.
            hosts = dict.fromkeys((*gateway, *sorted(self._trust.manager), *objects, *reversed(named)))
            made = plan(self._laptop, replace(self._desired, hosts=tuple(hosts)))
            if self._refused or made.routes != self._planned:
                before = self.routes
                self._refused = await self._set_routes(made.routes)
                if self.routes != before:
                    log.info("%d routes: %s", len(self.routes), self.describe())
            notes = (*made.notes, *self._object_notes(seen))
            _log_new(self._notes, notes)
            self._notes = notes
            wanted = replace(self._desired, hosts=(*self._trust.manager, *self._seen, *self._named))
            self._between = came_between(self._laptop, wanted, self.routes, self._at_first)

    def _refusal(self, named: Named) -> str | None:
        """Why that answer is not routed, briefly."""
        if not may_route(named.address, self._laptop, self._desired):
            return "this machine or the connection to the cluster needs it outside of the tunnel"
        return self._judge.refusal(named.address, "service" if named.service else "name")

    def _refuse(self, named: Named, reason: str) -> None:
        sentence = f"{named.address} is not routed, though it is what {named.name} resolves to: {reason}."
        if may_route(named.address, self._laptop, self._desired):
            sentence += f" --also {named.address}/32 routes it."
        if self._refusals.add(named.address, sentence):
            log.warning("%s", sentence)

    def _object_notes(self, seen: Mapping[IPv4Address, str | None]) -> list[str]:
        """On Services and endpoints that are not routed; the plan has notes on those that must stay outside."""
        by_reason: dict[str, list[IPv4Address]] = {}
        for address, reason in seen.items():
            if reason and not self.inside(address) and may_route(address, self._laptop, self._desired):
                by_reason.setdefault(reason, []).append(address)
        return [
            f"{first_few(addresses, _SHOWN)}, of Services or endpoints in the namespace, "
            f"{'is' if len(addresses) == 1 else 'are'} not routed: {reason}. --also {addresses[0]}/32 routes it."
            for reason, addresses in by_reason.items()
        ]

    async def _set_routes(self, planned: tuple[IPv4Network, ...]) -> tuple[RefusedRoute, ...]:
        """Have the helper set *planned*. Mostly it is one address more: only that is sent then."""
        before = set(self._planned or ())
        if not self._refused and before and before < set(planned):
            answer = await self._helper.add_routes(route for route in planned if route not in before)
            self.routes = tuple(sorted({*self.routes, *answer.routes}))
        else:
            answer = await self._helper.set_routes(planned)
            self.routes = answer.routes
        self._planned = planned
        return answer.refused


def _log_new(known: tuple[str, ...], texts: tuple[str, ...]) -> None:
    for text in texts:
        if text not in known:
            log.warning("%s", text)


def _networks(flag: str, texts: Iterable[str]) -> tuple[IPv4Network, ...]:
    try:
        return tuple(IPv4Network(text, strict=False) for text in texts)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}", hint=f"write a range of IPv4 addresses: {flag} 10.20.0.0/16") from error
