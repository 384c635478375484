"""The log files of this machine: what is in them, and what is written to them from now on."""

import asyncio
import ctypes
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from meshdev.errors import LaptopError
from meshdev.wire.log_lines import LogLine, LogSplitter, of_file

#: inotify(7), include/uapi/linux/inotify.h: a file was written to, made, or renamed to one of these names.
_CHANGES: Final = 0x2 | 0x100 | 0x80
_READ: Final = 1 << 16


@dataclass
class LogFile:
    """One log. It is set aside when it is long, and another one begins (``meshdev connect``)."""

    source: str
    path: Path
    _splitter: LogSplitter = field(default_factory=LogSplitter)
    _inode: int = 0
    _at: int = 0

    def read(self) -> list[LogLine]:
        """The lines that were written since the last call; at first all. None where there is no file yet.

        Raises LaptopError where it cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                return list(self._lines(file.fileno()))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise LaptopError(f"{self.path} cannot be read: {error.strerror}") from error

    def _lines(self, file: int) -> Iterator[LogLine]:
        found = os.fstat(file)
        if found.st_ino != self._inode or found.st_size < self._at:
            self._inode, self._at, self._splitter = found.st_ino, 0, LogSplitter()
        while data := os.pread(file, _READ, self._at):
            self._at += len(data)
            yield from (of_file(self.source, text) for text in self._splitter.feed(data))


async def follow(folder: Path, files: Sequence[LogFile], show: Callable[[LogLine], None]) -> None:
    """Until cancelled: what is written to *files*, which are in *folder*."""
    with _changes(folder) as changed:
        while True:
            for file in files:
                for line in file.read():
                    show(line)
            await changed.wait()
            changed.clear()


@contextmanager
def _changes(folder: Path) -> Iterator[asyncio.Event]:
    """An event that is set whenever a file in *folder* changes. Raises LaptopError where the kernel has no more."""
    libc = ctypes.CDLL(None, use_errno=True)
    watch = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if watch < 0:
        raise _refused(folder)
    changed, loop = asyncio.Event(), asyncio.get_running_loop()

    def arrived() -> None:
        os.read(watch, _READ)
        changed.set()

    try:
        if libc.inotify_add_watch(watch, os.fsencode(folder), _CHANGES) < 0:
            raise _refused(folder)
        loop.add_reader(watch, arrived)
        yield changed
    finally:
        loop.remove_reader(watch)
        os.close(watch)


def _refused(folder: Path) -> LaptopError:
    return LaptopError(
        f"{folder} cannot be watched: {os.strerror(ctypes.get_errno())}",
        hint="sysctl fs.inotify tells how many folders a user may watch",
    )
