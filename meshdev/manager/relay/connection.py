"""One connection until it is one for the client: a workload's Envoy by TLS on one side, the laptop by TCP on the other.

In this order: the ClientHello is read and answered, the client's key is looked at, the laptop is connected, and only
then our Finished is sent. Whatever goes wrong before that is a reset, which Envoy takes for a failure to connect; and
nobody whose key is not permitted reaches the laptop. What follows is :mod:`~meshdev.manager.relay.streams`.
"""

import functools
import logging
import socket
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final, Protocol

from meshdev.errors import ProtocolError
from meshdev.manager.relay.client_hello import MAX_BYTES, ClientHelloReader
from meshdev.manager.relay.legs import ERROR, HANGUP, IN_PROGRESS, laptop_socket, prepare_client, watch
from meshdev.manager.relay.permissions import Permissions
from meshdev.manager.relay.streams import RelayedStreams, StreamBuffers
from meshdev.manager.relay.tls import RelayTls, TlsStream
from meshdev.pump.end import NOT_WATCHED, SocketEnd
from meshdev.pump.loop import READABLE, WRITABLE, Timer
from meshdev.wire.relay import relay_of

log = logging.getLogger(__name__)

#: How long the laptop may take to answer, in seconds. Envoy waits for 0.5 s, and a reset is better than its timeout.
CONNECT_SECONDS: Final = 0.4


class RelayRegistry(StreamBuffers, Protocol):
    """What the connections share."""

    @property
    def permissions(self) -> Permissions:
        """What is allowed now."""

    @property
    def tls(self) -> RelayTls | None:
        """None until control has issued a certificate."""

    def chosen(self, connection: "RelayConnection") -> None:
        """It has a relay and an address now."""

    def authenticated(self, connection: "RelayConnection") -> bool:
        """Its key is permitted. Whether there is room for one more of that key."""

    def refused(self, connection: "RelayConnection", reason: str) -> None:
        """It ends before it was one for the client."""

    def closed(self, connection: "RelayConnection") -> None:
        """It is over."""


