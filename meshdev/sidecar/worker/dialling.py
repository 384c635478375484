"""Connections to the app: from the client's own address and port where that is possible, from the pod's otherwise.

The sockets for the former are the agent's (``sidecar/agent/client_addresses.py``) and come in a queue, before they are
needed. An answer of the app is lost where somebody has changed the pod's rules: then the pod's address is tried, and no
other one for a while.
"""

import errno
import logging
import os
import select
import socket
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal, NamedTuple, Protocol

from meshdev.sidecar.worker.client_ports import IN_PROGRESS, Address, ClientPorts, CrowdedError

log = logging.getLogger(__name__)

#: Why it is not the client's address: the agent made no socket in time, or can make none; the client's address and port
#: are in use in the pod; too many ports would be lost to the app's own connections (``client_ports``); the kernel
#: refuses them for another reason; no answer came.
AddressReason = Literal["no-socket", "in-use", "crowded", "refused", "lost"]
#: How long an answer may take, in seconds. A SYN that the app's full queue drops is sent again after 1 s.
LOST_SECONDS: Final = 2.0
#: How long the pod's address is used after an answer was lost while none came to others.
PAUSE_SECONDS: Final = 60.0
#: How long everything waits for the agent where sockets are used up: it may have had no turn while a burst of clients
#: kept this process busy. And how long it is not waited for again where that was in vain.
_WAIT_MILLISECONDS: Final = 10
_WAIT_AGAIN_SECONDS: Final = 1.0
#: Sockets of one message at most (SCM_MAX_FD, unix(7)).
_BATCH: Final = 253
_WARN_SECONDS: Final = 10.0
#: After so many seconds without a word from the app its kernel is asked whether it still has the connection. While a
#: client takes nothing the app is not read, so nothing else would tell that it is gone.
KEEPALIVE_IDLE: Final = 300
_IN_USE: Final = {errno.EADDRINUSE, errno.EADDRNOTAVAIL}


class Dialled(NamedTuple):
    """A socket that connects to the app, or has failed to with the number *error*; whoever asked for it closes it."""

    sock: socket.socket
    error: int
    own: bool
    """It has the client's address; closing it sends a reset unless it is told otherwise."""


class Dialling(Protocol):
    """What waits for the app's answer."""

    def lost(self) -> None:
        """None came in time: dial again, from the pod's address."""


class _Waiting(NamedTuple):
    until: float
    answered: int


class AppDialler:
    """Makes the connections of a worker. *queue* stays its owner's; *clock* is in seconds."""

    def __init__(self, queue: socket.socket | None, clock: Callable[[], float]) -> None:
        self._queue = queue
        self._poll = select.poll()
        if queue is not None:
            self._poll.register(queue, select.POLLIN)
        self._clock = clock
        self._ports = ClientPorts(clock)
        self._sockets: list[int] = []
        self._waiting: dict[Dialling, _Waiting] = {}
        self._answered = 0
        self._wait_again = 0.0
        self._paused_until = self._warned_at = -PAUSE_SECONDS
        self.reasons: Final[Counter[AddressReason]] = Counter()
        """How many connections were made from the pod's address, and why."""

    def close(self) -> None:
        """Close the sockets that were not used."""
        while self._sockets:
            os.close(self._sockets.pop())

    def dial(self, app: Address, client: Address, dialling: Dialling) -> Dialled:
        """Begin to connect to *app*, from *client*'s address if possible.

        To be followed by :meth:`answered` if it is, and by :meth:`forget` when the socket is closed.
        """
        if self._clock() < self._paused_until:
            return self.dial_from_pod(app, "lost")
        sock = self._socket()
        if sock is None:
            return self.dial_from_pod(app, "no-socket")
        try:
            error = self._ports.connect(sock, client, app, dialling)
        except CrowdedError:
            sock.close()
            return self.dial_from_pod(app, "crowded")
        except OSError as refusal:
            error = refusal.errno or errno.EINVAL
        if error and error not in IN_PROGRESS and error != errno.ECONNREFUSED:
            sock.close()
            self._ports.closed(dialling)
            return self.dial_from_pod(app, "in-use" if error in _IN_USE else "refused")
        _keep_alive(sock)
        if error in IN_PROGRESS:
            self._waiting[dialling] = _Waiting(self._clock() + LOST_SECONDS, self._answered)
        return Dialled(sock, error, own=True)

    def dial_from_pod(self, app: Address, reason: AddressReason) -> Dialled:
        """Begin to connect to *app* from the pod's address, and count why."""
        self.reasons[reason] += 1
        if self._queue is not None and (now := self._clock()) - self._warned_at >= _WARN_SECONDS:
            self._warned_at = now
            log.warning("connections reach the app from the pod's address instead of the client's: %s", reason)
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _keep_alive(sock)
        return Dialled(sock, sock.connect_ex(app), own=False)

    def answered(self, dialling: Dialling) -> None:
        """The app's answer, or a refusal, has come."""
        if self._waiting.pop(dialling, None) is not None:
            self._answered += 1

    def forget(self, dialling: Dialling) -> None:
        """The socket is closed, and nobody waits for the answer any more."""
        self._waiting.pop(dialling, None)
        self._ports.closed(dialling)

    def sweep(self) -> None:
        """Give up what was not answered in time; to be called several times a second."""
        now = self._clock()
        self._ports.sweep()
        lost = [(dialling, waiting) for dialling, waiting in self._waiting.items() if waiting.until <= now]
        for dialling, waiting in lost:
            del self._waiting[dialling]
            if waiting.answered == self._answered:
                self._paused_until = now + PAUSE_SECONDS
            dialling.lost()

    def _socket(self) -> socket.socket | None:
        if not self._sockets:
            self._refill()
        if not self._sockets:
            return None
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=self._sockets.pop())

    def _refill(self) -> None:
        self._receive()
        if self._sockets or self._queue is None or (now := self._clock()) < self._wait_again:
            return
        if self._poll.poll(_WAIT_MILLISECONDS):
            self._receive()
        else:
            self._wait_again = now + _WAIT_AGAIN_SECONDS

    def _receive(self) -> None:
        if self._queue is None:
            return
        with suppress(OSError):  # the queue is empty, or there is no descriptor left: it is as if there were none
            data, self._sockets, _, _ = socket.recv_fds(self._queue, 1, _BATCH, socket.MSG_CMSG_CLOEXEC)
            if not data:  # the agent can make none, and has said so
                self._queue = None


def _keep_alive(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE)
