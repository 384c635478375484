"""Starting the processes of a connection: the session as the user, the helper as root.

Both start at once. The socketpair between them is made here, so neither needs to find the other::

    helper   stdin = one end; stdout and stderr = helper.log        sudo passes nothing else on
    session  --progress FD --helper FD --lock FD [--ssh FD]         stdout and stderr = session.log

The descriptors of this process's caller go to neither. The helper detaches itself once it has root: the process
started here (sudo, or the helper's first one) then ends with 0.
"""

import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from meshdev.cli.child import terminal
from meshdev.cli.options import anchored
from meshdev.errors import LaptopError, MeshdevError, ProtocolError, SudoError
from meshdev.helper.trust import callers, check_installation
from meshdev.state import Paths
from meshdev.wire.session_api import parse_failure

if TYPE_CHECKING:
    from meshdev.ssh.jump import Jump

PROMPT: Final = "[meshdev] password for %p: "

#: What ``sudo -n`` prints when it would have to ask (sudo 1.8–1.9 and sudo-rs, in the C locale).
_WOULD_ASK: Final = re.compile(r"(password|authentication) is required")

#: A log beyond this is set aside when the next session starts.
_LOG_LIMIT: Final = 1 << 20

_NO_ROOT: Final = (
    "connecting needs root for the helper alone: run it on a terminal, allow it without a password in sudoers, "
    "or run meshdev as root. `meshdev run` and `meshdev connect --socks` need none where user namespaces work."
)


def helper_command() -> list[str]:
    """The helper's command; ``-I`` keeps environment and current folder from choosing code that runs as root."""
    return [sys.executable, "-I", "-m", "meshdev.helper"]


def session_command() -> list[str]:
    """The session; ``-P`` keeps the current folder from choosing its code."""
    return [sys.executable, "-P", "-m", "meshdev.session"]


def is_root() -> bool:
    """Whether the helper can be started as it is."""
    return os.geteuid() == 0


def as_root(command: list[str], *, ask: bool) -> list[str]:
    """*command* with root's power: as it is for root, else by sudo, which may *ask* on the terminal."""
    if is_root():
        return command
    how = ["-p", PROMPT] if ask else ["-n"]
    return ["sudo", *how, "--", *command]


def has_terminal() -> bool:
    """Whether sudo could ask: it opens /dev/tty by itself, whatever our stdin is."""
    try:
        with terminal():
            return True
    except OSError:
        return False


@dataclass(frozen=True)
class Attempt:
    """One start of the helper."""

    process: subprocess.Popen[bytes]
    asking: bool
    log: Path
    log_start: int
    unprivileged: bool = False

    def output(self) -> str:
        """What sudo or the helper wrote, one line."""
        return " ".join(self._log().decode(errors="replace").split())

    def wants_password(self) -> bool:
        """Whether it failed only because it was not allowed to ask."""
        return not self.asking and _WOULD_ASK.search(self.output()) is not None

    def error(self) -> MeshdevError:
        """Why there is no helper: its own error, which is JSON, or sudo's message."""
        with contextlib.suppress(ProtocolError):
            return _own_error(self._log(), self.process.returncode)
        output = self.output().removeprefix("sudo: ")
        if is_root() or self.unprivileged:
            return SudoError(f"the helper did not start: {output or 'it printed nothing'}", hint=f"its log: {self.log}")
        return SudoError(f"the helper did not get root: {output or 'sudo refused'}", hint=_NO_ROOT)

    def _log(self) -> bytes:
        with self.log.open("rb") as log:
            log.seek(self.log_start)
            return log.read(65536)


