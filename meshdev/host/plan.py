"""Which routes go into the tunnel, given the cluster's ranges, the laptop's network and the user's options.

The rules, by precedence:

1. Never: API servers, proxies, default gateways, resolvers, the laptop's own addresses, loopback, link-local,
   multicast, ``--never``. They are excluded from every route, which splits it.
2. ``--also``: wins over the laptop's own networks by more specific routes (a network of equal size is split in halves).
3. A network of the laptop stays as it is: it is excluded from every range that was found, and a note says so.
4. A single address (a Service, an endpoint, a DNS answer) that :mod:`meshdev.host.trust` accepts is routed as /32,
   also inside a network that the laptop reaches by a gateway or another tunnel.
"""

from collections.abc import Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from meshdev.config import ADDRESS_POOLS
from meshdev.text import first_few
from meshdev.wire.helper.limits import MAX_ROUTES
from meshdev.wire.values import BROADEST_PREFIX, NEVER_ROUTED, IPAddress


@dataclass(frozen=True, slots=True)
class LocalRoute:
    """A route of the laptop that is not ours, with the name of its device.

    ``on_link``: its addresses are the laptop's neighbours, found by ARP; not behind a gateway or a tunnel.
    """

    network: IPv4Network
    device: str
    on_link: bool = True


@dataclass(frozen=True, slots=True)
class LaptopNetwork:
    """The laptop's network without us. Gateways are those of default routes.

    ``sessions`` are the addresses of meshdev's devices: other users' connections, and this one's once it has one.
    """

    routes: tuple[LocalRoute, ...] = ()
    addresses: tuple[IPv4Address, ...] = ()
    gateways: tuple[IPv4Address, ...] = ()
    resolvers: tuple[IPAddress, ...] = ()
    sessions: tuple[IPv4Address, ...] = ()

    @property
    def networks(self) -> tuple[LocalRoute, ...]:
        """Routes to networks; not the halves, quarters, … in which VPNs write the default route."""
        return tuple(route for route in self.routes if route.network.prefixlen >= BROADEST_PREFIX)


@dataclass(frozen=True, slots=True)
class DesiredRoutes:
    """What should be reachable: ``ranges`` and ``hosts`` as found, ``also`` and ``never`` as the user asked.

    ``outside`` must stay outside the tunnel because the tunnel itself goes there: API servers, proxies.
    """

    ranges: tuple[IPv4Network, ...] = ()
    hosts: tuple[IPv4Address, ...] = ()
    also: tuple[IPv4Network, ...] = ()
    never: tuple[IPv4Network, ...] = ()
    outside: tuple[IPAddress, ...] = ()


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """The routes of our device, and sentences for the user."""

    routes: tuple[IPv4Network, ...]
    notes: tuple[str, ...] = ()


def usable_pools(laptop: LaptopNetwork, pools: Iterable[IPv4Network] = ADDRESS_POOLS) -> tuple[IPv4Network, ...]:
    """The *pools* for a session's address that overlap nothing of the laptop's, in their order; maybe none.

    Proxies with fake addresses (Clash, sing-box, Surge) hold 198.18.0.0/16 or parts of it. Those with the address of
    another user's session come last: it may be another manager's, and ours could assign the same address again.
    """
    taken = [route.network for route in laptop.networks]
    single = (*laptop.addresses, *laptop.gateways, *laptop.resolvers)
    taken += [IPv4Network(address) for address in single if isinstance(address, IPv4Address)]
    usable = [pool for pool in pools if not any(map(pool.overlaps, taken))]
    return tuple(sorted(usable, key=lambda pool: any(address in pool for address in laptop.sessions)))


def plan(laptop: LaptopNetwork, desired: DesiredRoutes) -> RoutePlan:
    """Apply the rules of this module."""
    never = _never(laptop, desired)
    local = {route.network: route.device for route in laptop.networks}
    notes: list[str] = []
    routes = _also(desired.also, local, never, notes)
    for network in desired.ranges:
        routes |= set(_found(network, local, never, notes))
    notes += _outside_notes((*desired.also, *desired.ranges), desired.outside)
    # The kernel refuses a second route to the same network; ours are more specific there, or not wanted.
    routes -= local.keys()
    hosts = _hosts(desired.hosts, routes, local, never)
    room = max(0, MAX_ROUTES - len(routes))
    if len(hosts) > room:
        notes.append(f"{len(hosts) - room} single addresses are not routed: {MAX_ROUTES} routes are the limit.")
    return RoutePlan(tuple(sorted([*routes, *hosts[:room]])[:MAX_ROUTES]), tuple(dict.fromkeys(notes)))


def came_between(
    laptop: LaptopNetwork, desired: DesiredRoutes, routes: Iterable[IPv4Network], before: Collection[IPv4Network]
) -> tuple[LocalRoute, ...]:
    """New networks of the laptop (not there *before*) that keep desired addresses out of *routes*.

    What stays local from the beginning is a note of the plan; what is lost later stops working while it is in use.
    """
    new = [own for own in laptop.networks if own.network not in before]
    if not new:  # the common case, checked at each new address
        return ()
    never, ours = _never(laptop, desired), frozenset(routes)
    wide = [network for network in (*ours, *never) if network.prefixlen < network.max_prefixlen]

    def lost(host: IPv4Address) -> bool:
        return not any(host in network for network in never) and not _covered(host, ours, {})

    return tuple(
        own
        for own in new
        if subtract(_common(desired.ranges, own.network), wide)
        or any(host in own.network and lost(host) for host in desired.hosts)
    )


