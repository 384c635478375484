"""The program of ``run``: started with our stdio, forwarded the signals, its exit code as a shell reports it."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from meshdev.cli.signals import ENDING
from meshdev.isolation.joining import start_inside

#: As in a shell (POSIX, 2.8.2).
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127

#: The terminal's driver sends these to the whole foreground process group, so the program has received them already.
_BY_KEYBOARD: Final = frozenset({signal.SIGINT, signal.SIGQUIT})


def why_not(program: str) -> tuple[int, str] | None:
    """The exit code and the reason where *program* cannot be run; looked at before anything is touched."""
    if shutil.which(program):
        return None
    if os.sep in program and Path(program).exists():
        return NOT_EXECUTABLE, "is a folder" if Path(program).is_dir() else "is not executable"
    return NOT_FOUND, "not found"


def not_run(error: OSError) -> int:
    """The exit code where the kernel does not run a program."""
    return NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE


class Child:
    """The running program. It is in our process group, so it has the terminal's foreground where we have it."""

    def __init__(
        self, words: Sequence[str], environment: Mapping[str, str] | None = None, beside: int | None = None
    ) -> None:
        """Start it, without *environment* in ours; what was caught here has its default there.

        *beside*: a process whose network it is to use. Raises OSError, and IsolationError where that network cannot be
        entered.
        """
        if beside is None:
            self._process = subprocess.Popen(words, env=environment)
        else:
            self._process = start_inside(beside, words, environment)

    def code(self) -> int | None:
        """Its exit code, 128 + n after signal n; None while it runs."""
        code = self._process.poll()
        return 128 - code if code is not None and code < 0 else code

    def give(self, signals: set[int]) -> None:
        """Forward the signals that ask a command to end, except those it received from the terminal."""
        ending = signals & (ENDING | {signal.SIGQUIT})
        for number in ending - _BY_KEYBOARD if ending & _BY_KEYBOARD and _in_foreground() else ending:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # a program that got other rights (sudo)
                self._process.send_signal(number)


@contextlib.contextmanager
def terminal() -> Iterator[int]:
    """A descriptor of the controlling terminal. Raises OSError where there is none."""
    descriptor = os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _in_foreground() -> bool:
    """Whether the keys of a terminal reach this process group."""
    try:
        with terminal() as descriptor:
            return os.tcgetpgrp(descriptor) == os.getpgrp()
    except OSError:
        return False
