"""The journal's file: written before each step, so that ``restore`` finds what a killed helper left.

``/run/meshdev/UID.json`` is readable by everyone (``status`` needs no root), ``UID.lock`` by root alone: whoever can
open it could lock out the user's next helper.
"""

import fcntl
import os
import time
from pathlib import Path
from typing import Final

from meshdev.errors import AlreadyConnectedError, LaptopError, ProtocolError
from meshdev.host.dns import MARKER
from meshdev.host.journal import Entry, JournalRecord

FOLDER: Final = Path("/run/meshdev")
RESOLV_CONF: Final = Path("/etc/resolv.conf")
#: A helper that is ending holds its lock a moment longer than its session runs.
_LOCK_SECONDS: Final = 1.0


class Journal:
    """How to undo what this process has changed, in memory: enough where all of it ends with the process."""

    def __init__(self, uid: int) -> None:
        self.uid = uid
        self._entries: list[Entry] = []

    def add(self, entry: Entry) -> None:
        """Record how to undo a step, before the step. Raises OSError: then nothing is recorded."""
        self._entries.append(entry)
        try:
            self._write()
        except OSError:
            self._entries.pop()
            raise

    def remove(self, entry: Entry) -> None:
        """Remove the record of a step that is undone."""
        if entry in self._entries:
            self._entries.remove(entry)
            self._write()

    def _write(self) -> None:
        """Keep it where others find it."""


class JournalFile(Journal):
    """The journal of one user's helper, in a file, locked until :meth:`close`."""

    def __init__(self, uid: int, folder: Path = FOLDER, *, patience: float = _LOCK_SECONDS) -> None:
        """Take the lock. Raises AlreadyConnectedError when a running helper holds it, LaptopError without the folder.

        *patience*: how long to wait for the lock, in seconds.
        """
        super().__init__(uid)
        self._path = folder / f"{uid}.json"
        try:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            raise LaptopError(f"{folder} cannot be created: {error.strerror}") from error
        status = folder.lstat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o022:
            raise LaptopError(f"{folder} belongs to another user", hint=f"sudo rm -r {folder}")
        folder.chmod(0o755)
        self._lock = _take_lock(folder / f"{uid}.lock", patience)
        try:
            found = _read(self._path)
        except LaptopError:
            os.close(self._lock)
            raise
        self.found = found
        """What a killed helper left, newest last."""
        self._entries = list(found)
        self._started = started(os.getpid()) or 0

    @property
    def folder(self) -> Path:
        """Where the journals of all users are."""
        return self._path.parent

    def close(self) -> None:
        """Release the lock; entries that could not be undone stay in the file."""
        os.close(self._lock)

    def _write(self) -> None:
        if not self._entries:
            self._path.unlink(missing_ok=True)
            return
        new = self._path.with_suffix(".new")
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
        with os.fdopen(fd, "wb") as file:  # writes all of it, or raises: /run may be full
            os.fchmod(fd, 0o644)
            file.write(JournalRecord(self.uid, os.getpid(), self._started, tuple(self._entries)).encode())
            file.flush()
            os.fsync(fd)
        new.rename(self._path)


def read_record(uid: int, folder: Path = FOLDER) -> JournalRecord | None:
    """The journal's content; None where there is no journal. Needs no root. Raises LaptopError if unreadable."""
    path = folder / f"{uid}.json"
    try:
        return JournalRecord.parse(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ProtocolError) as error:
        raise LaptopError(f"{path} cannot be read: {error}", hint=f"inspect it, then: sudo rm {path}") from error


def is_ours(path: Path) -> bool:
    """Whether the file at *path* is one that we wrote. Needs no root."""
    try:
        return path.read_bytes().startswith(MARKER.encode())
    except OSError:
        return False


def started(pid: int) -> int | None:
    """When that process started, in clock ticks since boot; None when there is none. With the pid it identifies a
    process even if pids are reused (proc(5), field 22 of /proc/PID/stat)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else int(fields[19])


def _read(path: Path) -> tuple[Entry, ...]:
    record = read_record(int(path.stem), path.parent)
    return record.entries if record is not None else ()


def _take_lock(path: Path, patience: float) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(fd)
                raise AlreadyConnectedError(
                    "another connection of this user is up on this machine", hint="meshdev disconnect ends it"
                ) from None
            time.sleep(0.02)  # flock has no timeout
        else:
            return fd
