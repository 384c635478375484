"""The counts of an intercept that is up, on stderr: in place on a terminal, else a line now and then."""

import shutil
import sys
import time
from collections.abc import Callable
from typing import Final

from meshdev.cli.render import printable

#: Between two lines where they are kept, in seconds: a log of days stays readable.
LINE_SECONDS: Final = 5.0


class Counting:
    """Shows the newest text. Written plainly: rich's spinner would turn for hours."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.in_place = sys.stderr.isatty()
        self._shown = ""
        self._held: str | None = None
        self._next = 0.0

    def show(self, text: str) -> None:
        """This instead of the last one; in a log at once or, soon after another line, when it is :meth:`due`."""
        self._held = None if text == self._shown else printable(text)
        self.tick()

    def due(self) -> float | None:
        """Seconds until :meth:`tick` has something to show; None: it has nothing."""
        return None if self._held is None else max(0.0, self._next - self._clock())

    def tick(self) -> None:
        """Show what was held back, if it is time."""
        if self._held is None or self._clock() < self._next:
            return
        self._shown, self._held = self._held, None
        if self.in_place:
            room = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[K{self._shown[:room]}", end="", file=sys.stderr, flush=True)
        else:
            self._next = self._clock() + LINE_SECONDS
            print(self._shown, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Nothing is held back any more; what comes next gets a line of its own, as does the next count."""
        self._next = 0.0
        self.tick()
        if self.in_place and self._shown:
            print(file=sys.stderr)
        self._shown = ""
