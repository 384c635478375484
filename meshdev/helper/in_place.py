"""Change system files that other programs write, too: compare and write by one descriptor, while the others wait.

A network manager may rename a new file to the path at any moment; a DHCP client's script may truncate and write the
existing one. A write by descriptor cannot harm the first. Against the second there are leases: while a write lease is
held, open(2) and truncate(2) of others block (fcntl(2), "Leases"). A rename of ours would need no lease, but it would
overwrite a file that appeared between comparison and rename, and a bind mount (every container's resolv.conf) cannot be
renamed over.
"""

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

#: How long to wait while others have the file open: readers close it at once, a script that writes it soon after.
_LEASE_SECONDS: Final = 0.2
_PAUSE_SECONDS: Final = 0.005


def change_in_place(path: Path, change: Callable[[bytes], bytes | None]) -> bool:
    """Replace the file's content, in place, by what *change* makes of it; None: nothing is written.

    False when nothing was written, or the path no longer leads to the file: another program has replaced it. Raises
    OSError; after a partial write the file begins with the new content.

    Where the file system has no leases, or another program keeps the file open for longer than a moment, nobody waits:
    another write may then begin within microseconds between comparison and write.
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
    """Replace the content of an open file. Raises OSError.

    The new bytes are written before the file is truncated, so readers always see a first line.
    """
    written = 0
    while written < len(content):  # where space runs out write(2) writes a part, and fails the next time
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
    """Keep others from opening or truncating the file during the block, where that is possible."""
    # Sent to the holder of a lease for which another process waits; by default it ends the process (signal(7)).
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
            time.sleep(_PAUSE_SECONDS)  # there is no event for the last close of a file
        except OSError:  # EINVAL: an overlay; EACCES: not root's own
            return False
        else:
            return True
