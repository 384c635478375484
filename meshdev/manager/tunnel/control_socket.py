"""The container *control* as the container *tunnel* sees it: a SEQPACKET unix socket in their shared folder.

Whoever connects is sent everything there is, as fast as it reads, and every change; what waits for a slow reader is
replaced by what is newer (its key is the same). Nobody in there holds up the tunnel, and nothing grows without bound.
"""

import logging
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from meshdev.errors import ProtocolError
from meshdev.manager.outbox import Outbox
from meshdev.pump.loop import READABLE, WRITABLE, Loop
from meshdev.wire.manager import MAX_DATAGRAM, Seen, ToControl, ToTunnel, decode_to_tunnel, encode

log = logging.getLogger(__name__)

SOCKET_PATH: Final = Path("/run/meshdev/tunnel.sock")
#: The container *control* has another uid and this one no CAP_CHOWN: who may connect is decided by the folder, an
#: emptyDir that only these two containers mount.
SOCKET_MODE: Final = 0o666
MAX_CONNECTIONS: Final = 4
#: Keys of changes that may wait for one connection; one more ends it, and the next is sent all anew.
MAX_WAITING: Final = 8192
#: Datagrams taken from one connection in one turn of the loop, and sent of all there is.
_TURN: Final = 32

Snapshot = Callable[[], Iterable[tuple[str, ToControl]]]


class ControlSocket:
    """All connections; belongs to the loop's thread."""

    def __init__(self, loop: Loop, path: Path = SOCKET_PATH) -> None:
        path.unlink(missing_ok=True)
        self._loop = loop
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._server.bind(str(path))
        path.chmod(SOCKET_MODE)
        self._server.listen(MAX_CONNECTIONS)
        self._server.setblocking(False)
        self._connections: list[_ControlConnection] = []
        self._snapshot: Snapshot = lambda: ()
        self._take: Callable[[ToTunnel], None] = lambda _: None
        self._events = 0
        loop.register(self._server.fileno(), READABLE, self._on_accept)

    def attach(self, snapshot: Snapshot, take: Callable[[ToTunnel], None]) -> None:
        """*snapshot* is everything a new connection is sent, *take* gets what comes from any.

        It is asked for the next message when that can be sent, and then says what is true: changes come meanwhile.
        """
        self._snapshot, self._take = snapshot, take

    def send_latest(self, key: str, message: ToControl) -> None:
        """To every connection; it replaces what waits under the same *key*."""
        for connection in list(self._connections):
            connection.send_latest(key, message)

    def seen(self, event: Seen) -> None:
        """For the log of whoever is connected."""
        self._events += 1
        self.send_latest(f"seen {self._events % 256}", event)

    def close(self) -> None:
        """Close every connection and take no more."""
        if self._server.fileno() >= 0:
            self._loop.unregister(self._server.fileno())
            self._server.close()
        while self._connections:
            self._connections[0].close()

    def _on_accept(self, _events: int) -> None:
        try:
            sock, _peer = self._server.accept()
        except OSError as error:
            log.warning("a connection of control could not be accepted: %s", error)
            return
        sock.setblocking(False)
        if len(self._connections) >= MAX_CONNECTIONS:
            self._connections[0].close()
        connection = _ControlConnection(self._loop, sock, self._snapshot(), self._take, self._connections.remove)
        self._connections.append(connection)
        connection.start()


class _ControlConnection:
    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        snapshot: Iterable[tuple[str, ToControl]],
        take: Callable[[ToTunnel], None],
        on_end: Callable[["_ControlConnection"], None],
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._snapshot = iter(snapshot)
        """What it has not been sent yet of what there was."""
        self._take = take
        self._on_end = on_end
        self._outbox: Outbox[bytes] = Outbox()
        self._waits = True
        """For the moment when it is writable."""
        loop.register(sock.fileno(), READABLE | WRITABLE, self._on_event)

    def start(self) -> None:
        """Send what there is, before any change."""
        self._flush()

    def send_latest(self, key: str, message: ToControl) -> None:
        if self._sock.fileno() < 0:
            return
        self._outbox.put(key, encode(message))
        if len(self._outbox) > MAX_WAITING:
            log.warning("control does not keep up and has to begin anew")
            self.close()
        elif not self._waits:
            self._flush()

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            self._loop.unregister(self._sock.fileno())
            self._sock.close()
            self._outbox.clear()
            self._on_end(self)

    def _on_event(self, events: int) -> None:
        if events & WRITABLE:
            self._flush()
        if events & ~WRITABLE and self._sock.fileno() >= 0:
            self._receive()

    def _flush(self) -> None:
        try:
            waits = self._send()
        except BlockingIOError:
            waits = True
        except OSError:
            self.close()
            return
        if waits != self._waits:
            self._waits = waits
            self._loop.modify(self._sock.fileno(), READABLE | WRITABLE if waits else READABLE)

    def _send(self) -> bool:
        """All changes, then a part of the rest; whether there is more of it."""
        self._outbox.drain(self._sock.send)
        for _ in range(_TURN):
            item = next(self._snapshot, None)
            if item is None:
                return False
            self._outbox.put(item[0], encode(item[1]))
            self._outbox.drain(self._sock.send)
        return True

    def _receive(self) -> None:
        try:
            for _ in range(_TURN):
                size = self._sock.recv_into(self._loop.scratch, MAX_DATAGRAM + 1)
                if not 0 < size <= MAX_DATAGRAM:
                    self.close()
                    return
                self._take(decode_to_tunnel(bytes(self._loop.scratch[:size])))
        except BlockingIOError:
            pass
        except (OSError, ProtocolError) as error:
            log.warning("a connection of control is ended: %s", error)
            self.close()
