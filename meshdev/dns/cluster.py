"""The cluster's nameserver, asked through the tunnel."""

import asyncio
import secrets
import socket
from typing import Final

from meshdev.dns.sockets import ask
from meshdev.isolation.network import THIS_NETWORK, NetworkSockets
from meshdev.isolation.streams import open_stream
from meshdev.wire.dns import MAX_MESSAGE, Query, answers, message_id, with_id

DNS_PORT: Final = 53

#: Timeouts of the attempts by UDP. The tunnel is TCP and loses next to nothing; CoreDNS may be restarting.
_WAITS: Final = (1.0, 1.0, 2.0)
_STREAM_SECONDS: Final = 4.0

#: Concurrent sockets, well below the usual soft limit of 1,024 descriptors.
_LIMIT: Final = 256


class ClusterNameserver:
    """One nameserver address inside the cluster.

    Each UDP query has a socket of its own: its port is as hard to guess as the id, conntrack cannot keep it pinned to a
    CoreDNS pod that is gone, and concurrent A and AAAA queries do not race for one NAT entry in the node
    (kubernetes/kubernetes#56903, the five-second DNS delay). As the socket is connected, "port unreachable" ends the
    wait at once.
    """

    def __init__(self, host: str, port: int = DNS_PORT, network: NetworkSockets = THIS_NETWORK) -> None:
        """*network*: where there are routes to it."""
        self._server = (host, port)
        self._network = network
        self._slots = asyncio.Semaphore(_LIMIT)

    async def ask(self, query: Query, *, stream: bool) -> bytes:
        """The answer, under the query's own id. Raises OSError (also TimeoutError) or EOFError without one."""
        async with self._slots:
            request = with_id(query.wire, secrets.randbelow(1 << 16))
            answer = await (self._by_stream(query, request) if stream else self._by_datagram(query, request))
        return with_id(answer, message_id(query.wire))

    async def _by_datagram(self, query: Query, request: bytes) -> bytes:
        sock = self._connected()
        try:
            for seconds in _WAITS:
                sock.send(request)
                try:
                    async with asyncio.timeout(seconds):
                        return await _matching_datagram(sock, query, request)
                except TimeoutError:
                    sock = self._rebound(sock)
        finally:
            sock.close()
        raise TimeoutError

    def _connected(self) -> socket.socket:
        sock = self._network.open_socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.connect(self._server)
        except OSError:
            sock.close()
            raise
        return sock

    def _rebound(self, sock: socket.socket) -> socket.socket:
        """*sock*, or a new one where the kernel would now choose another source address.

        connect() fixes the address by the route at that time: a query sent while the route into the tunnel was missing
        (another program deleted it) would be repeated with the wrong one.
        """
        fresh = self._connected()
        stale, kept = (fresh, sock) if fresh.getsockname()[0] == sock.getsockname()[0] else (sock, fresh)
        stale.close()
        return kept

    async def _by_stream(self, query: Query, request: bytes) -> bytes:
        async with asyncio.timeout(_STREAM_SECONDS):
            reader, writer = await open_stream(self._network, socket.AF_INET, self._server)
            try:
                return await ask(reader, writer, query, request)
            finally:
                writer.close()


async def _matching_datagram(sock: socket.socket, query: Query, request: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    while True:
        answer = await loop.sock_recv(sock, MAX_MESSAGE)
        if answers(answer, query) and answer[:2] == request[:2]:
            return answer