class Processes:
    """The processes of one connection while ``connect`` waits for it. Close it when done, whatever happened."""

    def __init__(self, paths: Paths, lock: int, jump: "Jump | None" = None, *, isolated: bool = False) -> None:
        """Start the session. *lock* is the held lock; the session inherits it, the caller may close its own. So it
        does the *jump* through which it reaches the API server.

        *isolated*: the helper makes namespaces of its own and needs no root; the session ends with :attr:`progress`.
        Raises LaptopError, before anything is started, where others could change what would run as root.
        """
        if not isolated:
            check_installation(callers(os.getuid()))
        self._paths = paths
        self._isolated = isolated
        self._helper_end, self._session_end = socket.socketpair()
        self.progress, progress_end = socket.socketpair()
        self.helper: Attempt | None = None
        with progress_end, open_log(paths.log) as log:
            ends = {"--progress": progress_end, "--helper": self._session_end}
            descriptors = {**{flag: end.fileno() for flag, end in ends.items()}, "--lock": lock}
            if jump is not None:
                descriptors["--ssh"] = jump.fileno()
            arguments = [word for flag, number in descriptors.items() for word in (flag, str(number))]
            arguments += ["--folder", str(paths.directory)]
            self.session = subprocess.Popen(
                [*session_command(), *arguments],
                cwd="/",
                env=anchored(os.environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=tuple(descriptors.values()),
                start_new_session=True,
            )
        paths.write_lock(lock, self.session.pid)

    def start_helper(self, *, ask: bool) -> None:
        """Start the helper, or start it again after :meth:`Attempt.wants_password`. Raises SudoError without sudo."""
        path = self._paths.helper_log
        with open_log(path) as log:
            start = log.tell()
            try:
                process = subprocess.Popen(
                    self._helper_command(ask=ask),
                    cwd="/",
                    env=_c_locale(os.environ),
                    stdin=self._helper_end.fileno(),
                    stdout=log,
                    stderr=log,
                )
            except OSError as error:
                raise _no_sudo(error) from error
        self.helper = Attempt(process, ask, path, start, unprivileged=self._isolated)

    def _helper_command(self, *, ask: bool) -> list[str]:
        if self._isolated:
            return [*helper_command(), "--isolated", str(self._paths.directory)]
        return as_root(helper_command(), ask=ask)

    def release_helper(self) -> None:
        """Give up our copy of the helper's end: from now on the session sees when the helper is gone."""
        self._helper_end.close()

    def helper_gone(self, seconds: float) -> bool:
        """After the session's end: whether the helper is gone too, and so everything undone, within *seconds*.

        It reads end of file, as no process writes any more; we do when its last copy of the socket is closed.
        """
        self._helper_end.close()
        self._session_end.settimeout(seconds)
        try:
            self._session_end.shutdown(socket.SHUT_WR)
            while self._session_end.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:  # reset, or no longer connected: no process holds it
            return True
        return True

    def close(self) -> None:
        """Let go of everything; a session that has not sent "done" then undoes what it did."""
        self.progress.close()
        self._helper_end.close()
        self._session_end.close()


def restore_command(uid: int) -> list[str]:
    """The helper that undoes what dead ones left behind for *uid*."""
    return [*helper_command(), "--restore", str(uid)]


def run_as_root(command: list[str]) -> str:
    """What *command* prints, run as root. Raises SudoError where it cannot be, else the helper's own error.

    LaptopError where others could change what would run as root.
    """
    check_installation(callers(os.getuid()))
    try:
        ran = subprocess.run(
            as_root(command, ask=has_terminal()),
            check=False,
            cwd="/",
            env=_c_locale(os.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
    except OSError as error:
        raise _no_sudo(error) from error
    if ran.returncode == 0:
        return ran.stdout
    with contextlib.suppress(ProtocolError):
        raise _own_error(ran.stderr.encode(), ran.returncode)
    output = " ".join(ran.stderr.split())
    if output.startswith("sudo:"):
        raise SudoError(f"the helper did not get root: {output.removeprefix('sudo: ')}", hint=_NO_ROOT)
    raise LaptopError(f"the helper failed: {output or f'exit code {ran.returncode}'}")


def _own_error(output: bytes, code: int) -> MeshdevError:
    """The error in the helper's last line. Raises ProtocolError where that is none of its own."""
    return parse_failure(output.strip().rpartition(b"\n")[2], code).as_error()


def _no_sudo(error: OSError) -> SudoError:
    missing = isinstance(error, FileNotFoundError)
    sentence = "sudo is not installed" if missing else f"sudo cannot be started: {error.strerror}"
    return SudoError(sentence, hint="install sudo, or run meshdev as root.")


def _c_locale(environ: Mapping[str, str]) -> dict[str, str]:
    return {**environ, "LC_ALL": "C"}  # sudo's messages are parsed (_WOULD_ASK)


def open_log(path: Path) -> BinaryIO:
    """*path* for appending, 0600; a long one is set aside first."""
    with contextlib.suppress(FileNotFoundError):
        if path.lstat().st_size > _LOG_LIMIT:
            path.replace(path.with_suffix(".old.log"))
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "ab")
