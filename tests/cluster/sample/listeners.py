"""TCP listeners that can be drained: accept in a thread, serve each connection in its own."""

import ctypes
import os
import select
import socket
import struct
import threading
from collections.abc import Callable

#: asm-generic/socket.h, linux/bpf_common.h
_SO_ATTACH_FILTER = 26
_BPF_RET = 0x06
Handler = Callable[[socket.socket], None]


class Listener:
    """Accepts on PORT (both families, every address) and calls HANDLER with each connection in a thread.

    HANDLER owns the connection until it returns; then it is closed here, whatever happened.
    """

    def __init__(self, port: int, handler: Handler, host: str = "") -> None:
        self._handler = handler
        self._connections: set[socket.socket] = set()
        self._idle = threading.Condition()
        self._stopping, self._stop = os.pipe()
        self._socket = _bind(host, port)
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        stopping, either = False, (self._socket.fileno(), self._stopping)
        while not stopping:
            ready, _, _ = select.select(either, [], [])
            stopping = self._stopping in ready
            if stopping:
                _drop_new(self._socket)
            while self._accept_one():
                pass
        self._socket.close()

    def _accept_one(self) -> bool:
        try:
            connection, _ = self._socket.accept()
        except OSError:
            return False  # none is left (or it went away meanwhile: select tells of others)
        connection.setblocking(True)
        with self._idle:
            self._connections.add(connection)
        threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
        return True

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
        """New connections are refused from now on; those that the kernel has taken are served.

        One that comes in between is dropped, and refused when it tries again: closing the socket would reset what the
        kernel took after the last accept(), and with it a request that may have come already.
        """
        os.write(self._stop, b".")
        self._accepting.join()

    def wait_idle(self, seconds: float) -> bool:
        """Wait until no connection is left; False when some are after SECONDS."""
        with self._idle:
            return self._idle.wait_for(lambda: not self._connections, seconds)


def _drop_new(listener: socket.socket) -> None:
    """A filter that lets nothing in (SO_ATTACH_FILTER, socket(7); struct sock_fprog in linux/filter.h)."""
    nothing = ctypes.create_string_buffer(struct.pack("@HBBI", _BPF_RET, 0, 0, 0))
    listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", 1, ctypes.addressof(nothing)))


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET if host and ":" not in host else socket.AF_INET6
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind((host or "::", port))
    listener.listen(1024)
    return listener
