"""A command of a laptop on a terminal of its own."""

import fcntl
import os
import pty
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.e2e.conftest import CHECKOUT, Laptop

_CTRL_C: Final = b"\x03"
_LINES: Final = 40


class TerminalCommand:
    """It runs. ``seen`` is all that it has written."""

    def __init__(self, laptop: Laptop, *argv: str, columns: int = 160) -> None:
        self.seen = ""
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _LINES, columns, 0, 0))
        self._process = subprocess.Popen(
            laptop.command(*argv),
            cwd=CHECKOUT,
            env={**os.environ, "TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 -- the only way to a terminal
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def write(self, text: str) -> None:
        """As typed."""
        os.write(self._ours, text.encode())

    @property
    def ended(self) -> bool:
        """It has exited."""
        return self._process.poll() is not None

    def type(self, text: str) -> None:
        """Type it."""
        os.write(self._ours, text.encode())

    def wait(self, seconds: float) -> int:
        """The exit code, once it has ended by itself."""
        return self._process.wait(seconds)

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        os.write(self._ours, _CTRL_C)
        try:
            return self._process.wait(60)
        finally:
            self._process.kill()
            self._reader.join(10)
            os.close(self._ours)

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._ours, 65536)
            except OSError:  # EIO: nobody has the other side open any more
                return
            if not data:
                return
            self.seen += data.decode(errors="replace")


@contextmanager
def on_terminal(laptop: Laptop, *argv: str, columns: int = 160) -> Iterator[TerminalCommand]:
    """It runs inside, and is interrupted at the end."""
    running = TerminalCommand(laptop, *argv, columns=columns)
    try:
        yield running
    finally:
        running.interrupt()
