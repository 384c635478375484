"""TCP listeners that can be drained: accept in a thread, serve each connection in its own."""

import contextlib
import socket
import threading
from collections.abc import Callable

Handler = Callable[[socket.socket], None]


class Listener:
    """Accepts on PORT (both families, every address) and calls HANDLER with each connection in a thread.

    HANDLER owns the connection until it returns; then it is closed here, whatever happened.
    """

    def __init__(self, port: int, handler: Handler, host: str = "") -> None:
        self._handler = handler
        self._connections: set[socket.socket] = set()
        self._idle = threading.Condition()
        self._socket = _bind(host, port)
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return  # closed by drain()
            with self._idle:
                self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._handler(connection)
        except OSError:
            pass  # the peer went away: its business
        finally:
            connection.close()
            with self._idle:
                self._connections.discard(connection)
                self._idle.notify_all()

    def stop_accepting(self) -> None:
        """New connections are refused from now on; those that exist go on."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._socket.close()

    def wait_idle(self, seconds: float) -> bool:
        """Wait until no connection is left; False when some are after SECONDS."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._connections, seconds)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET if host and ":" not in host else socket.AF_INET6
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind((host or "::", port))
    listener.listen(1024)
    return listener
