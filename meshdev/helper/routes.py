"""The device's routes: brought to a desired state, and told as they really are."""

import errno
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from meshdev.netlink import messages
from meshdev.netlink.sock import Netlink
from meshdev.wire.helper import MAX_REFUSED, Refused, RoutesSet


def set_routes(netlink: Netlink, index: int, source: IPv4Address, desired: Iterable[IPv4Network]) -> RoutesSet:
    """Add what is missing, then delete what is too much; one refused route does not stop the others."""
    wanted, actual = set(desired), own_routes(netlink, index)
    missing = sorted(wanted - actual)
    added = netlink.execute([messages.route_add(route, index, source) for route in missing])
    netlink.execute([messages.route_delete(route, index) for route in sorted(actual - wanted)])
    refused = [Refused(route, _reason(error)) for route, error in zip(missing, added, strict=True) if error is not None]
    return RoutesSet(tuple(sorted(own_routes(netlink, index))), tuple(refused[:MAX_REFUSED]))


def own_routes(netlink: Netlink, index: int) -> set[IPv4Network]:
    """Routes on that device that bear our protocol number."""
    found = map(messages.parse_route, netlink.dump(messages.routes_dump()))
    return {
        route.network
        for route in found
        if route is not None
        and (route.index, route.protocol, route.table) == (index, messages.ROUTE_PROTOCOL, messages.RT_TABLE_MAIN)
    }


def _reason(error: OSError) -> str:
    if error.errno == errno.EEXIST:
        return "this machine has a route to exactly that network already"
    return error.strerror or str(error)
