"""Notifications of the kernel about links, addresses and routes: rtnetlink(7)."""

import socket
from types import TracebackType
from typing import Final, Self

from meshdev.netlink.lookups import ROUTE_GROUPS, concerns
from meshdev.netlink.messages import replies

_READ_BYTES: Final = 1 << 18
#: Datagrams read at a time: many changes on the machine must not keep the reader busy for ever.
_TURN: Final = 256


class Changes:
    """A subscription to them. Not thread-safe. Needs no privilege."""

    def __init__(self) -> None:
        """Subscribe. Raises OSError where the kernel has no such socket."""
        self._sock = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self._sock.bind((0, ROUTE_GROUPS))
        #: Grows with every read: while it is the same, nothing has changed.
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def fileno(self) -> int:
        """Readable when there are notifications."""
        return self._sock.fileno()

    def take(self, index: int | None) -> bool:
        """Read what is pending; whether any of it may mean a loss for the device with that index.

        Also true where the kernel dropped notifications because there were too many.
        """
        found = False
        for _ in range(_TURN):
            try:
                data = self._sock.recv(_READ_BYTES)
            except BlockingIOError:
                return found
            except OSError:  # ENOBUFS: the kernel dropped some
                self.count += 1
                found = True
                continue
            self.count += 1
            if index is not None and not found:
                found = any(concerns(reply.kind, reply.body, index) for reply in replies(data))
        return found

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()
