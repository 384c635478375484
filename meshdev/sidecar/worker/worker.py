"""The loop of the passthrough proxy: accepts connections on the listeners it is given, and connects each to its app."""

import errno
import logging
import os
import socket
from collections import Counter
from contextlib import suppress
from typing import Final, NamedTuple

from meshdev.pump.loop import READABLE, Loop
from meshdev.sidecar.passthrough.heads import Reason
from meshdev.sidecar.worker.client_ports import Address
from meshdev.sidecar.worker.connection import ClientConnection
from meshdev.sidecar.worker.dialling import AppDialler
from meshdev.sidecar.worker.port import PassthroughPort
from meshdev.sidecar.worker.recorder import Recorder

log = logging.getLogger(__name__)

#: Connections that are accepted before others have their turn.
_AT_ONCE: Final = 64
#: How long nobody is accepted where descriptors or memory are used up, in seconds. The listener's queue keeps them.
FULL_SECONDS: Final = 0.1
#: Between two warnings about that.
_WARN_SECONDS: Final = 10.0
_FULL: Final = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
#: A head that is not complete within this time passes without being inspected, in seconds.
HEAD_SECONDS: Final = 2.0
#: Descriptors that a connection may need: the client's, the app's and Envoy's.
_OF_ONE: Final = 3
#: Those of the process itself: listeners of as many ports as can be claimed (``wire.agent``), sockets that are not yet
#: used (a message of them), and a few more.
_OWN_DESCRIPTORS: Final = 600
#: Bytes that all connections hold back together: with more, the one that has the newest is raw from then on.
MAX_HELD: Final = 32 << 20
#: What is read at a time, and kept where the other side does not take it. A large body takes a quarter more CPU with
#: 64 KiB, and a fifth less with 256 KiB.
PIECE_BYTES: Final = 128 << 10
#: With more connections than fill this with their pieces each reads less: all of them may be held up at once.
PIECES_BYTES: Final = 64 << 20
_LEAST_PIECE_BYTES: Final = 8 << 10


class _HeldBytes(NamedTuple):
    size: int
    heads: int
    since: float


_NOTHING: Final = _HeldBytes(0, 0, 0.0)


