"""The laptop's former resolver: its servers in their order, through sockets that the redirect exempts."""

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

import dns.rcode

from meshdev.dns.sockets import ask, prepare, read_message, write_message
from meshdev.errors import MeshdevError
from meshdev.wire.dns import MAX_MESSAGE, Query, answers, message_id, rcode, with_id

#: An address and a port.
Server = tuple[str, int]

#: The time limit of one server (glibc and systemd-resolved wait 5 s; two servers must fit into that).
_SERVER_SECONDS: Final = 2.0
#: How often all servers are tried where none answers, and the total time limit.
_ROUNDS: Final = 2
_ASK_SECONDS: Final = 8.0
#: How long a silent server comes last, as in systemd-resolved and dnsmasq; else each lookup would wait for it.
_HOLD_DOWN_SECONDS: Final = 10.0
#: The longest silence inside a zone transfer.
_TRANSFER_SECONDS: Final = 10.0

#: Answers that are about the server rather than the name: the next server is asked, as by glibc's res_send.
_NEXT_SERVER: Final = frozenset({dns.rcode.SERVFAIL, dns.rcode.NOTIMP, dns.rcode.REFUSED})

#: Datagrams read at a time before other tasks get their turn.
_BURST: Final = 64


@dataclass(frozen=True, slots=True)
class _Pending:
    query: Query
    answer: asyncio.Future[bytes]


class FormerResolver:
    """The former servers, asked by UDP or TCP.

    *servers* are asked in their order, each through the UDP sockets connected to it (none: it has no route). This
    object owns the sockets: they are closed when :meth:`receiving` ends. *dial* returns an unconnected TCP socket for a
    server's address, which the caller closes.
    """

    def __init__(
        self,
        servers: Mapping[Server, Sequence[socket.socket]],
        dial: Callable[[str], Awaitable[socket.socket]],
        here: Collection[Server] = (),
    ) -> None:
        """*here*: those of *servers* that run on this machine, and may in turn ask another one of them."""
        self._servers = dict(servers)
        self._dial = dial
        self._here = frozenset(here)
        self._pending: dict[tuple[int, int], _Pending] = {}
        self._silent_until: dict[tuple[Server, bool], float] = {}

    @contextmanager
    def receiving(self) -> Iterator[None]:
        """Receive answers by UDP during the block."""
        loop = asyncio.get_running_loop()
        sockets = [sock for some in self._servers.values() for sock in some]
        for sock in sockets:
            prepare(sock)
            loop.add_reader(sock.fileno(), self._receive, sock)
        try:
            yield
        finally:
            for sock in sockets:
                loop.remove_reader(sock.fileno())
                sock.close()

    async def ask(self, query: Query, *, stream: bool, asked: Server | None = None) -> bytes | None:
        """The unchanged answer, under the query's own id; None where no server answers.

        *asked* is the server that the program asked; it comes first. Of the servers on this machine it is the only one
        asked: others could forward the query to where it came from, in a loop.
        """
        failure: bytes | None = None
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                for _ in range(_ROUNDS):
                    for server in self._in_order(stream=stream, asked=asked):
                        answer = await self._try(query, server, stream=stream)
                        if answer is not None and rcode(answer) not in _NEXT_SERVER:
                            return answer
                        failure = failure or answer
                    if failure is not None:
                        break
        except TimeoutError:
            pass
        return failure

    async def transfer(
        self, query: Query, reply: Callable[[bytes], Awaitable[None]], asked: Server | None = None
    ) -> bool:
        """Forward every message of the first server that answers a zone transfer, until it closes or is silent.

        False where no server answered.
        """
        talked = False
        for server in self._in_order(stream=True, asked=asked):
            try:
                async with self._stream(server) as (reader, writer):
                    await write_message(writer, query.wire)
                    while True:
                        async with asyncio.timeout(_TRANSFER_SECONDS):
                            message = await read_message(reader)
                        talked = True
                        await reply(message)
            except (OSError, EOFError, MeshdevError):
                if talked:
                    break
        return talked

    def _in_order(self, *, stream: bool, asked: Server | None) -> list[Server]:
        now = asyncio.get_running_loop().time()

        def rank(server: Server) -> tuple[bool, bool]:
            return self._silent_until.get((server, stream), 0.0) > now, server != asked

        known = asked in self._servers
        return sorted(
            (each for each in self._servers if not known or each == asked or each not in self._here), key=rank
        )

    async def _try(self, query: Query, server: Server, *, stream: bool) -> bytes | None:
        """None where *server* does not answer; it then comes last for a while, for that protocol only."""
        try:
            async with asyncio.timeout(_SERVER_SECONDS):
                answer = await (self._by_stream(query, server) if stream else self._by_datagram(query, server))
        except (OSError, EOFError, MeshdevError):  # the last: the helper made no socket to dial with
            self._silent_until[server, stream] = asyncio.get_running_loop().time() + _HOLD_DOWN_SECONDS
            return None
        self._silent_until.pop((server, stream), None)
        return with_id(answer, message_id(query.wire))

    async def _by_datagram(self, query: Query, server: Server) -> bytes:
        if not self._servers[server]:
            raise OSError("no socket to the former resolver")
        sock = secrets.choice(self._servers[server])
        while (key := (sock.fileno(), secrets.randbelow(1 << 16))) in self._pending:
            pass  # at most a few hundred of 65,536 are taken
        pending = _Pending(query, asyncio.get_running_loop().create_future())
        self._pending[key] = pending
        try:
            sock.send(with_id(query.wire, key[1]))
            return await pending.answer
        finally:
            del self._pending[key]

    def _receive(self, sock: socket.socket) -> None:
        for _ in range(_BURST):
            try:
                wire = sock.recv(MAX_MESSAGE)
            except OSError:  # nothing left, or an ICMP error of some earlier datagram
                return
            pending = self._pending.get((sock.fileno(), message_id(wire)))
            if pending is None or pending.answer.done():
                continue
            if answers(wire, pending.query):
                pending.answer.set_result(wire)

    async def _by_stream(self, query: Query, server: Server) -> bytes:
        request = with_id(query.wire, secrets.randbelow(1 << 16))
        async with self._stream(server) as (reader, writer):
            return await ask(reader, writer, query, request)

    @asynccontextmanager
    async def _stream(self, server: Server) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        sock = await self._dial(server[0])
        try:
            sock.setblocking(False)
            async with asyncio.timeout(_SERVER_SECONDS):
                await asyncio.get_running_loop().sock_connect(sock, server)
            reader, writer = await asyncio.open_connection(sock=sock)
        except BaseException:
            sock.close()
            raise
        try:
            yield reader, writer
        finally:
            writer.close()
