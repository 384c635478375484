"""The byte streams under a carrier: non-blocking, with the kernel's own back-pressure."""

import socket
import ssl
from typing import Protocol


class ByteTransport(Protocol):
    """A non-blocking byte stream, owned by one thread. After :meth:`close` only ``close`` may be called."""

    def fileno(self) -> int:
        """For epoll."""
        ...

    def recv_into(self, buffer: memoryview) -> int:
        """Bytes read, 0 at the end. Raises BlockingIOError when nothing is pending, OSError when it is broken."""
        ...

    def send(self, data: memoryview | bytes) -> int:
        """Bytes accepted (≥ 1). Raises BlockingIOError when the stream is full, OSError when it is broken."""
        ...

    def close(self) -> None:
        """Close at once, without waiting for the peer; a second call does nothing."""
        ...


class SocketTransport:
    """A plain TCP connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.fileno = sock.fileno
        self.recv_into = sock.recv_into
        self.send = sock.send
        self.close = sock.close


class TlsTransport:
    """A TLS connection whose handshake is done; OpenSSL's want-more errors become BlockingIOError."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.fileno = sock.fileno
        self.close = sock.close

    def recv_into(self, buffer: memoryview) -> int:
        """At most one TLS record (16 KiB) a call: OpenSSL's own limit."""
        try:
            return self._sock.recv_into(buffer)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None

    def send(self, data: memoryview | bytes) -> int:
        """At most one TLS record (16 KiB) a call: CPython sets SSL_MODE_ENABLE_PARTIAL_WRITE."""
        try:
            return self._sock.send(data)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise BlockingIOError from None
