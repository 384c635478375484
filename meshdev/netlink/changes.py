"""News of links, addresses and routes, as the kernel tells whoever subscribes: rtnetlink(7)."""

import socket
from types import TracebackType
from typing import Final, Self

from meshdev.netlink.lookups import ROUTE_GROUPS, concerns
from meshdev.netlink.messages import replies

_READ_BYTES: Final = 1 << 18
#: Datagrams taken in one go: a machine with many changes must not keep its reader busy for ever.
_TURN: Final = 256


class Changes:
    """A subscription. Not thread-safe. Needs no right."""

    def __init__(self) -> None:
        """Raises OSError where the kernel gives no such socket."""
        self._sock = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self._sock.bind((0, ROUTE_GROUPS))
        #: Grows with whatever is read: what was seen at the same count is still so.
        self.count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def fileno(self) -> int:
        """Readable when there is news."""
        return self._sock.fileno()

    def take(self, index: int | None) -> bool:
        """Read what waits; whether any of it may have taken something from the device of that number.

        Also true where news was lost because there was too much of it.
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
