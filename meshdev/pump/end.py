"""One socket of a connection: what it has not taken yet, and how far it has ended."""

import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Final

#: Of the loop: the socket is not registered.
NOT_WATCHED: Final = -1
#: How long a client may take nothing of what it is still to get, once the other side is gone, in seconds. Without a
#: sidecar the app's kernel gives up what a closed socket has left to send after 6 minutes at most: tcp_orphan_retries
#: (ip-sysctl), and where the client has no room once two probes would be more than 120 s apart.
ABANDONED_SECONDS: Final = 360.0
#: How long it may acknowledge nothing of that before it is closed, or reset, all the same, in seconds.
UNACKNOWLEDGED_SECONDS: Final = 5.0
_ACKED_AND_RECEIVED: Final = slice(120, 136)  # tcpi_bytes_acked, tcpi_bytes_received
_TCP_CLOSE: Final = 7  # include/net/tcp_states.h
_RESET: Final = struct.pack("ii", 1, 0)  # struct linger: a close sends a reset (socket(7))
_ORDERLY: Final = struct.pack("ii", 0, 0)


class SocketEnd:
    """A non-blocking socket, which whoever made it closes by :meth:`close`. *out* is what it has not taken yet."""

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
        """Bytes that the other end's kernel has not acknowledged, our end of stream as one (tcp(7), SIOCOUTQ)."""
        size = int.from_bytes(fcntl.ioctl(self.fd, termios.TIOCOUTQ, b"\0\0\0\0"), "little")
        if size and self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE:
            return 0  # it was reset: nothing more will come
        return size

    @property
    def carried(self) -> tuple[int, int]:
        """Bytes of a TCP connection that were read, and those that it took, as its kernel has counted (linux/tcp.h,
        struct tcp_info): an end of stream is counted as one. (0, 0) where a sandbox's kernel does not count."""
        info = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED_AND_RECEIVED.stop)
        if len(info) < _ACKED_AND_RECEIVED.stop:
            return 0, 0
        acknowledged, received = struct.unpack("QQ", info[_ACKED_AND_RECEIVED])
        unread = int.from_bytes(fcntl.ioctl(self.fd, termios.FIONREAD, b"\0\0\0\0"), "little")
        ended = self.ended and not self.broken
        return max(0, received - unread - ended), max(0, acknowledged + self.unacknowledged - self.finished)

    def limit(self) -> None:
        """From now on it fails after :data:`ABANDONED_SECONDS` in which it takes nothing (TCP_USER_TIMEOUT, tcp(7)):
        the kernel would ask it for room for ever."""
        with suppress(OSError):  # it was reset, which is read
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(ABANDONED_SECONDS * 1000))

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

    def close(self, *, reset: bool) -> None:
        if reset:
            with suppress(OSError):  # a unix socket has none
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        elif self.abortive:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ORDERLY)
        self.sock.close()


class Delivery:
    """How what is left for one end is going. To be asked now and then while its socket is open."""

    __slots__ = ("_clock", "_end", "_left", "_since")

    def __init__(self, end: SocketEnd, clock: Callable[[], float]) -> None:
        """*clock* is in seconds."""
        self._end = end
        self._clock = clock
        self._left = -1
        self._since = 0.0

    @property
    def pending(self) -> bool:
        """Whether something is left, and some of it was acknowledged in the last :data:`UNACKNOWLEDGED_SECONDS`, as
        far as this was asked."""
        left, now = len(self._end.out) + self._end.unacknowledged, self._clock()
        if left != self._left:
            self._left, self._since = left, now
        return left > 0 and now - self._since < UNACKNOWLEDGED_SECONDS
