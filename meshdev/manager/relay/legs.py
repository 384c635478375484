"""The sockets of the two sides, and how the silence of a laptop is noticed.

A laptop that is asleep or cut off is given up after 4 s, as Envoy did before there was this relay. While nothing is
under way the kernel asks (keepalive). TCP_USER_TIMEOUT would do for the rest, but it also ends a connection whose other
end answers and takes nothing for that time (tcp_probe_timer in net/ipv4/tcp_timer.c): a program that is stopped in a
debugger while a large body comes. So it is looked at here what is acknowledged.
"""

import errno
import math
import socket
from collections.abc import Callable
from typing import Final

from meshdev.pump.end import NOT_WATCHED, SocketEnd
from meshdev.pump.loop import Loop

#: epoll reports these without being asked (epoll_ctl(2)): an error, and that both directions have ended.
ERROR: Final = 0x08
HANGUP: Final = 0x10
#: connect() goes on by itself.
IN_PROGRESS: Final = {errno.EINPROGRESS, errno.EINTR}
#: How long a laptop may acknowledge nothing of what is under way, in seconds.
SILENT_SECONDS: Final = 4.0
#: Seconds until the kernel asks, between questions, and how many go unanswered. The laptop: 4 s in all.
_KEEPALIVE_LAPTOP: Final = (1, 1, 3)
#: A workload's node that is gone, or an Envoy that has closed while its laptop still has the connection open.
_KEEPALIVE_CLIENT: Final = (15, 5, 3)
#: struct tcp_info (linux/tcp.h): tcpi_unacked, segments; tcpi_last_ack_recv, milliseconds ago.
_UNACKED: Final = slice(24, 28)
_LAST_ACK: Final = slice(56, 60)
_TCP_INFO_BYTES: Final = 60


def prepare_client(sock: socket.socket) -> None:
    """Options of a client's socket."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _keep_alive(sock, _KEEPALIVE_CLIENT)


def laptop_socket() -> socket.socket:
    """One that can begin to connect. Raises OSError where descriptors or memory are used up."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _keep_alive(sock, _KEEPALIVE_LAPTOP)
    return sock


def _keep_alive(sock: socket.socket, times: tuple[int, int, int]) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in zip((socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT), times, strict=True):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


def watch(loop: Loop, end: SocketEnd, events: int, on: Callable[[int], None]) -> None:
    """Have *on* called for these events; by an end that is watched already it stays what it was."""
    if end.events == events:
        return
    if events == NOT_WATCHED:
        loop.unregister(end.fd)
    elif end.events == NOT_WATCHED:
        loop.register(end.fd, events, on)
    else:
        loop.modify(end.fd, events)
    end.events = events


class Silence:
    """How long a laptop has acknowledged nothing of what was sent, as far as this is asked."""

    __slots__ = ("_since", "sent")

    def __init__(self) -> None:
        self.sent = False
        """Something was sent, and may be under way: until then there is nothing to ask."""
        self._since = math.inf

    def lasts(self, laptop: SocketEnd, now: float) -> bool:
        """Whether it has lasted too long. A window of zero is no silence: every question about it is acknowledged."""
        if not laptop.out and not laptop.unacknowledged:
            self.sent, self._since = False, math.inf
            return False
        info = laptop.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
        unacked, last_ack = (int.from_bytes(info[part], "little") for part in (_UNACKED, _LAST_ACK))
        if not unacked or self._since == math.inf:
            self._since = now if unacked else math.inf
        self._since = max(self._since, now - last_ack / 1000) if unacked else math.inf
        return now - self._since >= SILENT_SECONDS
