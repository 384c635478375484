"""Checked values of the laptop's side: text to addresses, routes and names. Each raises ValueError."""

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from typing import Final, NamedTuple

from meshdev.config import ADDRESS_POOLS

#: Cluster ranges are no broader than this; 0.0.0.0/0 would replace the laptop's default route.
BROADEST_PREFIX: Final = 8
#: RFC 6890: "this network", loopback, link-local (cloud metadata), multicast, reserved and broadcast.
NEVER_ROUTED: Final = tuple(
    IPv4Network(net) for net in ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4")
)

IPAddress = IPv4Address | IPv6Address

_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_INTERFACE: Final = re.compile(r"[A-Za-z0-9_.-]{1,15}")  # IFNAMSIZ is 16 with its NUL


def address(text: str) -> IPAddress:
    """The address of a host; IPv6 may name its interface (``fe80::1%eth0``)."""
    found = ip_address(text)
    if isinstance(found, IPv6Address) and found.scope_id is not None:
        interface(found.scope_id)
    if found.is_multicast or found.is_unspecified or found == IPv4Address("255.255.255.255"):
        raise ValueError(f"{text!r} is not the address of a host")
    return found


def session_address(text: str) -> IPv4Address:
    """An address that a session may have."""
    found = IPv4Address(text)
    if not any(found in pool and found not in {pool[0], pool[-1]} for pool in ADDRESS_POOLS):
        raise ValueError(f"{text!r} is not a host of {', '.join(map(str, ADDRESS_POOLS))}")
    return found


def route(text: str) -> IPv4Network:
    """A route that may go into the tunnel: never the default route, nor addresses of host or link scope."""
    found = IPv4Network(text)
    if str(found) != text:
        raise ValueError(f"{text!r} is not written as address/prefix")
    if found.prefixlen < BROADEST_PREFIX or any(found.overlaps(net) for net in NEVER_ROUTED):
        raise ValueError(f"{text!r} covers addresses that are never routed")
    return found


def local_address(text: str) -> IPv4Address:
    """Where a program of this machine may listen: IPv4, as everything in the tunnel."""
    found = IPv4Address(text)
    if found.is_multicast or found.is_unspecified or found.is_reserved:
        raise ValueError(f"{text!r} is not an address to listen at")
    return found


class ListenAddress(NamedTuple):
    """Where a server of the session listens, for :func:`socket.create_server`."""

    host: IPAddress
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if self.host.version == 6 else str(self.host)
        return f"{host}:{self.port}"


def listen_address(text: str) -> ListenAddress:
    """``PORT`` of 127.0.0.1, or ``HOST:PORT`` with an address of this machine or ``localhost``; ``[::1]:PORT``.

    Port 0 is any that is free.
    """
    host, separator, port = text.rpartition(":")
    if separator and not host:
        raise ValueError(f"{text!r} has no host")
    found = ip_address({"": "127.0.0.1", "localhost": "127.0.0.1"}.get(host, host.removeprefix("[").removesuffix("]")))
    if (host.startswith("[") and host.endswith("]")) != (found.version == 6) or found.is_multicast:
        raise ValueError(f"{text!r} is not an address to listen at")
    if not (port.isascii() and port.isdecimal() and int(port) < 1 << 16):
        raise ValueError(f"{port!r} is not a port")
    return ListenAddress(found, int(port))


def name(text: str) -> str:
    """A DNS name as in search lists, or "." for the root."""
    if text != "." and (len(text) > 253 or not all(_LABEL.fullmatch(label) for label in text.split("."))):
        raise ValueError(f"{text!r} is not a lower-case DNS name without a dot at its end")
    return text


def interface(text: str) -> str:
    """The name of a network device."""
    if _INTERFACE.fullmatch(text) is None or text in {".", ".."}:
        raise ValueError(f"{text!r} is not an interface name")
    return text


def absolute_path(text: str) -> str:
    """An absolute path."""
    if not text.startswith("/"):
        raise ValueError("not an absolute path")
    return text