class RelayConnection:
    """Lives until both directions have ended, one side is reset, or what permits it is withdrawn."""

    __slots__ = (
        *("_client", "_closed", "_laptop", "_reader", "_registry", "_shaken", "_step", "_streams"),
        *("_timer", "address", "counted", "key", "relay", "source", "started"),
    )

    def __init__(self, client: socket.socket, source: str, registry: RelayRegistry) -> None:
        """Owns *client* from here on, which does not block; *source* is its address. Raises OSError."""
        self.source = source
        self.started = registry.loop.clock()
        self.relay = 0
        self.address = IPv4Address(0)
        """Where its relay led as it began."""
        self.key: str | None = None
        """The key id of the client, once it is known."""
        self.counted = False
        """It counts as one of its key."""
        self._registry = registry
        self._reader = ClientHelloReader()
        self._shaken = 0  # bytes of the handshake
        self._client = SocketEnd(client)
        self._laptop: SocketEnd | None = None
        self._timer: Timer | None = None
        self._streams: RelayedStreams | None = None
        self._step: Callable[[memoryview], None] = self._greet
        """What is done with bytes of the client."""
        self._closed = False
        prepare_client(client)
        self._watch_client(READABLE)

    def reset(self) -> None:
        """End it now, on both sides."""
        if self._streams is not None:
            self._streams.reset()
        elif not self._closed:
            for end in filter(None, (self._client, self._laptop)):
                watch(self._registry.loop, end, NOT_WATCHED, self._ignore)
                end.close(reset=True)
            self._over()

    def check_laptop(self) -> None:
        """To be called now and then: a laptop that acknowledges nothing is given up."""
        if self._streams is not None:
            self._streams.check_laptop()

    def _guard(self, step: Callable[..., None], *arguments: object) -> None:
        """Whatever goes wrong in *step* ends this connection only."""
        if self._closed:
            return
        try:
            step(*arguments)
        except ProtocolError as error:
            self._registry.refused(self, error.message)
            self.reset()
        except Exception:
            log.exception("a connection ends by an internal error")
            self.reset()

    # The client

    def _client_ready(self, events: int) -> None:
        client = self._client
        if events & WRITABLE:
            client.flush()
        if events & READABLE and client.events & READABLE:
            self._read()
        elif events & (ERROR | HANGUP):
            self.reset()
        if not self._closed and self._streams is None:
            self._settle()

    def _settle(self) -> None:
        """After something was sent to the client: there is little, which its socket usually takes at once."""
        client = self._client
        if client.broken:
            self.reset()
        else:
            self._watch_client(client.events & READABLE | (WRITABLE if client.out else 0))

    def _read(self) -> None:
        piece = self._registry.piece[:MAX_BYTES]
        try:
            size = self._client.sock.recv_into(piece)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if size:
            self._step(piece[:size])
        else:
            self.reset()

    def _greet(self, data: memoryview) -> None:
        """The ClientHello, or a part of it."""
        offered = self._reader.feed(data)
        if offered is None:
            return
        relay = relay_of(offered.server_name)
        address = self._registry.permissions.address(relay)
        if relay is None or address is None:
            raise ProtocolError(f"it names no relay: {(offered.server_name or b'')[:64]!r}")
        if self._registry.tls is None:
            raise ProtocolError("control has issued no certificate yet")
        self.relay, self.address = relay, address
        self._registry.chosen(self)
        self._step = functools.partial(self._shake, self._registry.tls.accept(offered))
        received, self._reader = self._reader.received, ClientHelloReader()
        self._step(memoryview(received))

    # The handshake

    def _shake(self, tls: TlsStream, data: memoryview) -> None:
        self._shaken += len(data)
        if self._shaken > 2 * MAX_BYTES:
            raise ProtocolError("its handshake is too long")
        if tls.handshake(data):
            self._authenticate(tls.peer_key())
            self._watch_client(0)
            self._dial(tls)
        else:
            self._client.send(tls.take())
            self._settle()

    def _authenticate(self, key: str) -> None:
        self.key = key
        if not self._permitted:
            raise ProtocolError(f"its key {key[:16]} is not permitted at relay {self.relay}")
        self.counted = self._registry.authenticated(self)
        if not self.counted:
            raise ProtocolError(f"its key {key[:16]} has too many connections")

    @property
    def _permitted(self) -> bool:
        return self._registry.permissions.permits(self.relay, self.address, self.key)

    # The laptop

    def _dial(self, tls: TlsStream) -> None:
        try:
            sock = laptop_socket()
        except OSError as error:
            raise ProtocolError(f"there is no socket for the laptop: {error.strerror}") from None
        laptop = self._laptop = SocketEnd(sock)
        error_number = sock.connect_ex((str(self.address), self.relay))
        if error_number in IN_PROGRESS:
            self._timer = self._registry.loop.call_later(CONNECT_SECONDS, self.reset)
            watch(
                self._registry.loop, laptop, WRITABLE, functools.partial(self._guard, self._laptop_ready, tls, laptop)
            )
        else:
            self._answered(tls, laptop, error_number)

    def _laptop_ready(self, tls: TlsStream, laptop: SocketEnd, _events: int) -> None:
        self._answered(tls, laptop, laptop.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    def _answered(self, tls: TlsStream, laptop: SocketEnd, error: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if error or not self._permitted:
            self.reset()
            return
        self._client.send(tls.take())  # our Finished
        self._open(tls, laptop)

    def _open(self, tls: TlsStream, laptop: SocketEnd) -> None:
        for end in (self._client, laptop):
            watch(self._registry.loop, end, NOT_WATCHED, self._ignore)
        self._streams = RelayedStreams(self._client, laptop, tls, self._registry, self._guard, self._over)
        self._streams.begin()

    def _watch_client(self, events: int) -> None:
        watch(self._registry.loop, self._client, events, functools.partial(self._guard, self._client_ready))

    def _ignore(self, _events: int) -> None: ...

    def _over(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._registry.closed(self)
