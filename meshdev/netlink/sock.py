"""A blocking netlink socket: requests with their answers, many at once."""

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Final, Self

from meshdev.netlink.messages import NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NetlinkRequest, Reply, replies

NETLINK_ROUTE: Final = 0
NETLINK_NETFILTER: Final = 12

_SOL_NETLINK: Final = 270
_NETLINK_CAP_ACK: Final = 10  # answers do not carry the request again
_BATCH: Final = 128  # requests of about 60 bytes a datagram: their acknowledgements fit in the receive buffer
_DUMP_TRIES: Final = 5
#: The kernel answers within the call; this only keeps a fault from hanging the process.
_DEADLINE_SECONDS: Final = 5.0
_ENDS: Final = frozenset({NLMSG_DONE, NLMSG_ERROR})


#: By address family, type and protocol; the socket is closed on exec. Raises OSError.
MakeSocket = Callable[[int, int, int], socket.socket]


class Netlink:
    """A netlink socket. Not thread-safe. Every method raises OSError when the kernel does not answer."""

    def __init__(self, family: int = NETLINK_ROUTE, make: MakeSocket = socket.socket) -> None:
        """*make* makes the socket: what it is told of is the network namespace where it was made."""
        self._sock = make(socket.AF_NETLINK, socket.SOCK_RAW, family)
        self._sock.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        seconds = int(_DEADLINE_SECONDS)
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", seconds, 0))
        self._sock.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def execute(self, messages: Sequence[NetlinkRequest]) -> list[OSError | None]:
        """Carry out each, whether or not others fail; the error of each, or None."""
        outcome: list[OSError | None] = []
        for start in range(0, len(messages), _BATCH):
            outcome += self._execute_batch(messages[start : start + _BATCH])
        return outcome

    def run(self, message: NetlinkRequest) -> None:
        """Carry out one. Raises its OSError."""
        (error,) = self.execute([message])
        if error is not None:
            raise error

    def dump(self, message: NetlinkRequest) -> list[memoryview]:
        """The bodies of a dump, repeated when the kernel flags it as interrupted by a change."""
        for _ in range(_DUMP_TRIES):
            bodies, whole = self._dump_once(message)
            if whole:
                break
        return bodies

    def walk(self, message: NetlinkRequest) -> Iterator[memoryview]:
        """The bodies of a dump as they arrive, so that a table of any size costs no memory; what changes meanwhile may
        be missing. Must be exhausted before the socket is used for anything else."""
        return (reply.body for reply in self._replies(message) if reply.kind not in _ENDS)

    def _dump_once(self, message: NetlinkRequest) -> tuple[list[memoryview], bool]:
        bodies: list[memoryview] = []
        whole = True
        for reply in self._replies(message):
            whole = whole and not reply.flags & NLM_F_DUMP_INTR
            if reply.kind not in _ENDS:
                bodies.append(reply.body)
        return bodies, whole

    def _replies(self, message: NetlinkRequest) -> Iterator[Reply]:
        """The answers to *message*, including the one that ends them."""
        self._sequence += 1
        sequence = self._sequence
        self._sock.send(message.pack(sequence))
        while True:
            for reply in self._receive():
                if reply.sequence != sequence:
                    continue
                if reply.kind in _ENDS and reply.error:
                    raise _os_error(reply.error)
                yield reply
                if reply.kind in _ENDS:
                    return

    def _execute_batch(self, messages: Sequence[NetlinkRequest]) -> list[OSError | None]:
        first = self._sequence + 1
        self._sequence += len(messages)
        self._sock.send(b"".join(message.pack(first + index) for index, message in enumerate(messages)))
        outcome: list[OSError | None] = [None] * len(messages)
        waiting = set(range(len(messages)))
        while waiting:
            for reply in self._receive():
                index = reply.sequence - first
                if reply.kind == NLMSG_ERROR and index in waiting:
                    waiting.remove(index)
                    outcome[index] = _os_error(reply.error) if reply.error else None
        return outcome

    def _receive(self) -> list[Reply]:
        try:
            return list(replies(self._sock.recv(1 << 18)))
        except BlockingIOError:
            raise TimeoutError(errno.ETIMEDOUT, "the kernel does not answer on netlink") from None


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
