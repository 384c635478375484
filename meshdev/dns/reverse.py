"""Reverse names of addresses (RFC 1035 section 3.5). Pure."""

from collections.abc import Iterable
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Final

import dns.name
from dns.name import Name

_REVERSE: Final = dns.name.from_text("in-addr.arpa.")


def reverse_address(name: Name) -> IPv4Address | None:
    """The address whose PTR name *name* is."""
    if len(name.labels) != 7 or not name.is_subdomain(_REVERSE):
        return None
    try:
        return IPv4Address(b".".join(reversed(name.labels[:4])).decode("ascii"))
    except (AddressValueError, UnicodeDecodeError):
        return None


def reverse_zones(networks: Iterable[IPv4Network], most: int) -> tuple[str, ...]:
    """The reverse zones of *networks*, the largest networks first, at most *most*.

    Zones end at whole octets: a /20 has sixteen.
    """
    zones: list[str] = []
    for network in sorted(networks, key=lambda network: (network.prefixlen, network)):
        octets = max(1, -(-network.prefixlen // 8))
        if len(zones) + (1 << (8 * octets - network.prefixlen)) > most:
            continue
        for part in network.subnets(new_prefix=8 * octets):
            labels = str(part.network_address).split(".")[:octets]
            zones.append(".".join([*reversed(labels), "in-addr.arpa"]))
    return tuple(zones)
