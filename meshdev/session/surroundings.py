"""Reads what the laptop's network is without us; needs no privilege."""

import socket
from collections.abc import Iterable
from typing import Final

from meshdev.host.plan import Laptop, LocalRoute
from meshdev.netlink import messages
from meshdev.netlink.messages import KernelRoute
from meshdev.netlink.sock import Netlink
from meshdev.wire.values import IPAddress

_RTN_BROADCAST: Final = 3


def read_laptop(resolvers: Iterable[IPAddress] = (), *, own: str | None = None) -> Laptop:
    """The laptop as the planner wants it; *own* names our device, whose routes do not count. About a millisecond.

    Raises OSError when the kernel does not answer.
    """
    with Netlink() as netlink:
        parsed = [messages.parse_route(body) for body in netlink.dump(messages.routes_dump())]
    own_index = _index(own)
    found = [route for route in parsed if route is not None and not (own_index and route.index == own_index)]
    return Laptop(
        routes=tuple(LocalRoute(route.network, _device(route)) for route in found if _is_network(route)),
        addresses=tuple(dict.fromkeys(route.network.network_address for route in found if _is_own_address(route))),
        gateways=tuple(dict.fromkeys(route.gateway for route in found if _is_default(route) and route.gateway)),
        resolvers=tuple(resolvers),
    )


def _is_network(route: KernelRoute) -> bool:
    return route.table != messages.RT_TABLE_LOCAL and not _is_default(route)


def _is_default(route: KernelRoute) -> bool:
    return route.network.prefixlen == 0


def _is_own_address(route: KernelRoute) -> bool:
    """Also the broadcast addresses of its networks."""
    return (
        route.table == messages.RT_TABLE_LOCAL
        and route.kind in {messages.RTN_LOCAL, _RTN_BROADCAST}
        and route.network.prefixlen == route.network.max_prefixlen
        and not route.network.is_loopback
    )


def _device(route: KernelRoute) -> str:
    try:
        return socket.if_indextoname(route.index)
    except OSError:
        return "several devices"


def _index(name: str | None) -> int:
    try:
        return socket.if_nametoindex(name) if name else 0
    except OSError:
        return 0
