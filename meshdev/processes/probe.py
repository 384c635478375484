"""Whether a program on this machine takes connections, or answers HTTP: asked again and again, without waiting."""

import contextlib
import errno
import re
import selectors
import socket
import time
from collections.abc import Callable
from typing import Final

#: Between two attempts, and the longest that one may take.
PAUSE_SECONDS: Final = 0.1
ATTEMPT_SECONDS: Final = 5.0

#: A status line is short (RFC 9112, 4).
_MAX_STATUS: Final = 4096


class ReadinessProbe:
    """Attempts until one succeeds; then *succeeded* is called, once. Sockets are those of *selector*.

    *path*: what is asked for by HTTP, where 2xx and 3xx are a success; None: a connection is one.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        host: str,
        port: int,
        path: str | None,
        succeeded: Callable[[], None],
    ) -> None:
        self._selector = selector
        self._host = host
        self._port = port
        self._path = path
        self._succeeded = succeeded
        self._socket: socket.socket | None = None
        self._answer = b""
        self._due = time.monotonic()

    def due(self) -> float:
        """When :meth:`tick` has something to do."""
        return self._due

    def tick(self) -> None:
        """Begin an attempt, or give up one that takes too long."""
        if time.monotonic() < self._due:
            return
        if self._socket is not None:
            self._again()
            return
        self._due = time.monotonic() + ATTEMPT_SECONDS
        self._answer = b""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            self._socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError:  # a kernel without IPv6: nothing answers there
            self._again()
            return
        if self._socket.connect_ex((self._host, self._port)) not in (0, errno.EINPROGRESS):
            self._again()
            return
        self._selector.register(self._socket, selectors.EVENT_WRITE, self._on_connected)

    def close(self) -> None:
        """End the attempt."""
        if self._socket is not None:
            with contextlib.suppress(KeyError):
                self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None

    def _on_connected(self) -> None:
        if self._socket is None:
            return
        if self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._again()
        elif self._path is None:
            self._success()
        else:
            host = f"[{self._host}]" if ":" in self._host else self._host
            head = f"GET {self._path} HTTP/1.1\r\nHost: {host}:{self._port}\r\nUser-Agent: meshdev\r\n"
            self._send(f"{head}Accept: */*\r\nConnection: close\r\n\r\n".encode("ascii"))

    def _send(self, request: bytes) -> None:
        """It fits into the buffer of a new socket."""
        if self._socket is None:
            return
        try:
            self._socket.sendall(request)
        except OSError:
            self._again()
        else:
            self._selector.modify(self._socket, selectors.EVENT_READ, self._on_answer)

    def _on_answer(self) -> None:
        if self._socket is None:
            return
        try:
            data = self._socket.recv(_MAX_STATUS)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._answer += data
        line, end, _ = self._answer.partition(b"\n")
        if end and is_success(line):
            self._success()
        elif end or not data or len(line) > _MAX_STATUS:
            self._again()

    def _success(self) -> None:
        self.close()
        self._due = float("inf")
        self._succeeded()

    def _again(self) -> None:
        self.close()
        self._due = time.monotonic() + PAUSE_SECONDS


def is_success(line: bytes) -> bool:
    """Whether the status line of an answer is one of 2xx or 3xx (RFC 9112, 4)."""
    return re.match(rb"HTTP/1\.[01] [23][0-9]{2}(?![0-9])", line) is not None


def listens(host: str, port: int) -> bool:
    """Whether a program takes connections there now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.settimeout(1.0)
            return probe.connect_ex((host, port)) == 0
    except OSError:
        return False
