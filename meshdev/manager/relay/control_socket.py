"""The container *control* as the relay sees it: a SEQPACKET unix socket in a folder that only these two mount.

Whoever connects takes the place of who was connected before, is sent the request for a certificate, and sends all
that there is. While nobody is connected the last state holds.
"""

import logging
import socket
from pathlib import Path
from typing import Final

from meshdev.errors import ProtocolError
from meshdev.manager.relay.server import RelayServer
from meshdev.pump.loop import READABLE, Loop
from meshdev.wire.relay import MAX_DATAGRAM, decode_to_relay, encode

log = logging.getLogger("meshdev.manager.relay")

SOCKET_PATH: Final = Path("/run/meshdev/relay.sock")
#: Control has another uid: who may connect is decided by the folder.
SOCKET_MODE: Final = 0o666
#: Datagrams taken in one turn of the loop. Those with 1,056 keys take half a millisecond each.
_TURN: Final = 16


class RelayControlSocket:
    """Takes what control sends to the *relay*. Belongs to the loop's thread."""

    def __init__(self, loop: Loop, relay: RelayServer, path: Path = SOCKET_PATH) -> None:
        """Raises OSError where the folder is not there, or may not be written."""
        path.unlink(missing_ok=True)
        self._loop = loop
        self._relay = relay
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._server.bind(str(path))
        path.chmod(SOCKET_MODE)
        self._server.listen(2)
        self._control: socket.socket | None = None
        loop.register(self._server.fileno(), READABLE, self._on_accept)

    def close(self) -> None:
        """Take no more."""
        self._drop()
        self._loop.unregister(self._server.fileno())
        self._server.close()

    def _on_accept(self, _events: int) -> None:
        try:
            control, _ = self._server.accept()
        except OSError as error:
            log.warning("a connection of control could not be accepted: %s", error)
            return
        control.setblocking(False)
        self._drop()
        self._control = control
        self._loop.register(control.fileno(), READABLE, self._on_readable)
        self._relay.control_connected()
        try:
            control.send(encode(self._relay.request()))
        except OSError as error:
            self._lost(str(error))

    def _on_readable(self, _events: int) -> None:
        try:
            for _ in range(_TURN):
                if self._control is None:
                    return
                size = self._control.recv_into(self._loop.scratch, MAX_DATAGRAM + 1)
                if not 0 < size <= MAX_DATAGRAM:
                    self._lost("it has closed" if not size else "a datagram is too long")
                    return
                self._relay.take(decode_to_relay(bytes(self._loop.scratch[:size])))
        except BlockingIOError:
            pass
        except (OSError, ProtocolError) as error:
            self._lost(str(error))

    def _lost(self, reason: str) -> None:
        log.warning("control is away, its last state holds: %s", reason)
        self._drop()

    def _drop(self) -> None:
        if self._control is not None:
            self._loop.unregister(self._control.fileno())
            self._control.close()
            self._control = None
