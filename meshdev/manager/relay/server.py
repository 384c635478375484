"""All connections of the relay: accepts them, keeps their limits, and ends them where their permission is withdrawn."""

import errno
import functools
import logging
import socket
from collections import Counter
from typing import Final

from meshdev.identity.fingerprints import fingerprint
from meshdev.identity.keys import KeyPair
from meshdev.manager.relay.admission import Admission
from meshdev.manager.relay.connection import RelayConnection
from meshdev.manager.relay.notices import Notices
from meshdev.manager.relay.permissions import Permissions
from meshdev.manager.relay.tls import MAX_RECORD, RECORD_OVERHEAD, RelayTls
from meshdev.pump.end import SocketEnd
from meshdev.pump.loop import READABLE, Loop
from meshdev.wire.relay import RelayIdentity, RelaySigningRequest, RelaysSynced, ToRelay

log = logging.getLogger("meshdev.manager.relay")

#: From accept() to the end of the handshake, in seconds.
HANDSHAKE_SECONDS: Final = 5.0
#: How long connections of a relay that was removed may go on, in seconds: the claim is over, and Envoys learn of it
#: after us. Requests that are on their way then are answered; as long as Envoy drains a listener.
DRAIN_SECONDS: Final = 25.0
#: How long nobody is accepted where descriptors or memory are used up, in seconds. The listener's queue keeps them.
FULL_SECONDS: Final = 0.1
#: Descriptors of the process itself, and of a connection.
_OWN_DESCRIPTORS: Final = 64
_OF_ONE: Final = 2
#: Connections that are accepted before others have their turn. With 64 a flood of garbage (10,000 a second) delays a
#: request on an open connection by 9 ms, with 4 by nothing that is seen.
_AT_ONCE: Final = 4
#: Connections at a time, where there are next to no descriptors.
_LEAST: Final = 64
#: Between two looks at deadlines and at silent laptops, in seconds.
_SWEEP_SECONDS: Final = 0.25
#: What is read at a time, and kept where the other side does not take it.
PIECE_BYTES: Final = 64 << 10
#: With more connections than fill this with their pieces each reads less: all of them may be held up at once.
_PIECES_BYTES: Final = 64 << 20
_LEAST_PIECE_BYTES: Final = 16 << 10
_FULL: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class RelayServer:
    """Everything belongs to the loop's thread. *listener* stays its owner's."""

    def __init__(
        self,
        loop: Loop,
        listener: socket.socket,
        key: KeyPair,
        *,
        descriptors: int,
        admission: Admission[RelayConnection] | None = None,
    ) -> None:
        """*descriptors*: how many the process may have (RLIMIT_NOFILE, getrlimit(2))."""
        self.loop: Final = loop
        self.piece = loop.scratch[:PIECE_BYTES]
        self.plain: Final = memoryview(bytearray(PIECE_BYTES + MAX_RECORD + RECORD_OVERHEAD))
        self.permissions: Final = Permissions()
        self.tls: RelayTls | None = None
        self._key: Final = key
        self._identity: RelayIdentity | None = None
        self._listener = listener
        self._accepting = False
        self.most: Final = max((descriptors - _OWN_DESCRIPTORS) // _OF_ONE, _LEAST)
        """Connections at a time."""
        self._most_of_key = self.most // 2
        self._connections: set[RelayConnection] = set()
        self._by_relay: dict[int, set[RelayConnection]] = {}
        self._of_key: Counter[str | None] = Counter()
        self._admission: Admission[RelayConnection] = Admission() if admission is None else admission
        self._notices = Notices(loop)
        self._closed = False
        self._accept_again()
        self._sweep()

    @property
    def open(self) -> int:
        """Connections that are not over."""
        return len(self._connections)

    def close(self) -> None:
        """Accept no more, and reset the open connections."""
        self._closed = True
        self._pause()
        for connection in list(self._connections):
            connection.reset()
        self._notices.close()

    # What control sends

    def request(self) -> RelaySigningRequest:
        """What control is asked for."""
        return RelaySigningRequest(self._key.request())

    def control_connected(self) -> None:
        """It will send everything."""
        self.permissions.begin()

    def take(self, message: ToRelay) -> None:
        """Control's state, or a part of it. Connections of keys that it no longer permits end now, those of a relay
        that is removed after :data:`DRAIN_SECONDS`."""
        if isinstance(message, RelayIdentity):
            self._certify(message)
            return
        for relay in self.permissions.take(message):
            self._withdraw(relay)
        if isinstance(message, RelaysSynced):
            log.info("control has sent everything: %d relays", len(self.permissions))

    def _certify(self, identity: RelayIdentity) -> None:
        if identity == self._identity:
            return
        try:
            self.tls = RelayTls(self._key.private_pem, identity)
        except OSError as error:  # ssl.SSLError is one
            log.error("control's certificate cannot be used: %s", error)  # noqa: TRY400 -- the sentence says it
            return
        self._identity = identity
        log.info("control has issued a certificate; the authority's is %s", fingerprint(identity.authority))

    def _withdraw(self, relay: int) -> None:
        if self.permissions.address(relay) is None:
            self.loop.call_later(DRAIN_SECONDS, functools.partial(self._end, relay))
        else:
            self._end(relay)

    def _end(self, relay: int) -> None:
        """Whatever is not permitted, or not again."""
        connections = self._by_relay.get(relay, set())
        over = [each for each in connections if not self.permissions.permits(relay, each.address, each.key)]
        for connection in over:
            connection.reset()
        if over:
            log.info("relay %d: %d connections are closed, they are no longer permitted", relay, len(over))

    # Events of connections

    def chosen(self, connection: RelayConnection) -> None:
        """It has a relay and an address now."""
        self._by_relay.setdefault(connection.relay, set()).add(connection)

    def authenticated(self, connection: RelayConnection) -> bool:
        """It has a permitted key. Whether there is room for one more of that key."""
        self._admission.leave(connection)
        if self._of_key[connection.key] >= self._most_of_key:
            return False
        self._of_key[connection.key] += 1
        return True

    def refused(self, connection: RelayConnection, reason: str) -> None:
        """It ends before it was one for its client."""
        self._notices.warn("refused", f"{connection.source} is refused: {reason}")

    def closed(self, connection: RelayConnection) -> None:
        """It is over."""
        self._connections.discard(connection)
        self._admission.leave(connection)
        others = self._by_relay.get(connection.relay)
        if others is not None:
            others.discard(connection)
            if not others:
                del self._by_relay[connection.relay]
        if connection.counted:
            self._of_key[connection.key] -= 1
            if not self._of_key[connection.key]:
                del self._of_key[connection.key]
        self._share()

    # What the loop does

    def _accept_again(self) -> None:
        if not self._accepting and not self._closed:
            self._accepting = True
            self.loop.register(self._listener.fileno(), READABLE, self._on_accept)

    def _pause(self) -> None:
        if self._accepting:
            self._accepting = False
            self.loop.unregister(self._listener.fileno())

    def _on_accept(self, _events: int) -> None:
        for _ in range(_AT_ONCE):
            try:
                client, (source, _port) = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _FULL:
                    self._notices.warn("full", f"connections are not accepted for a while: {error.strerror}")
                    self._pause()
                    self.loop.call_later(FULL_SECONDS, self._accept_again)
                    return
                continue  # of a connection that is gone already (accept(2))
            self._admit(client, source)

    def _admit(self, client: socket.socket, source: str) -> None:
        client.setblocking(False)
        if len(self._connections) >= self.most:
            self._notices.warn("most", f"{source} is refused: {self.most} connections are open")
            SocketEnd(client).close(reset=True)
            return
        try:
            connection = RelayConnection(client, source, self)
        except OSError as error:  # epoll has a limit of its own (epoll_ctl(2), ENOSPC)
            self._notices.warn("full", f"{source} is refused: {error.strerror}")
            SocketEnd(client).close(reset=True)
            return
        self._connections.add(connection)
        self._share()
        out = self._admission.enter(source, connection)
        if out is not None:
            self._notices.warn("handshakes", f"{out.source} is refused: too many connections are in their handshake")
            out.reset()

    def _share(self) -> None:
        """The size of a piece, after a connection has come or gone."""
        size = max(_LEAST_PIECE_BYTES, min(PIECE_BYTES, _PIECES_BYTES // max(len(self._connections), 1)))
        if size != len(self.piece):
            self.piece = self.loop.scratch[:size]

    def _sweep(self) -> None:
        if self._closed:
            return
        late = self.loop.clock() - HANDSHAKE_SECONDS
        while (oldest := self._admission.oldest()) is not None and oldest.started <= late:
            self.refused(oldest, f"no handshake in {HANDSHAKE_SECONDS:g} s")
            oldest.reset()
        for connection in list(self._connections):
            connection.check_laptop()
        self.loop.call_later(_SWEEP_SECONDS, self._sweep)
