"""The helper's parent: if the helper is killed, it undoes everything at once and keeps the packet filter up meanwhile.

The nft table belongs to a netlink socket (``flags owner``) and is removed with its last copy, while the TUN device
exists until the session closes its queues: in between anything could come in. So the keeper has a copy of that socket.
When the helper is killed, its journal is undone, the device first, and only then is the socket closed.

It does nothing else: no request reaches it. If it is killed itself, the helper gets SIGTERM and undoes everything.
"""

import os
import signal
import socket
import sys
from typing import Final, NoReturn

from meshdev.errors import AlreadyConnectedError, MeshdevError
from meshdev.helper.journal import JournalFile
from meshdev.helper.privileges import end_with_parent
from meshdev.helper.restore import undo_entries

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Keeper:
    """The helper's end of the socket to its keeper. Close-on-exec: what the helper starts has no copy of it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def hold(self, descriptor: int) -> None:
        """Keep a copy of *descriptor* open until everything is undone. Raises OSError."""
        socket.send_fds(self._sock, [b"."], [descriptor])


def fork_helper(uid: int) -> Keeper:
    """Fork. Returns in the child, the helper of *uid*; the parent waits for it and never returns. Raises OSError."""
    ours, theirs = socket.socketpair()
    keeper = os.getpid()
    helper = os.fork()
    if helper:
        theirs.close()
        _keep(ours, helper, uid)
    ours.close()
    end_with_parent(keeper)
    return Keeper(theirs)


def _keep(sock: socket.socket, helper: int, uid: int) -> NoReturn:
    for number in _SIGNALS:  # meant for the helper: it undoes everything and exits, and then so does this process
        signal.signal(number, signal.SIG_IGN)
    # The session sees the helper's exit only when no other process has that end of their socket.
    os.closerange(3, sock.fileno())
    os.closerange(sock.fileno() + 1, 1 << 16)
    held: list[int] = []
    while True:
        data, descriptors, _, _ = socket.recv_fds(sock, 1, 1)
        held += descriptors
        if not data:
            break
    _, status = os.waitpid(helper, 0)  # from here on nobody holds the journal's lock
    if os.WIFSIGNALED(status):
        _undo(uid, held)
    os._exit(0)


def _undo(uid: int, held: list[int]) -> None:
    try:
        journal = JournalFile(uid, patience=0)
    except AlreadyConnectedError:  # the next helper was faster, and undoes it
        return
    except MeshdevError as error:
        print(f"helper: it was killed, and {error.message}", file=sys.stderr, flush=True)
        return
    try:
        for failure in undo_entries(journal).failed:
            print(f"helper: it was killed, and {failure}", file=sys.stderr, flush=True)
        for descriptor in held:  # before the lock is released: the next helper creates a table of the same name
            os.close(descriptor)
    finally:
        journal.close()
