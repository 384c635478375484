"""Sockets of this network namespace as the kernel lists them (NETLINK_SOCK_DIAG). Pure.

Sources: Linux ``include/uapi/linux/sock_diag.h``, ``inet_diag.h``; addresses and ports are in network order.
"""

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from meshdev.netlink.messages import NLM_F_ACK, NLM_F_DUMP, NetlinkRequest

NETLINK_SOCK_DIAG: Final = 4

AF_INET: Final = 2
AF_INET6: Final = 10
TCP: Final = 6
UDP: Final = 17

_SOCK_DIAG_BY_FAMILY: Final = 20
_SOCK_DESTROY: Final = 21

# include/net/tcp_states.h
ESTABLISHED: Final = 1
SYN_SENT: Final = 2
FIN_WAIT1: Final = 4
FIN_WAIT2: Final = 5
TIME_WAIT: Final = 6
UNCONNECTED: Final = 7  # TCP_CLOSE: the state of a bound UDP socket
CLOSE_WAIT: Final = 8
LAST_ACK: Final = 9
LISTEN: Final = 10
CLOSING: Final = 11

_REQUEST: Final = struct.Struct("<BBBxI48s")  # struct inet_diag_req_v2: family, protocol, ext, states, id
_SOCKID: Final = struct.Struct(">HH16s16s12s")  # struct inet_diag_sockid: ports, addresses, interface and cookie
_MESSAGE: Final = struct.Struct("<BBxx48s")  # struct inet_diag_msg up to its id

_ANY_COOKIE: Final = bytes(4) + 8 * b"\xff"  # no interface, INET_DIAG_NOCOOKIE twice

_MAPPED: Final = bytes(10) + b"\xff\xff"  # an IPv4 peer of an IPv6 socket


@dataclass(frozen=True, slots=True)
class Socket:
    """One socket. An IPv4 peer of an IPv6 socket has its IPv4 addresses here."""

    family: int
    state: int
    local: IPv4Address | IPv6Address
    port: int
    remote: IPv4Address | IPv6Address
    key: bytes
    """By which the kernel finds it again."""


def sockets_dump(family: int, protocol: int, states: Iterable[int]) -> NetlinkRequest:
    """All sockets of that family and protocol in one of *states*."""
    mask = sum(1 << state for state in states)
    return NetlinkRequest(_SOCK_DIAG_BY_FAMILY, NLM_F_DUMP, _REQUEST.pack(family, protocol, 0, mask, bytes(48)))


def socket_at(address: IPv4Address | IPv6Address, port: int, protocol: int) -> NetlinkRequest:
    """The socket that receives what is sent to that address and port: a listener, or a bound UDP socket.

    The kernel answers in one step with what it would find for a packet, so ``::`` counts for IPv4 where it does. An
    error ENOENT where there is none, and also where the kernel reports nothing of that protocol (then a dump is empty,
    too). For UDP the kernel reads the two ends the wrong way round (``udp_dump_one``): they are equal here.
    """
    family = AF_INET if address.version == 4 else AF_INET6
    ends = 2 * (address.packed.ljust(16, b"\0"),)
    key = _SOCKID.pack(port, port, *ends, _ANY_COOKIE)
    return NetlinkRequest(_SOCK_DIAG_BY_FAMILY, NLM_F_ACK, _REQUEST.pack(family, protocol, 0, 0, key))


def socket_destroy(sock: Socket, protocol: int) -> NetlinkRequest:
    """Abort one as a reset by its peer would; the peer gets a reset. Needs CAP_NET_ADMIN, CONFIG_INET_DIAG_DESTROY."""
    return NetlinkRequest(_SOCK_DESTROY, NLM_F_ACK, _REQUEST.pack(sock.family, protocol, 0, 1 << sock.state, sock.key))


def parse_socket(body: memoryview) -> Socket | None:
    """A socket of a dump."""
    if len(body) < _MESSAGE.size:
        return None
    family, state, key = _MESSAGE.unpack_from(body)
    port, _, local, remote, _ = _SOCKID.unpack(key)
    if family not in {AF_INET, AF_INET6}:
        return None
    return Socket(family, state, _address(family, local), port, _address(family, remote), key)


def ends(body: memoryview) -> bytes:
    """Both ports and then both addresses of a socket of a dump, its own first; cheaper than :func:`parse_socket`."""
    return bytes(body[4:40])


def mirror(body: memoryview) -> bytes:
    """The :func:`ends` of the socket at the other end, which is of IPv4 where the addresses are."""
    here = ends(body)
    own, other = here[4:20], here[20:36]
    if body[0] == AF_INET6:
        own, other = _unmapped(own), _unmapped(other)
    return here[2:4] + here[:2] + other + own


def _unmapped(address: bytes) -> bytes:
    return address[12:] + bytes(12) if address[:12] == _MAPPED else address


def _address(family: int, data: bytes) -> IPv4Address | IPv6Address:
    if family == AF_INET:
        return IPv4Address(data[:4])
    return IPv4Address(data[12:]) if data[:12] == _MAPPED else IPv6Address(data)
