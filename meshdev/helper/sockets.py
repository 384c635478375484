"""Sockets that only root can make: listeners on port 53, and marked ones that escape the redirect."""

import socket
from collections.abc import Sequence
from typing import Final

from meshdev.errors import DnsError
from meshdev.helper.firewall import MARK
from meshdev.wire.helper.answers import Upstream
from meshdev.wire.values import IPAddress

DNS_PORT: Final = 53
#: Each has its own source port, which a forger would have to guess (RFC 5452 section 4.5).
_SOCKETS_EACH: Final = 4
_BACKLOG: Final = 64


def listeners(address: IPAddress, port: int) -> list[socket.socket]:
    """A UDP and a TCP listener at the same port; port 0: any that is free for both. Raises OSError."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    made: list[socket.socket] = []
    try:
        udp = _socket(family, socket.SOCK_DGRAM, made)
        udp.bind((str(address), port))
        tcp = _socket(family, socket.SOCK_STREAM, made)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.bind((str(address), udp.getsockname()[1]))
        tcp.listen(_BACKLOG)
    except OSError:
        close_all(made)
        raise
    return made


def upstream_sockets(server: IPAddress) -> tuple[Upstream, list[socket.socket]]:
    """Marked UDP sockets connected to that server; none where there is no way to it."""
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
