"""Bring the device's routes to a desired state, and report the actual one."""

import errno
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network

from meshdev.host.plan import route_steps
from meshdev.netlink import messages
from meshdev.netlink.sock import Netlink
from meshdev.wire.helper.answers import RefusedRoute, RoutesSet
from meshdev.wire.helper.limits import MAX_REFUSED


def set_routes(netlink: Netlink, index: int, source: IPv4Address, desired: Iterable[IPv4Network]) -> RoutesSet:
    """Add missing routes, then delete surplus ones; a refused route does not stop the others."""
    missing, needless = route_steps(desired, own_routes(netlink, index))
    refused = _add(netlink, index, source, missing)
    netlink.execute([messages.route_delete(route, index) for route in needless])
    return RoutesSet(tuple(sorted(own_routes(netlink, index))), refused)


def add_routes(netlink: Netlink, index: int, source: IPv4Address, routes: Sequence[IPv4Network]) -> RoutesSet:
    """Add the missing ones of *routes*; reports the state of these alone."""
    refused = _add(netlink, index, source, routes)
    if refused:  # some may have been refused because they exist already
        actual = own_routes(netlink, index)
        refused = tuple(item for item in refused if item.route not in actual)
        return RoutesSet(tuple(route for route in routes if route in actual), refused)
    return RoutesSet(tuple(routes), ())


def own_routes(netlink: Netlink, index: int) -> set[IPv4Network]:
    """Routes on that device with our protocol number."""
    found = map(messages.parse_route, netlink.dump(messages.routes_dump()))
    return {
        route.network
        for route in found
        if route is not None
        and (route.index, route.protocol, route.table) == (index, messages.ROUTE_PROTOCOL, messages.RT_TABLE_MAIN)
    }


def _add(netlink: Netlink, index: int, source: IPv4Address, routes: Sequence[IPv4Network]) -> tuple[RefusedRoute, ...]:
    added = netlink.execute([messages.route_add(route, index, source) for route in routes])
    refused = [
        RefusedRoute(route, _reason(error)) for route, error in zip(routes, added, strict=True) if error is not None
    ]
    return tuple(refused[:MAX_REFUSED])


def _reason(error: OSError) -> str:
    if error.errno == errno.EEXIST:
        return "this machine has a route to exactly that network already"
    return error.strerror or str(error)
