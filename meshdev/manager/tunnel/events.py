"""What the container *control* hears of the container *tunnel*: JSON lines over a unix socket in their shared folder.

A listener that does not keep up loses events, never the tunnel its time.
"""

import json
import logging
import socket
from pathlib import Path
from typing import Final

from meshdev.pump.loop import READABLE, Loop

log = logging.getLogger(__name__)

SOCKET_PATH: Final = Path("/run/meshdev/tunnel.sock")
#: The container *control* has another uid and this one no CAP_CHOWN: who may connect is said by the folder, an
#: emptyDir that only these two containers mount.
SOCKET_MODE: Final = 0o666
MAX_LISTENERS: Final = 4


class Events:
    """Publishes events to whoever is connected; belongs to the loop's thread."""

    def __init__(self, loop: Loop, path: Path = SOCKET_PATH) -> None:
        path.unlink(missing_ok=True)
        self._loop = loop
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._server.bind(str(path))
        path.chmod(SOCKET_MODE)
        self._server.listen(MAX_LISTENERS)
        self._server.setblocking(False)
        self._listeners: list[socket.socket] = []
        loop.register(self._server.fileno(), READABLE, self._on_accept)

    def publish(self, event: dict[str, str]) -> None:
        """One event to every listener."""
        line = json.dumps(event).encode()
        for listener in list(self._listeners):
            try:
                listener.send(line)
            except BlockingIOError:
                log.warning("a listener missed the event %s", event["event"])
            except OSError:
                self._listeners.remove(listener)
                listener.close()

    def close(self) -> None:
        """End every listener and take no more."""
        if self._server.fileno() >= 0:
            self._loop.unregister(self._server.fileno())
            self._server.close()
        while self._listeners:
            self._listeners.pop().close()

    def _on_accept(self, _events: int) -> None:
        try:
            listener, _peer = self._server.accept()
        except OSError as error:
            log.warning("a listener could not be accepted: %s", error)
            return
        listener.setblocking(False)
        if len(self._listeners) >= MAX_LISTENERS:
            self._listeners.pop(0).close()
        self._listeners.append(listener)
