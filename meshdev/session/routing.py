"""Which addresses go into the tunnel: what is wished for, and what the helper made of it."""

import asyncio
import logging
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, collapse_addresses
from typing import Final

from meshdev.config import ADDRESS_POOLS
from meshdev.session.helper_client import HelperClient
from meshdev.wire.control import Welcome

log = logging.getLogger(__name__)

MAX_NAMED: Final = 4096


class Routing:
    """The routes of one connection. Nothing is applied before :meth:`moved` told of the first address."""

    def __init__(self, helper: HelperClient, also: Iterable[str], never: Iterable[str]) -> None:
        self._helper = helper
        self._also = tuple(map(IPv4Network, also))
        self._never = tuple(map(IPv4Network, never))
        self._ranges: frozenset[IPv4Network] = frozenset()
        self._hosts: frozenset[IPv4Address] = frozenset()
        self._named: dict[IPv4Address, None] = {}
        self._manager: frozenset[IPv4Address] = frozenset()
        self._excluded: frozenset[IPv4Address] = frozenset()
        self._applied: tuple[IPv4Network, ...] = ()
        self._up = False
        self._lock = asyncio.Lock()
        self.notes: list[str] = []

    def pools(self) -> tuple[IPv4Network, ...]:
        return ADDRESS_POOLS

    def exclude(self, addresses: Iterable[IPv4Address]) -> None:
        self._excluded |= frozenset(addresses)

    @property
    def routes(self) -> tuple[IPv4Network, ...]:
        return self._applied

    def inside(self, address: IPv4Address) -> bool:
        return any(address in route for route in self._applied)

    def describe(self) -> str:
        shown = ", ".join(map(str, self._applied[:4]))
        return shown + (f" and {len(self._applied) - 4} more" if len(self._applied) > 4 else "")

    async def moved(self, welcome: Welcome) -> None:
        self._manager = frozenset({welcome.pod_address, *welcome.nameservers})
        self._up = True
        await self._apply()

    async def want(self, ranges: frozenset[IPv4Network] | None = None, hosts: frozenset[IPv4Address] | None = None) -> None:
        if ranges is not None:
            self._ranges = ranges
        if hosts is not None:
            self._hosts = hosts
        await self._apply()

    async def name(self, addresses: frozenset[IPv4Address]) -> None:
        new = [address for address in addresses if not self.inside(address)]
        if new:
            self._named |= dict.fromkeys(new)
            await self._apply()

    async def _apply(self) -> None:
        if not self._up:
            return
        async with self._lock:
            hosts = {*self._hosts, *self._named, *self._manager} - self._excluded
            nets = [*self._ranges, *self._also, *(IPv4Network(host) for host in hosts)]
            wanted = collapse_addresses(nets)
            result: list[IPv4Network] = []
            for net in wanted:
                parts = [net]
                for bad in [*map(IPv4Network, self._excluded), *self._never]:
                    parts = [piece for part in parts for piece in _without(part, bad)]
                result += parts
            routes = tuple(sorted(result))
            if routes != self._applied:
                answer = await self._helper.set_routes(routes)
                self._applied = answer.routes


def _without(net: IPv4Network, bad: IPv4Network) -> list[IPv4Network]:
    if not net.overlaps(bad):
        return [net]
    return [] if net.subnet_of(bad) else list(net.address_exclude(bad))
