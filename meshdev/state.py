"""The files of one user's connection, in a folder that only that user may enter.

A live session holds ``session.lock`` (flock) from before its first step until its process ends, however it ends.
So the lock, not the socket or a pid, decides whether there is a session.
"""

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from meshdev.errors import LaptopError

#: sun_path of struct sockaddr_un holds 108 bytes with the final NUL (linux/un.h).
MAX_SOCKET_PATH: Final = 107
#: How long logs of a connection that was one command's own are kept where that failed: a day.
_KEPT_SECONDS: Final = 86400


@dataclass(frozen=True)
class Paths:
    """The files of one user's connection; nothing exists before :meth:`prepare`."""

    directory: Path

    @property
    def socket(self) -> Path:
        """The session API."""
        return self.directory / "session.sock"

    @property
    def log(self) -> Path:
        """Standard output and error of the session."""
        return self.directory / "session.log"

    @property
    def helper_log(self) -> Path:
        """Standard output and error of sudo and the helper."""
        return self.directory / "helper.log"

    @property
    def ended(self) -> Path:
        """Why the last connection ended unasked; removed by the next one."""
        return self.directory / "ended"

    @property
    def lock(self) -> Path:
        """Held by the live session."""
        return self.directory / "session.lock"

    @classmethod
    def locate(cls, environ: Mapping[str, str] = os.environ, uid: int | None = None) -> "Paths":
        """The folder for *uid* (default: the caller): its runtime folder, else its state folder.

        ``/run/user/UID`` counts without XDG_RUNTIME_DIR too (cron, ``su``), so that every shell finds the session.
        """
        uid = os.getuid() if uid is None else uid
        for base in (environ.get("XDG_RUNTIME_DIR"), f"/run/user/{uid}"):
            if base and Path(base).is_absolute() and _is_private(Path(base), uid):
                return cls(Path(base) / "meshdev")
        state = environ.get("XDG_STATE_HOME", "")
        base_path = Path(state) if state and Path(state).is_absolute() else _home(environ) / ".local" / "state"
        return cls(base_path / "meshdev")

    @property
    def runs(self) -> Path:
        """Folders of connections that are one command's own."""
        return self.directory / "runs"

    def of_run(self) -> "tuple[Paths, int]":
        """The files of one command's own connection, and its lock, taken. Raises LaptopError as :meth:`prepare`.

        What runs that have ended left here a day ago or earlier is removed: their logs.
        """
        self.prepare()
        try:
            return self._made_for_run()
        except OSError as error:  # a full disk, or something else in its place
            raise LaptopError(
                f"{self.runs} cannot be used: {error.strerror}",
                hint="set XDG_RUNTIME_DIR or XDG_STATE_HOME to a folder of yours, on a disk with room.",
            ) from error

    def _made_for_run(self) -> "tuple[Paths, int]":
        self.runs.mkdir(mode=0o700, exist_ok=True)
        # One at a time, so that nobody takes a folder for ended whose lock is not taken yet.
        alone = os.open(self.runs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(alone, fcntl.LOCK_EX)
            for left in map(Paths, self.runs.iterdir()):
                with contextlib.suppress(FileNotFoundError):  # its run has just removed it
                    if left.holder() is None and time.time() - left.directory.lstat().st_mtime > _KEPT_SECONDS:
                        left.remove()
            made = Paths(Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=self.runs)))
            made.prepare()
            lock = made.take_lock()
        finally:
            os.close(alone)
        if lock is None:
            raise LaptopError(f"{made.lock} is held by another process", hint="try again")
        return made, lock

    def remove(self) -> None:
        """Remove the folder with all that is in it, once its connection has ended."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def prepare(self) -> None:
        """Make the folder, 0700. Raises LaptopError if it belongs to another user or cannot be made."""
        try:
            self.directory.parent.mkdir(parents=True, exist_ok=True)
            self.directory.mkdir(mode=0o700, exist_ok=True)
            found = self.directory.lstat()
            if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
                self.directory.chmod(0o700)
        except OSError as error:
            raise LaptopError(
                f"{self.directory} cannot be made: {error.strerror}",
                hint="set XDG_RUNTIME_DIR or XDG_STATE_HOME to a folder of yours.",
            ) from error
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise LaptopError(
                f"{self.directory} is not a folder of yours", hint="remove it, or set XDG_RUNTIME_DIR to one of yours."
            )
        if len(os.fsencode(self.socket)) > MAX_SOCKET_PATH:
            raise LaptopError(
                f"{self.socket} is too long for a socket's name", hint="set XDG_RUNTIME_DIR to a shorter folder."
            )

    def take_lock(self) -> int | None:
        """A descriptor that holds the lock, or None when a session (or another ``connect``) has it.

        The lock belongs to the open file: it is held until the last process that inherited the descriptor ends.
        """
        descriptor = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def write_lock(self, descriptor: int, pid: int) -> None:
        """Record who holds the lock, for a ``disconnect`` that gets no answer."""
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{pid}\n".encode(), 0)

    def holder(self) -> int | None:
        """The pid of the live session, None when there is none.

        0 when the lock is held but no session has written its pid yet: a ``connect`` is about to start it.
        """
        try:
            descriptor = os.open(self.lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.pread(descriptor, 32, 0).strip()
            return int(text) if text.isdigit() else 0
        else:
            return None
        finally:
            os.close(descriptor)


def _is_private(path: Path, uid: int) -> bool:
    try:
        found = path.stat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == uid


def _home(environ: Mapping[str, str]) -> Path:
    home = environ.get("HOME", "")
    if Path(home).is_absolute():
        return Path(home)
    try:
        return Path.home()
    except RuntimeError:  # a uid without an entry in passwd, as containers have
        return _temporary()


def _temporary(folder: Path = Path("/tmp")) -> Path:  # noqa: S108 -- who owns it is looked at, here and in prepare()
    """A folder of that user's own in place of a home. Raises LaptopError if another user has made it first."""
    path = folder / f"meshdev-{os.getuid()}"
    try:
        found = path.lstat()
    except FileNotFoundError:
        try:
            path.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise LaptopError(
                f"{path} cannot be made: {error.strerror}", hint="set HOME, XDG_RUNTIME_DIR or XDG_STATE_HOME."
            ) from error
        found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise LaptopError(f"{path} is not a folder of yours alone", hint="set HOME, XDG_RUNTIME_DIR or XDG_STATE_HOME.")
    return path
