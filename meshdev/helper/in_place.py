"""Files of the system that other programs write, too: compared and changed by one descriptor, while they wait.

A network manager may rename a new file over the name at any moment, a DHCP client's script may truncate and write the
one that stands there. The first is out of reach of whoever writes by a descriptor, and so safe. For the second there
are leases: as long as a write lease is held, open(2) and truncate(2) of others wait (fcntl(2), "Leases"). A rename of
ours would need no lease, but it would put our file over one that came between the comparison and the rename, and a bind
mount (every container's resolv.conf) cannot be renamed over.
"""

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

#: Somebody has the file open: readers are done in no time, a script that writes it in some more.
_LEASE_SECONDS: Final = 0.2
_PAUSE_SECONDS: Final = 0.005


def change_in_place(path: Path, change: Callable[[bytes], bytes | None]) -> bool:
    """Put what *change* makes of the content in its place, and keep the file. None: nothing is written.

    False when nothing was written, or into a file that the path does not lead to any more: another program has put one
    of its own there. Raises OSError; a file that could be written in part only begins with what was to be written.

    Where the file system has no leases, or somebody keeps the file open for longer than a moment, nobody is made to
    wait: then there are microseconds between comparison and write in which another program may begin to write.
    """
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        with _alone(fd):
            content = change(_content(fd))
            if content is None:
                return False
            replace_content(fd, content)
            return _is_at(fd, path)
    finally:
        os.close(fd)


def replace_content(fd: int, content: bytes) -> None:
    """Replace what an open file holds. Raises OSError.

    The new bytes go in before the old end is cut off, so a reader sees a first line at any moment.
    """
    written = 0
    while written < len(
        content
    ):  # write(2) takes less than all of it where space ends, and tells why with the next one
        written += os.pwrite(fd, content[written:], written)
    os.ftruncate(fd, len(content))
    os.fsync(fd)


def _content(fd: int) -> bytes:
    with os.fdopen(os.dup(fd), "rb") as file:
        return file.read()


def _is_at(fd: int, path: Path) -> bool:
    try:
        there, ours = path.stat(), os.fstat(fd)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


@contextlib.contextmanager
def _alone(fd: int) -> Iterator[None]:
    """As long as the block nobody else opens or truncates the file, where that is possible."""
    # Sent to whoever holds a lease that another waits for; its default is the end of the process (signal(7)).
    before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        leased = _lease(fd)
        try:
            yield
        finally:
            if leased:
                fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    finally:
        signal.signal(signal.SIGIO, before)


def _lease(fd: int) -> bool:
    deadline = time.monotonic() + _LEASE_SECONDS
    while True:
        try:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE_SECONDS)  # no event tells that a file was closed by the last who had it open
        except OSError:  # EINVAL: an overlay; EACCES: not root's own
            return False
        else:
            return True
