"""A program with its descendants as one thing: one process group, one output, one end."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import IO, Final, cast

from meshdev.processes import guard
from meshdev.processes.guard import KILL_SECONDS, LOOK_SECONDS, ProcessGuard

_READ: Final = 65536


class ProcessGroup:
    """A running program, in a session of its own: keys of the terminal reach only the command.

    It has no input; its output and errors are one stream, readable at :meth:`fileno`.
    """

    def __init__(
        self,
        words: Sequence[str],
        *,
        directory: str,
        env: Mapping[str, str],
        stop_seconds: float,
        guard: ProcessGuard,
    ) -> None:
        """Start it; *env* is all of its environment. Raises OSError."""
        self._guard = guard
        self._stop_seconds = stop_seconds
        self._lingering: float | None = None
        self._process = subprocess.Popen(
            words,
            cwd=directory,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=guard.announcing(stop_seconds),  # noqa: PLW1509 -- commands have one thread
        )
        self.pid = self._process.pid
        self._output = cast("IO[bytes]", self._process.stdout)
        os.set_blocking(self._output.fileno(), False)
        self.fileno = self._output.fileno

    def read(self) -> bytes | None:
        """What it has printed; None at the end of its output."""
        try:
            return os.read(self._output.fileno(), _READ) or None
        except BlockingIOError:
            return b""

    def signal(self, *, kill: bool) -> None:
        """SIGTERM or SIGKILL to all of it."""
        guard.send(self.pid, signal.SIGKILL if kill else signal.SIGTERM)

    def exit_code(self) -> int | None:
        """That of the program (128 + n after signal n), once nothing of its group is left; None before.

        What the program leaves behind is ended: by SIGTERM, and when its time is over by SIGKILL.
        """
        code = self._process.poll()
        if code is None:
            return None
        now = time.monotonic()
        if self._lingering is None:
            self._lingering = now + self._stop_seconds
            self.signal(kill=False)
        if guard.alive(self.pid) and now < self._lingering + KILL_SECONDS:
            if now >= self._lingering:
                self.signal(kill=True)
            return None
        self._guard.gone(self.pid)
        return 128 - code if code < 0 else code

    def due(self) -> float | None:
        """When :meth:`exit_code` is to be asked although there was no SIGCHLD."""
        return None if self._lingering is None else time.monotonic() + LOOK_SECONDS

    def close(self) -> None:
        """Read no more."""
        self._output.close()
