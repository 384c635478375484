"""``python -I -m meshdev.isolation.socket_server PID``: makes sockets in the network of that process, for stdin's peer.

Each request is a packet with family and kind, each answer one with an errno and, when that is 0, the socket
(SCM_RIGHTS, unix(7)), in the order of the requests. It ends when its peer closes. It has no capability, over that
network or any other, and makes nothing but TCP and UDP sockets, which are neither bound nor connected.
"""

import errno
import socket
import struct
import sys
from typing import Final

from meshdev.capabilities import keep_only
from meshdev.errors import MeshdevError
from meshdev.isolation.joining import Joining

REQUEST: Final = struct.Struct("=ii")
ANSWER: Final = struct.Struct("=i")
_ALLOWED: Final = frozenset(
    (int(family), int(kind))
    for family in (socket.AF_INET, socket.AF_INET6)
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
)


def main(arguments: list[str]) -> int:
    """Enter, say so by an answer of its own, and serve; the exit code."""
    peer = socket.socket(fileno=0)
    try:
        joining = Joining(int(arguments[0]))
        joining.enter()
        joining.close()
        keep_only(())
    except MeshdevError:
        peer.send(ANSWER.pack(errno.ESRCH))
        return 1
    except OSError as error:
        peer.send(ANSWER.pack(error.errno or errno.EIO))
        return 1
    peer.send(ANSWER.pack(0))
    serve(peer)
    return 0


def serve(peer: socket.socket) -> None:
    """Answer requests until *peer* closes, or sends something else."""
    while len(request := peer.recv(REQUEST.size + 1)) == REQUEST.size:
        try:
            _answer(peer, *REQUEST.unpack(request))
        except (BrokenPipeError, ConnectionResetError):  # whoever asked is gone
            return


def _answer(peer: socket.socket, family: int, kind: int) -> None:
    if (family, kind) not in _ALLOWED:
        peer.send(ANSWER.pack(errno.EPERM))
        return
    try:
        made = socket.socket(family, kind)
    except OSError as error:  # no IPv6; too many files
        peer.send(ANSWER.pack(error.errno or errno.EIO))
        return
    with made:
        socket.send_fds(peer, [ANSWER.pack(0)], [made.fileno()])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
