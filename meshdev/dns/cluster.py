"""The cluster's nameserver, asked through the tunnel."""

import asyncio
import secrets
import socket
from typing import Final

from meshdev.dns.sockets import read_message, write_message
from meshdev.wire.dns import MAX_MESSAGE, Query, answers, message_id, with_id

DNS_PORT: Final = 53

#: Waits after each sending of a UDP question. The tunnel is TCP and loses next to nothing; CoreDNS may be restarting.
_WAITS: Final = (1.0, 1.0, 2.0)
_STREAM_SECONDS: Final = 4.0

#: Sockets in use at once, well below the usual soft limit of 1,024 descriptors.
_LIMIT: Final = 256


class ClusterNameserver:
    """One nameserver address inside the cluster.

    Each UDP question has a socket of its own: its port is as hard to guess as the id, it cannot stay pinned by
    conntrack to a CoreDNS pod that is gone, and A and AAAA asked at once do not race for one NAT entry in the node
    (kubernetes/kubernetes#56903, the five seconds of DNS). As the socket is connected, "port unreachable" ends the
    wait at once.
    """

    def __init__(self, host: str, port: int = DNS_PORT) -> None:
        self._server = (host, port)
        self._slots = asyncio.Semaphore(_LIMIT)

    async def ask(self, query: Query, *, stream: bool) -> bytes:
        """The answer, under the query's own id; raises OSError (TimeoutError among them) or EOFError without one."""
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
                    sock = self._moved(sock)
        finally:
            sock.close()
        raise TimeoutError

    def _connected(self) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect(self._server)
        except OSError:
            sock.close()
            raise
        return sock

    def _moved(self, sock: socket.socket) -> socket.socket:
        """*sock*, or another one in its place where the kernel would choose another source address by now.

        The address stays that of the route at the time of connect(): a question asked in the moment in which the
        route into the tunnel was away (another program deleted it) would be sent with the wrong one each time.
        """
        fresh = self._connected()
        stale, kept = (fresh, sock) if fresh.getsockname()[0] == sock.getsockname()[0] else (sock, fresh)
        stale.close()
        return kept

    async def _by_stream(self, query: Query, request: bytes) -> bytes:
        async with asyncio.timeout(_STREAM_SECONDS):
            reader, writer = await asyncio.open_connection(*self._server)
            try:
                await write_message(writer, request)
                answer = await read_message(reader)
            finally:
                writer.close()
        if not (answers(answer, query) and answer[:2] == request[:2]):
            raise ConnectionError("the cluster's nameserver answered something that was not asked")
        return answer


async def _matching_datagram(sock: socket.socket, query: Query, request: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    while True:
        answer = await loop.sock_recv(sock, MAX_MESSAGE)
        if answers(answer, query) and answer[:2] == request[:2]:
            return answer
