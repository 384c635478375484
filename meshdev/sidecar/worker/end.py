"""One socket of a connection: what it has not taken yet, and how far it has ended."""

import fcntl
import socket
import termios
from contextlib import suppress
from typing import Final

#: Of the loop: the socket is not registered.
NOT_WATCHED: Final = -1


class SocketEnd:
    """A non-blocking socket, which whoever made it closes. *out* is what it has not taken yet."""

    __slots__ = (
        *("abortive", "broken", "connecting", "ended", "events", "fd"),
        *("finished", "finishing", "out", "parked", "sock"),
    )

    def __init__(self, sock: socket.socket, *, abortive: bool = False) -> None:
        self.sock = sock
        self.abortive = abortive  # closing it sends a reset unless it is told otherwise
        self.fd = sock.fileno()
        self.events = NOT_WATCHED
        self.out = b""
        self.connecting = False
        self.ended = False  # it sends no more
        self.finishing = self.finished = False  # we send no more
        self.broken = False  # it takes no more
        self.parked = False  # epoll reports nothing new until it is read

    @property
    def closed(self) -> bool:
        """Whether it is closed at the other side: what is sent there from now on is answered by a reset."""
        return self.ended and self.broken

    @property
    def unacknowledged(self) -> int:
        """Bytes that the other end's kernel has not acknowledged (tcp(7), SIOCOUTQ)."""
        return int.from_bytes(fcntl.ioctl(self.fd, termios.TIOCOUTQ, b"\0\0\0\0"), "little")

    def replace(self, sock: socket.socket) -> None:
        """Take another socket, which is not watched, for one that never connected."""
        self.sock, self.fd, self.events = sock, sock.fileno(), NOT_WATCHED
        self.abortive = False

    def send(self, data: bytes | memoryview) -> None:
        if self.broken:
            return
        if self.out or self.connecting:
            self.out += data
            return
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.broken = True
            return
        if sent < len(data):
            self.out = bytes(data[sent:])

    def flush(self) -> None:
        """Go on with what was not taken."""
        out, self.out = self.out, b""
        if out:
            self.send(out)
        if self.finishing and not self.out:
            self.finish()

    def finish(self) -> None:
        self.finishing = True
        if not (self.out or self.finished or self.connecting):
            self.finished = True
            with suppress(OSError):  # it was reset, which is read
                self.sock.shutdown(socket.SHUT_WR)
