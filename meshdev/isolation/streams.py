"""asyncio's listeners and streams, in whichever network sockets are made."""

import asyncio
import socket
from typing import Final

from meshdev.isolation.network import NetworkSockets

#: What connect(2) takes: host and port, for IPv6 two numbers more.
SocketAddress = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]

_BACKLOG: Final = 100  # as asyncio's own
_LIMIT: Final = 1 << 16  # as asyncio's own: bytes that a reader holds


def listening(network: NetworkSockets, host: str, port: int = 0) -> socket.socket:
    """A non-blocking TCP listener at that IPv4 address; port 0: any that is free. Raises OSError."""
    sock = network.open_socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


async def open_stream(
    network: NetworkSockets, family: int, address: SocketAddress, *, limit: int = _LIMIT
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A TCP connection to that address (not a name). Has no timeout of its own. Raises OSError."""
    sock = network.open_socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, address)
        return await asyncio.open_connection(sock=sock, limit=limit)
    except BaseException:
        sock.close()
        raise