class PassthroughWorker:
    """All connections of one loop. Everything belongs to the loop's thread."""

    def __init__(self, loop: Loop, descriptors: int = 1 << 20, queue: socket.socket | None = None) -> None:
        """*descriptors*: how many the process may have (RLIMIT_NOFILE, getrlimit(2)). *queue*: of sockets with clients'
        addresses (:mod:`~meshdev.sidecar.worker.dialling`); it stays its owner's."""
        self.loop: Final = loop
        self.piece = loop.scratch[:PIECE_BYTES]
        """Where connections read, as much as each may keep now."""
        self.dialler: Final = AppDialler(queue, loop.clock)
        """What connects them to the app."""
        self.accepted = 0
        """Connections."""
        self.reasons: Final[Counter[Reason]] = Counter()
        """How many connections were followed no further, and why."""
        self.unserved = 0
        """Claims that went to the app, because Envoy was not there."""
        self.errors = 0
        """Connections that an internal error ended."""
        self._open: Counter[PassthroughPort] = Counter()
        self._warned = -_WARN_SECONDS
        self._most = max((descriptors - _OWN_DESCRIPTORS) // _OF_ONE, _AT_ONCE)
        self._connections: set[ClientConnection] = set()
        self.recorder: Final = Recorder(loop, self._connections)
        """Who is told of requests, while somebody watches."""
        self._listeners: dict[socket.socket, PassthroughPort] = {}
        self._paused: set[socket.socket] = set()
        self._holding: dict[ClientConnection, _HeldBytes] = {}
        self._held = 0
        self._sweep()

    @property
    def open(self) -> int:
        """Connections that are not over."""
        return len(self._connections)

    def open_on(self, port: PassthroughPort) -> int:
        """Those of one port. Where the app is about to end, without those that only wait for the client to close, or
        whose client takes nothing more: the pod need not wait for clients that keep a closed connection in a pool."""
        if port.draining:
            return sum(each.port is port and not each.client_has_all for each in self._connections)
        return self._open[port]

    def listen(self, listener: socket.socket, port: PassthroughPort) -> None:
        """Accept from *listener*, which does not block and stays its owner's."""
        self._listeners[listener] = port
        self._accept_from(listener)

    def ignore(self, listener: socket.socket) -> None:
        """Accept no more from it; its connections go on."""
        if self._listeners.pop(listener, None) is not None:
            with suppress(KeyError):  # nobody is accepted just now
                self.loop.unregister(listener.fileno())

    def accept_waiting(self) -> None:
        """Accept those that wait in the listeners' queues, as far as that is possible now."""
        for listener in self._listeners.keys() - self._paused:
            self._accept(listener)

    def drain(self, port: PassthroughPort) -> None:
        """The app of that port is about to end."""
        for connection in [each for each in self._connections if each.port is port]:
            connection.drain()

    def close(self) -> None:
        """Accept no more, and reset the open connections."""
        for listener in list(self._listeners):
            self.ignore(listener)
        for connection in list(self._connections):
            connection.kill()
        self.dialler.close()

    # Events of connections

    def raw(self, reason: Reason) -> None:
        """One is followed no further."""
        self.reasons[reason] += 1

    def held(self, connection: ClientConnection, size: int, heads: int) -> None:
        """So many bytes are held back of it now, behind so many heads that were complete."""
        before = self._holding.pop(connection, _NOTHING)
        self._held += size - before.size
        if size:
            since = before.since if before.size and before.heads == heads else self.loop.clock()
            self._holding[connection] = _HeldBytes(size, heads, since)
        if self._held > MAX_HELD and size > before.size:
            self.loop.call_later(0, connection.late)

    def without_envoy(self) -> None:
        """A claim goes to the app."""
        self.unserved += 1

    def failed(self) -> None:
        """One ends by an internal error."""
        self.errors += 1

    def closed(self, connection: ClientConnection) -> None:
        """It is over."""
        if connection in self._connections:
            self._connections.remove(connection)
            self._open[connection.port] -= 1
            self._share()

    # What the loop does

    def _accept_from(self, listener: socket.socket) -> None:
        self._paused.discard(listener)
        if listener in self._listeners:
            self.loop.register(listener.fileno(), READABLE, lambda _events: self._accept(listener))

    def _accept(self, listener: socket.socket) -> None:
        port = self._listeners[listener]
        for _ in range(_AT_ONCE):
            if len(self._connections) >= self._most:
                self._pause(listener, os.strerror(errno.EMFILE))
                return
            try:
                client, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _FULL:
                    self._pause(listener, str(error.strerror))
                    return
                continue  # of a connection that is gone already (accept(2))
            client.setblocking(False)
            self._join(client, address, port)

    def _join(self, client: socket.socket, address: Address, port: PassthroughPort) -> None:
        self.accepted += 1
        try:
            connection = ClientConnection(client, address, port, self)
        except Exception:
            log.exception("a connection is not served")
            self.failed()
            client.close()
            return
        if not connection.closed:
            self._connections.add(connection)
            self._open[port] += 1
            self._share()

    def _share(self) -> None:
        """The size of a piece, after a connection has come or gone."""
        size = PIECES_BYTES // max(len(self._connections), 1)
        size = max(_LEAST_PIECE_BYTES, min(PIECE_BYTES, size))
        if size != len(self.piece):
            self.piece = self.loop.scratch[:size]

    def _pause(self, listener: socket.socket, reason: str) -> None:
        if (now := self.loop.clock()) - self._warned >= _WARN_SECONDS:
            self._warned = now
            log.warning("connections are not accepted for a while: %s", reason)
        self._paused.add(listener)
        self.loop.unregister(listener.fileno())
        self.loop.call_later(FULL_SECONDS, lambda: self._accept_from(listener))

    def _sweep(self) -> None:
        """What is held for too long passes."""
        until = self.loop.clock() - HEAD_SECONDS
        for connection in [connection for connection, held in self._holding.items() if held.since <= until]:
            connection.late()
        self.dialler.sweep()
        self.loop.call_later(HEAD_SECONDS / 8, self._sweep)
