"""Sockets that only root can make: listeners on port 53, and marked ones that bypass the redirect."""

import contextlib
import ctypes
import errno
import os
import random
import socket
import struct
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from meshdev.errors import DnsError
from meshdev.helper.firewall import MARK
from meshdev.wire.helper.answers import Upstream
from meshdev.wire.values import IPAddress

DNS_PORT: Final = 53
#: Each has its own source port, which an attacker would have to guess (RFC 5452 section 4.5).
_SOCKETS_EACH: Final = 4
_BACKLOG: Final = 64
_LOOPBACK: Final = b"lo"
_SO_ATTACH_FILTER: Final = 26  # asm-generic/socket.h
_NETWORK_HEADER: Final = 0x100000000 - 0x100000  # SKF_NET_OFF of linux/filter.h
_ARRIVED_BY: Final = 0x100000000 - 0x1000 + 8  # SKF_AD_OFF + SKF_AD_IFINDEX
_LOOPBACK_INDEX: Final = 1  # LOOPBACK_IFINDEX of the kernel's net/flow.h: the same in each network namespace

#: Each tries once for TCP and once for UDP. One in two succeeds where half of the range is in use for either.
_TRIES: Final = 16
_TRIES_ELSEWHERE: Final = 256
_UNPRIVILEGED: Final = range(1024, 65536)


def listeners(address: IPAddress, port: int, *, machine_only: bool = True) -> list[socket.socket]:
    """A UDP and a TCP listener at the same port; port 0: any that is free for both. Raises OSError.

    *machine_only*: only this machine reaches them. Otherwise Linux answers at any of its addresses on any of its
    interfaces (the weak host model of RFC 1122 section 3.3.4.2), so that a neighbour on the LAN could ask here, too.
    """
    if port:
        return _pair(address, port, socket.SOCK_DGRAM, machine_only=machine_only)
    problem = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    for candidate, first in _candidates():
        try:
            return _pair(address, candidate, first, machine_only=machine_only)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            problem = error
    raise problem


def _candidates() -> Iterator[tuple[int, socket.SocketKind]]:
    """Ports to try, and the protocol to bind first.

    A port that the kernel picks for one protocol may be in use for the other. Where TCP ports are scarce (thousands of
    listeners) the kernel's choice for TCP fits at once, and likewise for UDP. Where all of
    net.ipv4.ip_local_port_range is in use there are ports outside it.
    """
    for _ in range(_TRIES):
        yield 0, socket.SOCK_STREAM
        yield 0, socket.SOCK_DGRAM
    for _ in range(_TRIES_ELSEWHERE):
        yield random.choice(_UNPRIVILEGED), socket.SOCK_STREAM  # noqa: S311 -- no secret: any free port will do


def _pair(address: IPAddress, port: int, first: socket.SocketKind, *, machine_only: bool) -> list[socket.socket]:
    """UDP, TCP. The port is the kernel's choice for *first* where it is 0."""
    made: list[socket.socket] = []
    try:
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        udp, tcp = _socket(family, socket.SOCK_DGRAM, made), _socket(family, socket.SOCK_STREAM, made)
        for sock in (udp, tcp) if machine_only else ():
            _limit_to_machine(sock, address)
        if port:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a former connection may be in TIME_WAIT
        one, other = (tcp, udp) if first == socket.SOCK_STREAM else (udp, tcp)
        one.bind((str(address), port))
        other.bind((str(address), one.getsockname()[1]))
        tcp.listen(_BACKLOG)
    except OSError:
        close_all(made)
        raise
    return made


def _limit_to_machine(sock: socket.socket, address: IPAddress) -> None:
    if isinstance(address, IPv6Address):
        return  # ::1 is accepted on no other interface (RFC 4291 section 2.5.3)
    if address.is_loopback:
        # Where route_localnet is on (kube-proxy, Docker) neighbours reach 127.0.0.0/8, too. Before Linux 5.7 this
        # needs CAP_NET_RAW; there the listener is as reachable as that of every other program.
        with contextlib.suppress(PermissionError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, _LOOPBACK)
    else:
        _accept_from(sock, address)


def _accept_from(sock: socket.socket, address: IPv4Address) -> None:
    """Accept what came by the loopback device or from this source: the kernel drops the rest before the socket sees it.

    What a program sends to an address of its own machine takes the loopback device, and nothing from outside does.
    Usually it has that address as its source, too, which the kernel accepts on no other interface (martian: RFC 1812
    section 5.3.7). But a socket that was connected while the address was missing has another one of this machine, and
    systemd-resolved repeats a query on the same socket, every 5 s for two minutes (dns_transaction_emit_udp of
    resolved-dns-transaction.c), while whoever asks for the same name waits with it. Classic BPF: linux/filter.h.
    """
    program = b"".join(
        struct.pack("=HBBI", *instruction)
        for instruction in (
            (0x20, 0, 0, _ARRIVED_BY),  # load the index of the device
            (0x15, 2, 0, _LOOPBACK_INDEX),  # the loopback device? to "yes"
            (0x20, 0, 0, _NETWORK_HEADER + 12),  # load the word at the IPv4 header's source
            (0x15, 0, 1, int(address)),  # our address?
            (0x06, 0, 0, 0xFFFFFFFF),  # yes: all of the packet
            (0x06, 0, 0, 0),  # no: nothing
        )
    )
    code = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(program) // 8, ctypes.addressof(code))  # struct sock_fprog
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)


def upstream_sockets(server: IPAddress) -> tuple[Upstream, list[socket.socket]]:
    """Marked UDP sockets connected to that server; none where it has no route."""
    made: list[socket.socket] = []
    try:
        for _ in range(_SOCKETS_EACH):
            _marked(server, socket.SOCK_DGRAM, made).connect(_endpoint(server))
    except OSError:
        close_all(made)
        made = []
    return Upstream(server, len(made)), made


def upstream_tcp(server: IPAddress) -> socket.socket:
    """A marked TCP socket, not connected. Raises DnsError."""
    try:
        return _marked(server, socket.SOCK_STREAM, [])
    except OSError as error:
        raise DnsError(f"no marked socket to the resolver {server}: {error.strerror}") from error


def close_all(sockets: Sequence[socket.socket]) -> None:
    """Close every one."""
    for sock in sockets:
        sock.close()


def _marked(server: IPAddress, kind: socket.SocketKind, made: list[socket.socket]) -> socket.socket:
    sock = _socket(socket.AF_INET if server.version == 4 else socket.AF_INET6, kind, made)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
    return sock


def _socket(family: socket.AddressFamily, kind: socket.SocketKind, made: list[socket.socket]) -> socket.socket:
    sock = socket.socket(family, kind)
    made.append(sock)
    sock.setblocking(False)
    return sock


def _endpoint(server: IPAddress) -> tuple[str, int] | tuple[str, int, int, int]:
    if server.version == 4:
        return str(server), DNS_PORT
    scope = server.scope_id
    return str(server).partition("%")[0], DNS_PORT, 0, socket.if_nametoindex(scope) if scope else 0
