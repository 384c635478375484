"""Free ports for listeners, each for as long as the agent runs."""

import socket
from collections.abc import Iterable, Mapping
from typing import Final

from meshdev.errors import ClusterError
from meshdev.wire.agent import PodPort

#: Below what outgoing connections use (32768 and up), above what services usually listen on.
RANGE: Final = range(15800, 16200)
#: Clients that wait to be accepted: those of a worker that is started again, too. The kernel caps it (somaxconn).
BACKLOG: Final = 4096
#: A client that has vanished is given up after so many seconds without a word from it, and so many probes, so many
#: seconds apart, without an answer (tcp(7)): 15 minutes, about as long as the kernel goes on sending to it where there
#: is something to send (tcp_retries2). The app's own keepalive asks the worker's kernel, which always answers; an app
#: that has none keeps idle connections over any outage, so this is no shorter.
KEEPALIVE_IDLE: Final = 300
KEEPALIVE_INTERVAL: Final = 60
KEEPALIVE_PROBES: Final = 10


class ListenerPorts:
    """Where Envoy listens for each UDP port that was ever wanted; TCP ports have a :func:`listener` each."""

    def __init__(self) -> None:
        self._ports: dict[PodPort, int] = {}

    def of(self, ports: Iterable[PodPort]) -> Mapping[PodPort, int]:
        """The listener ports of all ports so far and of *ports*. Raises ClusterError when none is free."""
        for port in ports:
            if port not in self._ports:
                self._ports[port] = self._free()
        return dict(self._ports)

    def _free(self) -> int:
        taken = set(self._ports.values())
        for number in RANGE:
            if number not in taken and _can_bind(number):
                return number
        raise _none_is_free()


def listener() -> socket.socket:
    """Listen on the first port that is free, whatever the address: the redirect keeps the one that a client asked for.

    The caller owns it. Connections that are accepted inherit its keepalive. Raises ClusterError when none is free.
    """
    for number in RANGE:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("0.0.0.0", number))  # noqa: S104 -- the agent's rules let redirected connections in only
            _keep_alive(sock)
            sock.listen(BACKLOG)
        except OSError:
            sock.close()
        else:
            return sock
    raise _none_is_free()


def _keep_alive(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_INTERVAL)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)


def _none_is_free() -> ClusterError:
    return ClusterError(f"no port from {RANGE.start} to {RANGE.stop - 1} is free in this pod")


def _can_bind(number: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.bind(("0.0.0.0", number))  # noqa: S104 -- as Envoy will
        except OSError:
            return False
        return True