def may_route(address: IPv4Address, laptop: LaptopNetwork, desired: DesiredRoutes) -> bool:
    """Whether rule 1 permits a route to that address."""
    return not any(address in network for network in _never(laptop, desired))


def route_steps(
    desired: Iterable[IPv4Network], actual: Iterable[IPv4Network]
) -> tuple[list[IPv4Network], list[IPv4Network]]:
    """What to add and then to delete, so that no address is without a route in between."""
    wanted, found = set(desired), set(actual)
    return sorted(wanted - found), sorted(found - wanted)


def subtract(networks: Iterable[IPv4Network], holes: Sequence[IPv4Network]) -> list[IPv4Network]:
    """*networks* without *holes*, in as few pieces as there can be."""
    left = list(networks)
    for hole in holes:
        pieces: list[IPv4Network] = []
        for network in left:
            if not network.overlaps(hole):
                pieces.append(network)
            elif not network.subnet_of(hole):
                pieces += network.address_exclude(hole)
        left = pieces
    return left


def _common(networks: Iterable[IPv4Network], other: IPv4Network) -> list[IPv4Network]:
    """The parts of *networks* that are in *other*: of two that overlap, the smaller one is in the other."""
    return [max(network, other, key=lambda each: each.prefixlen) for network in networks if network.overlaps(other)]


def _never(laptop: LaptopNetwork, desired: DesiredRoutes) -> tuple[IPv4Network, ...]:
    single = (*desired.outside, *laptop.gateways, *laptop.resolvers, *laptop.addresses)
    hosts = {IPv4Network(address) for address in single if isinstance(address, IPv4Address)}
    return (*NEVER_ROUTED, *desired.never, *sorted(hosts))


def _also(
    also: Iterable[IPv4Network], local: dict[IPv4Network, str], never: tuple[IPv4Network, ...], notes: list[str]
) -> set[IPv4Network]:
    routes: set[IPv4Network] = set()
    for network in also:
        if network.prefixlen < BROADEST_PREFIX:
            notes.append(f"--also {network} is not routed: it is broader than /{BROADEST_PREFIX}.")
            continue
        pieces = [network]
        for own in sorted(own for own in local if own.subnet_of(network)):
            if own.prefixlen < own.max_prefixlen:
                pieces += own.subnets()
                notes.append(f"--also {network} takes over this machine's own network {own} ({local[own]}).")
            else:
                notes.append(f"{own} stays local: this machine has a route to exactly that address ({local[own]}).")
        kept = subtract(pieces, never)
        if not kept:
            notes.append(f"--also {network} is not routed: none of its addresses may go into the tunnel.")
        routes |= set(kept)
    return routes


def _found(
    network: IPv4Network, local: dict[IPv4Network, str], never: tuple[IPv4Network, ...], notes: list[str]
) -> list[IPv4Network]:
    if network.prefixlen < BROADEST_PREFIX:
        notes.append(f"The cluster's range {network} is not routed: it is broader than /{BROADEST_PREFIX}.")
        return []
    own = sorted(other for other in local if other.overlaps(network))
    if own:
        names = first_few([f"{other} ({local[other]})" for other in own])
        notes.append(
            f"The cluster's range {network} overlaps this machine's own network {names}, which stays as it is. "
            f"--also {network} would take all of it."
        )
    return subtract([network], (*own, *never))


def _hosts(
    hosts: Iterable[IPv4Address],
    routes: set[IPv4Network],
    local: dict[IPv4Network, str],
    never: tuple[IPv4Network, ...],
) -> list[IPv4Network]:
    """Those that none of our routes covers already."""
    wide = [network for network in never if network.prefixlen < network.max_prefixlen]
    single = {network.network_address for network in never if network.prefixlen == network.max_prefixlen}
    found: list[IPv4Network] = []
    for address in dict.fromkeys(hosts):
        if address in single or any(address in network for network in wide):
            continue
        if not _covered(address, routes, local):
            found.append(IPv4Network(address))
    return [host for host in found if host not in local]


def _covered(address: IPv4Address, routes: AbstractSet[IPv4Network], local: dict[IPv4Network, str]) -> bool:
    """True when the longest matching prefix is one of ours."""
    number = int(address)
    for prefix in range(32, BROADEST_PREFIX - 1, -1):
        network = IPv4Network((number >> (32 - prefix) << (32 - prefix), prefix))
        if network in routes:
            return True
        if network in local:
            return False
    return False


def _outside_notes(networks: Iterable[IPv4Network], outside: Iterable[IPAddress]) -> list[str]:
    kept = [str(address) for address in outside if any(address in network for network in networks)]
    return [f"{first_few(kept)} stays outside the tunnel: the connection to the cluster goes there."] if kept else []
