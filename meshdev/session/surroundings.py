"""What this machine's network is without us: read from the kernel, unprivileged."""

import re
import socket
from collections.abc import Collection, Iterable, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from meshdev.dns.cluster import DNS_PORT
from meshdev.errors import RouteError
from meshdev.host.plan import LaptopNetwork, LocalRoute
from meshdev.isolation.network import THIS_NETWORK, NetworkSockets
from meshdev.netlink.links import links_dump, parse_link
from meshdev.netlink.messages import RT_TABLE_LOCAL, RTN_LOCAL, RTN_UNICAST, KernelRoute, parse_route, routes_dump
from meshdev.netlink.sock import Netlink
from meshdev.wire.resolv_conf import ResolvConf, parse_resolv_conf
from meshdev.wire.values import IPAddress

#: The names the helper gives its devices (tun.linux.NAME_PATTERN).
OURS: Final = re.compile(r"meshdev\d+")
_RESOLV_CONF: Final = Path("/etc/resolv.conf")


def look(resolvers: Sequence[IPAddress]) -> LaptopNetwork:
    """Routes and addresses now, without those of meshdev's devices. Raises RouteError."""
    try:
        with Netlink() as netlink:
            found = [route for body in netlink.dump(routes_dump()) if (route := parse_route(body))]
            links = map(parse_link, netlink.dump(links_dump()))
            tunnels = {link.index for link in links if link is not None and link.tunnel}
    except OSError as error:
        raise RouteError(f"the kernel does not list its routes: {error.strerror}") from error
    return describe(found, dict(socket.if_nameindex()), resolvers, tunnels)


def sources(resolvers: Iterable[IPAddress]) -> tuple[str | None, ...]:
    """From which address of this machine each would be asked now; None where it cannot be reached.

    A connected UDP socket keeps the address that it got: in another network nobody would answer it, even where the
    resolver has the same address there (192.168.1.1, 1.1.1.1).
    """
    return tuple(map(_source, resolvers))


def connected_socket(resolver: IPAddress, network: NetworkSockets = THIS_NETWORK) -> socket.socket:
    """A non-blocking UDP socket connected to that name server, which sends nothing. Raises OSError."""
    host, _, scope = str(resolver).partition("%")
    family = socket.AF_INET if resolver.version == 4 else socket.AF_INET6
    sock = network.open_socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.connect((host, DNS_PORT, 0, socket.if_nametoindex(scope)) if scope else (host, DNS_PORT))
    except OSError:
        sock.close()
        raise
    return sock


def own_resolv_conf() -> ResolvConf:
    """What programs of this process's mount namespace read in resolv.conf; the default where there is none."""
    try:
        return parse_resolv_conf(_RESOLV_CONF.read_text(errors="replace"))
    except OSError:
        return parse_resolv_conf("")


def _source(resolver: IPAddress) -> str | None:
    try:
        with connected_socket(resolver) as sock:
            return str(sock.getsockname()[0])
    except OSError:
        return None


def describe(
    found: Sequence[KernelRoute],
    names: dict[int, str],
    resolvers: Sequence[IPAddress],
    tunnels: Collection[int] = frozenset(),
) -> LaptopNetwork:
    """The same as data; *tunnels* are devices without neighbours. Pure.

    Another user's connection is no network of this machine: both may route the same ranges, each by its own device.
    """
    devices = {index for index, name in names.items() if OURS.fullmatch(name)}
    ours = [route for route in found if route.index in devices]
    routes = [route for route in found if route.index not in devices]
    unicast = [route for route in routes if route.kind == RTN_UNICAST and route.table != RT_TABLE_LOCAL]
    defaults = [route for route in unicast if not route.network.prefixlen]
    return LaptopNetwork(
        routes=tuple(
            LocalRoute(route.network, names.get(route.index, "?"), not route.gateway and route.index not in tunnels)
            for route in unicast
            if route.network.prefixlen
        ),
        addresses=_addresses(routes),
        gateways=tuple(dict.fromkeys(route.gateway for route in defaults if route.gateway)),
        resolvers=tuple(resolvers),
        sessions=_addresses(ours),
    )


def _addresses(routes: Sequence[KernelRoute]) -> tuple[IPv4Address, ...]:
    return tuple(dict.fromkeys(route.network.network_address for route in routes if route.kind == RTN_LOCAL))
