"""Clients' ports for the worker's connections to the app, without taking them from the app's own connections.

An unbound connect(2) skips every port that somebody has bound by number, whatever the destination
(``__inet_hash_connect``: ``fastreuse >= 0``), until the last socket of that port is gone, 60 s of TIME_WAIT included. A
port that the kernel has chosen at connect(2) is shared instead. So a client's port is chosen by the kernel here, from a
range of that one port (IP_LOCAL_PORT_RANGE, ip(7), Linux 6.3). The kernel never chooses ports outside of
``ip_local_port_range``: they are bound by number. So are the others where sharing fails, as long as there are few
(docs/design/0022).
"""

import errno
import socket
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

_IP_BIND_ADDRESS_NO_PORT: Final = 24  # linux/in.h
_IP_LOCAL_PORT_RANGE = 51  # linux/in.h: the lowest port, and the highest one << 16
_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_DEFAULT: Final = range(32768, 61000)
#: How long a port stays taken after its connection (TCP_TIMEWAIT_LEN, net/tcp.h), in seconds.
TAKEN_SECONDS: Final = 60.0
#: As many of the ports the app's own connections are chosen from may be bound by number: one of so many.
SHARE: Final = 4
IN_PROGRESS: Final = {errno.EINPROGRESS, errno.EAGAIN}

Address = tuple[str, int]


class CrowdedError(Exception):
    """Too many ports of the range are bound by number already."""


class ClientPorts:
    """Connects sockets from clients' ports. *clock* is in seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._range = _DEFAULT
        self._taken = _Taken()
        self._bound: dict[object, int] = {}
        #: Not where the range is unknown: outside of it the kernel would choose another port, without an error.
        self._shares = self._read_range()

    def connect(self, sock: socket.socket, client: Address, app: Address, connection: object) -> int:
        """Begin to connect *sock* from *client* to *app*; the error's number, as of ``connect_ex``.

        Raises OSError where the address cannot be bound, :class:`CrowdedError`. To be followed by :meth:`closed`.
        """
        host, port = client
        if port in self._range:
            if self._shares and self._share(sock, port):
                sock.bind((host, 0))
                if (error := sock.connect_ex(app)) != errno.EADDRNOTAVAIL:
                    return error
                # The port is bound by number elsewhere, or these ends are those of a connection less than a second ago
                # (tcp_tw_reuse_delay). The socket has no port yet, and may be bound again.
            if port not in self._taken and len(self._taken) >= len(self._range) // SHARE:
                raise CrowdedError
        sock.bind(client)
        if port in self._range:
            self._taken.add(port)
            self._bound[connection] = port
        return sock.connect_ex(app)

    def closed(self, connection: object) -> None:
        """Its socket is closed; nothing changes where it was so already."""
        if (port := self._bound.pop(connection, None)) is not None:
            self._taken.remove(port, self._clock() + TAKEN_SECONDS)

    def sweep(self) -> None:
        """Forget what is not taken any more, and read the range again: the pod may change it at any time."""
        self._taken.expire(self._clock())
        self._read_range()

    def _read_range(self) -> bool:
        """False leaves it as it was: a sandbox may have none, and for a while there may be no descriptor left."""
        try:
            low, high = map(int, _RANGE.read_text().split())
        except (OSError, ValueError):
            return False
        self._range = range(low, high + 1)
        return True

    def _share(self, sock: socket.socket, port: int) -> bool:
        try:
            sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            sock.setsockopt(socket.IPPROTO_IP, _IP_LOCAL_PORT_RANGE, (port << 16 | port).to_bytes(4, sys.byteorder))
        except OSError:  # Linux before 6.3
            self._shares = False
        return self._shares


class _Taken:
    """Ports that are bound by number, or were so a moment ago."""

    def __init__(self) -> None:
        self._open: Counter[int] = Counter()
        self._closed: dict[int, float] = {}
        """Until when; in that order."""

    def __contains__(self, port: int) -> bool:
        return port in self._open or port in self._closed

    def __len__(self) -> int:
        return len(self._open) + len(self._closed)

    def add(self, port: int) -> None:
        self._open[port] += 1
        self._closed.pop(port, None)

    def remove(self, port: int, until: float) -> None:
        self._open[port] -= 1
        if not self._open[port]:
            del self._open[port]
            self._closed[port] = until

    def expire(self, now: float) -> None:
        while self._closed:
            port, until = next(iter(self._closed.items()))
            if until > now:
                return
            del self._closed[port]
