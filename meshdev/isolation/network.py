"""Sockets of a network that need not be this process's own: what connects or asks is told which one by an object."""

import errno
import os
import socket
import struct
from typing import Final, Protocol

from meshdev.isolation.socket_server import ANSWER, REQUEST

#: The server answers in some 50 µs, at once in any case: this only keeps a fault from hanging the process.
_ANSWER_SECONDS: Final = 2
_DESCRIPTOR: Final = struct.Struct("=i")
_ANCILLARY_BYTES: Final = socket.CMSG_LEN(_DESCRIPTOR.size)


class NetworkSockets(Protocol):
    """A network in which sockets can be made."""

    def open_socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """Make a blocking socket, neither bound nor connected; it is the caller's. Raises OSError."""
        ...


class ThisNetwork:
    """The network of this process."""

    def open_socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """See :class:`NetworkSockets`."""
        return socket.socket(family, kind, protocol)


THIS_NETWORK: Final = ThisNetwork()


class OtherNetwork:
    """The network of a process that forked a server (:mod:`meshdev.isolation.socket_server`). Not thread-safe."""

    def __init__(self, server: socket.socket) -> None:
        """Owns *server*, what :func:`~meshdev.isolation.socket_server.fork_server` returned, from now on."""
        self._server = server
        self._number = 0
        server.setblocking(True)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _ANSWER_SECONDS, 0))

    def open_socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """See :class:`NetworkSockets`. TCP and UDP, and netlink's list of sockets; also raises OSError when the
        network is gone, or after :meth:`close`."""
        self._number = (self._number + 1) % (1 << 32)
        self._server.send(REQUEST.pack(self._number, family, kind, protocol))
        while True:
            number, error, made = self._receive()
            if number == self._number:
                break
            if made is not None:  # of a request that has been given up
                made.close()
        if error:
            raise OSError(error, os.strerror(error))
        if made is None:
            raise _gone()
        return made

    def _receive(self) -> tuple[int, int, socket.socket | None]:
        """The next answer."""
        # Not socket.recv_fds: it ignores its flags (Python 3.11).
        answer, ancillary, _, _ = self._server.recvmsg(ANSWER.size, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
        made = socket.socket(fileno=_DESCRIPTOR.unpack(ancillary[0][2])[0]) if ancillary else None
        if len(answer) != ANSWER.size:
            raise _gone()
        number, error = ANSWER.unpack(answer)
        return number, error, made

    def close(self) -> None:
        """Ask for no more; its server ends."""
        self._server.close()


def _gone() -> OSError:
    return OSError(errno.ENETDOWN, "the network is gone")
