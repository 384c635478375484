"""From 127.0.0.1 of the network where relays end to a program that is not reached there.

One that listens on ::1 only, since a relay's connections come over IPv4; or one of this machine's own network, while
the connection has a network of its own.
"""

import asyncio
import logging
import socket
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final, Literal, Protocol, Self

from meshdev.isolation.network import NetworkSockets
from meshdev.isolation.streams import listening, open_stream
from meshdev.session.streams import CHUNK, join, reset
from meshdev.wire.ports import Transport

log = logging.getLogger(__name__)

_HERE: Final = "127.0.0.1"

#: Connections of one port at a time, and clients by UDP: two and one descriptors each, of the usual 1024.
MAX_FLOWS: Final = 256
#: A client by UDP that is silent for so long is forgotten, as connection tracking does it.
IDLE_SECONDS: Final = 120.0

_CONNECT_SECONDS: Final = 5.0
#: Datagrams of one socket before others have their turn.
_TURN: Final = 64


@dataclass(frozen=True, slots=True)
class Program:
    """A port of a loopback address, and the network where it is."""

    network: NetworkSockets
    host: Literal["127.0.0.1", "::1"]
    port: int

    def __str__(self) -> str:
        return f"port {self.port} on {self.host}"

    @property
    def family(self) -> socket.AddressFamily:
        """That of the address."""
        return socket.AF_INET6 if self.host == "::1" else socket.AF_INET


class Copier(Protocol):
    """Listens on ``port`` of 127.0.0.1 and copies to the same kind of socket of the program."""

    @property
    def port(self) -> int:
        """Its own port, not the program's."""
        ...

    def close(self) -> None:
        """Listen no longer. Connections by TCP go on until their ends end them, or their task group is cancelled."""
        ...


async def open_copier(
    network: NetworkSockets, program: Program, transport: Transport, group: asyncio.TaskGroup
) -> Copier:
    """A copier that listens in *network*. Its connections are tasks of *group*.

    Raises OSError where there is no socket.
    """
    if transport == "udp":
        return _Datagrams(network, program)
    return await _Streams.open(network, program, group)


class _Streams:
    """Half-closes and resets are handed on; at most two chunks of each direction are held."""

    def __init__(self, target: Program, group: asyncio.TaskGroup) -> None:
        self._target = target
        self._group = group
        self._open = 0
        self._server: asyncio.Server | None = None
        self.port = 0

    @classmethod
    async def open(cls, network: NetworkSockets, target: Program, group: asyncio.TaskGroup) -> Self:
        made = cls(target, group)
        made._server = await asyncio.start_server(made._accept, sock=listening(network, _HERE), limit=CHUNK)
        made.port = made._server.sockets[0].getsockname()[1]
        return made

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._open >= MAX_FLOWS:
            log.warning("more than %d connections to %s", MAX_FLOWS, self._target)
            reset(writer)
            return
        self._open += 1
        self._group.create_task(self._serve(reader, writer))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                program = await open_stream(
                    self._target.network, self._target.family, (self._target.host, self._target.port), limit=CHUNK
                )
            await join((reader, writer), program)
        except* OSError as error:
            log.debug("a connection to %s ended: %s", self._target, error.exceptions[0])
        finally:
            self._open -= 1
            if not writer.is_closing():
                reset(writer)


@dataclass
class _Client:
    """A client's own socket to the program, so that each answer returns to its client."""

    sock: socket.socket
    last_used: float


class _Datagrams:
    """Datagrams that a full socket does not take are lost, as UDP allows."""

    def __init__(self, network: NetworkSockets, target: Program) -> None:
        self._target = target
        self._loop = asyncio.get_running_loop()
        self._clients: OrderedDict[tuple[str, int], _Client] = OrderedDict()
        self._sweeping: asyncio.TimerHandle | None = None
        self._sock = network.open_socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sock.setblocking(False)
        try:
            self._sock.bind((_HERE, 0))
        except OSError:
            self._sock.close()
            raise
        self.port: int = self._sock.getsockname()[1]
        self._loop.add_reader(self._sock, self._asked)

    def close(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
        for peer in list(self._clients):
            self._forget(peer)
        self._loop.remove_reader(self._sock)
        self._sock.close()

    def _asked(self) -> None:
        for _ in range(_TURN):
            try:
                data, peer = self._sock.recvfrom(CHUNK)
            except OSError:
                return
            try:
                client = self._client(peer)
                client.sock.send(data)
            except BlockingIOError:
                continue
            except OSError as error:  # an ICMP error for an earlier datagram counts, too
                log.debug("a datagram to %s: %s", self._target, error)
                self._forget(peer)

    def _client(self, peer: tuple[str, int]) -> _Client:
        client = self._clients.get(peer)
        if client is None:
            while len(self._clients) >= MAX_FLOWS:
                self._forget(next(iter(self._clients)))
            sock = self._target.network.open_socket(self._target.family, socket.SOCK_DGRAM)
            try:
                sock.setblocking(False)
                sock.connect((self._target.host, self._target.port))
            except OSError:
                sock.close()
                raise
            client = self._clients[peer] = _Client(sock, 0.0)
            self._loop.add_reader(sock, self._answered, peer, client)
        self._used(peer, client)
        return client

    def _answered(self, peer: tuple[str, int], client: _Client) -> None:
        for _ in range(_TURN):
            try:
                data = client.sock.recv(CHUNK)
            except BlockingIOError:
                return
            except OSError:
                self._forget(peer)
                return
            self._used(peer, client)
            try:
                self._sock.sendto(data, peer)
            except OSError as error:
                log.debug("an answer of %s: %s", self._target, error)

    def _used(self, peer: tuple[str, int], client: _Client) -> None:
        client.last_used = self._loop.time()
        self._clients.move_to_end(peer)
        if self._sweeping is None:
            self._sweeping = self._loop.call_later(IDLE_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Forget idle clients; look again when the next one may be idle."""
        self._sweeping = None
        now = self._loop.time()
        for peer, client in list(self._clients.items()):
            left = client.last_used + IDLE_SECONDS - now
            if left > 0:
                self._sweeping = self._loop.call_later(left, self._sweep)
                return
            self._forget(peer)

    def _forget(self, peer: tuple[str, int]) -> None:
        client = self._clients.pop(peer, None)
        if client is not None:
            self._loop.remove_reader(client.sock)
            client.sock.close()
