"""The forwarder's listeners: accept queries by UDP and TCP and pass each to a handler, one task a query."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import dns.rcode

from meshdev.dns.sockets import prepare, read_message, write_message
from meshdev.wire.dns import MAX_MESSAGE, Query, empty, format_error, parse_query

log = logging.getLogger(__name__)

#: Concurrent queries in total; further ones get SERVFAIL at once.
_IN_FLIGHT: Final = 512
#: Concurrent TCP connections, queries on each (RFC 7766 section 6.2.1.1), and how long one may be idle.
_CONNECTIONS: Final = 128
_PIPELINE: Final = 32
_IDLE_SECONDS: Final = 10.0
#: Datagrams read at a time before other tasks get their turn.
_BURST: Final = 64
#: A pause after accept() failed (no descriptors left): an immediate retry would fail, too.
_ACCEPT_PAUSE_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Client:
    """A client: ``reply`` sends one message back (more than one only for a zone transfer, which needs a stream).

    ``asked`` is the nameserver, address and port, that the program sent its query to; None where that is unknown.
    """

    stream: bool
    reply: Callable[[bytes], Awaitable[None]]
    asked: tuple[str, int] | None = None


#: Where a datagram came from, as recvfrom() gives it.
_Source = tuple[str, int]

#: Answers one query; errors of the query itself are answered, not raised.
Handler = Callable[[Query, Client], Awaitable[None]]


class Listener:
    """Serves two listening sockets, which it owns from now on: :meth:`run` closes them at its end."""

    def __init__(
        self, udp: socket.socket, tcp: socket.socket, handler: Handler, asked: tuple[str, int] | None = None
    ) -> None:
        """*asked*: the nameserver whose queries arrive here."""
        self._udp = udp
        self._tcp = tcp
        self._handler = handler
        self._asked = asked
        self._in_flight = 0
        self._connections = 0

    async def run(self) -> None:
        """Serve until cancelled, and with it all queries in progress."""
        loop = asyncio.get_running_loop()
        try:
            prepare(self._udp)
            self._tcp.setblocking(False)
            async with asyncio.TaskGroup() as group:
                loop.add_reader(self._udp.fileno(), self._receive, group)
                await self._accept(group)
        finally:
            loop.remove_reader(self._udp.fileno())
            self._udp.close()
            self._tcp.close()

    def _receive(self, group: asyncio.TaskGroup) -> None:
        for _ in range(_BURST):
            try:
                wire, source = self._udp.recvfrom(MAX_MESSAGE)
            except OSError:  # nothing left, or an ICMP error of an earlier answer
                return
            query = parse_query(wire)
            if query is None:
                self._send(format_error(wire), source)
            elif self._in_flight >= _IN_FLIGHT:
                self._send(empty(query, dns.rcode.SERVFAIL), source)
            else:
                self._in_flight += 1
                group.create_task(self._serve_datagram(query, source))

    def _send(self, wire: bytes | None, target: _Source) -> None:
        if wire is None:
            return
        try:
            self._udp.sendto(wire, target)
        except OSError as error:
            log.debug("answer not sent: %s", error)

    async def _serve_datagram(self, query: Query, source: _Source) -> None:
        async def reply(wire: bytes) -> None:
            self._send(wire, source)

        await self._handle(query, Client(stream=False, reply=reply, asked=self._asked))

    async def _handle(self, query: Query, client: Client) -> None:
        """Pass one counted query to the handler."""
        try:
            await self._handler(query, client)
        except Exception:  # the edge: a fault in one query must not end the laptop's DNS
            log.exception("query for %s failed", query.name)
            await client.reply(empty(query, dns.rcode.SERVFAIL))
        finally:
            self._in_flight -= 1

    async def _accept(self, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(self._tcp)
            except OSError as error:
                log.warning("no connection accepted: %s", error)
                await asyncio.sleep(_ACCEPT_PAUSE_SECONDS)
                continue
            if self._connections >= _CONNECTIONS:
                sock.close()
                continue
            self._connections += 1
            group.create_task(self._serve_connection(sock))

    async def _serve_connection(self, sock: socket.socket) -> None:
        try:
            reader, writer = await asyncio.open_connection(sock=sock)
            try:
                await self._serve_stream(reader, writer)
            finally:
                writer.close()
        except OSError as error:
            log.debug("client connection ended: %s", error)
        finally:
            sock.close()
            self._connections -= 1

    async def _serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send answers as they are ready; the client matches them by id (RFC 7766 section 6.2.1.1)."""
        slots = asyncio.Semaphore(_PIPELINE)

        async def reply(wire: bytes) -> None:
            try:
                await write_message(writer, wire)
            except OSError:  # the client left, or does not read
                writer.transport.abort()

        async def serve(query: Query) -> None:
            try:
                await self._handle(query, Client(stream=True, reply=reply, asked=self._asked))
            finally:
                slots.release()

        async with asyncio.TaskGroup() as group:
            while True:
                try:
                    async with asyncio.timeout(_IDLE_SECONDS):
                        wire = await read_message(reader)
                except (OSError, EOFError):
                    return
                query = parse_query(wire)
                if query is None:  # after a malformed message the next length means nothing
                    if (error := format_error(wire)) is not None:
                        await reply(error)
                    return
                if self._in_flight >= _IN_FLIGHT:
                    await reply(empty(query, dns.rcode.SERVFAIL))
                    continue
                await slots.acquire()
                self._in_flight += 1
                group.create_task(serve(query))
