"""Start a program in the network of another process, and give it no power over that network.

The program keeps uid, gid, groups, directory, stdio and signals of whoever starts it. It gets a further user namespace
around it, so it has no capability over the network: not even root's own program can change routes, rules or mounts.
"""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from meshdev.errors import IsolationError
from meshdev.isolation import linux

_NAMESPACES: Final = linux.CLONE_NEWUSER | linux.CLONE_NEWNET | linux.CLONE_NEWNS
_REASON_BYTES: Final = 512


class Joining:
    """The way into the namespaces of a process: looked up before a fork, taken by the child."""

    def __init__(self, pid: int) -> None:
        """*pid* has called :func:`~meshdev.isolation.own.enter_own_network`. Raises IsolationError when it is gone.

        It may be of this user only, and must be dumpable: the kernel asks what it asks of ptrace (setns(2)).
        """
        try:
            self._pidfd = os.pidfd_open(pid)
        except OSError as error:
            raise IsolationError(f"the network of process {pid} is gone: {error.strerror}") from error
        self._uid, self._gid = os.geteuid(), os.getegid()
        try:
            self._folder: Path | None = Path.cwd()
        except FileNotFoundError:  # somebody removed it; the program starts in /
            self._folder = None

    def close(self) -> None:
        """Forget it."""
        os.close(self._pidfd)

    def enter(self) -> None:
        """Go there, without threads, and be powerless there. Raises OSError."""
        linux.setns(self._pidfd, _NAMESPACES)
        if self._folder is not None:
            os.chdir(self._folder)  # a mount namespace is entered at its root
        linux.unshare(linux.CLONE_NEWUSER)
        linux.set_dumpable()
        linux.map_ids(self._uid, self._gid)


def start_inside(pid: int, words: Sequence[str], env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a program in the namespaces of *pid*, with our stdio, directory and group of processes.

    *env*: its environment; None: ours. It gets SIGTERM should this process end before it.

    Raises IsolationError, and OSError where the program cannot be executed.
    """
    joining = Joining(pid)
    reading, writing = os.pipe()
    # A handler of ours would take in the child what is meant for the program: Ctrl-C would be lost.
    caught = [number for number in signal.valid_signals() if callable(signal.getsignal(number))]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, caught)

    def enter() -> None:
        for number in caught:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        try:
            joining.enter()
            linux.end_with_parent(signal.SIGTERM)
        except OSError as error:  # subprocess would keep the reason for itself
            os.write(writing, (error.strerror or str(error)).encode()[:_REASON_BYTES])
            raise

    try:
        # A launcher of our own (python -m …) would take an interpreter's start more. What makes a preexec_fn dangerous
        # is a lock that another thread holds at the fork: this one calls functions of libc that were looked up before,
        # and system calls. Its child has one thread, which is what namespaces ask for.
        return subprocess.Popen(words, env=env, preexec_fn=enter)  # noqa: PLW1509 -- see above
    except subprocess.SubprocessError as error:
        os.set_blocking(reading, False)  # whoever failed has written, and has ended
        reason = os.read(reading, _REASON_BYTES).decode(errors="replace")
        raise IsolationError(f"the network of process {pid} cannot be entered: {reason}") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.close(reading)
        os.close(writing)
        joining.close()
