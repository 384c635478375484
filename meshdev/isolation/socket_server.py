"""A process in the helper's network that makes sockets there, for the session, which is in another one.

A socket belongs to the network in which it was made, whoever uses it later. Each request is a packet with a number,
family, kind and protocol, each answer one with that number, an errno and, when that is 0, the socket (SCM_RIGHTS,
unix(7)). The process is a fork
of the helper: an interpreter of its own would take 60 ms to start; and it is not the helper itself, which does one
thing after another, some of which take a while. It has no capability, and ends with the helper or its peer.
"""

import errno
import os
import socket
import struct
import sys
from typing import Final, NoReturn

from meshdev.capabilities import keep_only
from meshdev.isolation import linux

REQUEST: Final = struct.Struct("=Iiii")
ANSWER: Final = struct.Struct("=Ii")

_NETLINK_SOCK_DIAG: Final = 4  # linux/netlink.h: lists who listens, also to processes without a capability
_ALLOWED: Final = frozenset(
    (int(family), int(kind), 0)
    for family in (socket.AF_INET, socket.AF_INET6)
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
) | {(int(socket.AF_NETLINK), int(socket.SOCK_RAW), _NETLINK_SOCK_DIAG)}


def fork_server() -> socket.socket:
    """Start one for the network of the calling process, which has no threads; the end for whoever asks.

    Raises OSError.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    parent = os.getpid()
    if os.fork() == 0:
        _serve_and_exit(theirs, parent)
    theirs.close()
    return ours


def _serve_and_exit(peer: socket.socket, parent: int) -> NoReturn:
    code = 1
    try:  # never back into the caller's code, which is the helper's
        linux.end_with_parent()
        if os.getppid() == parent:
            os.closerange(3, peer.fileno())
            os.closerange(peer.fileno() + 1, 1 << 16)
            keep_only(())
            serve(peer)
            code = 0
    except OSError as error:
        print(f"sockets of the network: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(code)


def serve(peer: socket.socket) -> None:
    """Answer requests until *peer* closes, or sends something else."""
    while len(request := peer.recv(REQUEST.size + 1)) == REQUEST.size:
        try:
            _answer(peer, *REQUEST.unpack(request))
        except (BrokenPipeError, ConnectionResetError):  # whoever asked is gone
            return


def _answer(peer: socket.socket, number: int, family: int, kind: int, protocol: int) -> None:
    if (family, kind, protocol) not in _ALLOWED:
        peer.send(ANSWER.pack(number, errno.EPERM))
        return
    try:
        made = socket.socket(family, kind, protocol)
    except OSError as error:  # no IPv6; too many files
        peer.send(ANSWER.pack(number, error.errno or errno.EIO))
        return
    with made:
        socket.send_fds(peer, [ANSWER.pack(number, 0)], [made.fileno()])
