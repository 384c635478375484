"""Which bridges of this machine have containers, and nothing else, behind them.

A container is a network namespace of this machine behind a veth pair. Its bridge qualifies if all of this holds:

- it has at least one port, and each is a veth whose other end is in another namespace: a physical port, a VLAN, a VPN's
  tap would let neighbours in;
- it has a private IPv4 address with a network of its own: this machine is the containers' gateway;
- no route with a gateway leaves by it: it would be the uplink (of a machine that is itself a container).

Virtual machines do not qualify (their ports are taps, as those of VPNs), nor do neighbours for which this machine is a
router: a shared connection, a hotspot.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

from meshdev.netlink.links import KernelAddress, KernelLink, addresses_dump, links_dump, parse_address, parse_link
from meshdev.netlink.messages import KernelRoute, parse_route, routes_dump
from meshdev.netlink.sock import Netlink

#: RFC 1918 and the shared range of RFC 6598.
_PRIVATE: Final = tuple(map(IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")))
#: Safe between quotes in nft; other names (dev_valid_name of net/core/dev.c allows nearly all bytes) are skipped.
_PLAIN_NAME: Final = re.compile(r"[A-Za-z0-9_.@:-]{1,15}")
#: Further ones are skipped: each costs a few rules.
MAX_BRIDGES: Final = 64


@dataclass(frozen=True, slots=True, order=True)
class Bridge:
    """A bridge, and the network of the containers behind it."""

    name: str
    network: IPv4Network


def find_bridges(netlink: Netlink) -> tuple[Bridge, ...]:
    """Those that exist now. Raises OSError."""
    links = [link for body in netlink.dump(links_dump()) if (link := parse_link(body))]
    if not any(link.kind == "bridge" for link in links):
        return ()
    addresses = [address for body in netlink.dump(addresses_dump()) if (address := parse_address(body))]
    routes = [route for body in netlink.dump(routes_dump()) if (route := parse_route(body))]
    return container_bridges(links, addresses, routes)


def container_bridges(
    links: Iterable[KernelLink], addresses: Iterable[KernelAddress], routes: Iterable[KernelRoute]
) -> tuple[Bridge, ...]:
    """Decide from what the kernel lists. Pure."""
    links = tuple(links)
    uplinks = {route.index for route in routes if route.gateway is not None}
    names = {
        link.index: link.name
        for link in links
        if link.kind == "bridge" and link.index not in uplinks and _PLAIN_NAME.fullmatch(link.name)
    }
    for index in [*names]:
        ports = [link for link in links if link.master == index]
        if not ports or not all(port.kind == "veth" and port.peer_elsewhere for port in ports):
            del names[index]
    found = {
        Bridge(names[address.index], address.interface.network)
        for address in addresses
        if address.index in names and any(address.interface.network.subnet_of(private) for private in _PRIVATE)
    }
    return tuple(sorted(found)[:MAX_BRIDGES])


def forwards(bridge: Bridge) -> bool:
    """Whether this machine forwards packets from the bridge (net.ipv4.conf.NAME.forwarding)."""
    try:
        return Path(f"/proc/sys/net/ipv4/conf/{bridge.name}/forwarding").read_text().strip() == "1"
    except OSError:  # removed meanwhile
        return False
