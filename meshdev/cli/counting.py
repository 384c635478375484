"""The counts of an intercept that is up, on stderr: on a terminal in place, else a line now and then."""

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from meshdev.cli.render import printable

#: Between two lines where they are kept, in seconds: a log of days stays readable.
LINE_SECONDS: Final = 5.0
#: Between two drawings in place.
DRAW_SECONDS: Final = 0.25
#: Lines of a terminal that stay for others.
_AROUND: Final = 3


class Counting:
    """Shows the newest text. Written plainly: rich's spinner would turn for hours."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.in_place = sys.stderr.isatty()
        self._shown = ""
        self._height = 0
        """Lines that are drawn."""
        self._below: Sequence[str] = ()
        self._held: str | None = None
        self._next = 0.0

    @property
    def columns(self) -> int:
        """How long a line in place may be."""
        return shutil.get_terminal_size().columns - 1

    def show(self, text: str) -> None:
        """This instead of the last one; soon after another one, when it is :meth:`due`."""
        self._held = None if text == self._shown else printable(text)
        self.tick()

    def show_below(self, lines: Sequence[str]) -> None:
        """These below the text that was shown, on a terminal."""
        if self.in_place and lines != self._below:
            self._below = lines
            self._held = self._shown if self._held is None else self._held
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
            self._next = self._clock() + DRAW_SECONDS
            self._draw()
        else:
            self._next = self._clock() + LINE_SECONDS
            print(self._shown, file=sys.stderr, flush=True)

    def end(self) -> None:
        """Nothing is held back any more; what comes next gets a line of its own, as does the next count."""
        self._next = 0.0
        self.tick()
        if self._height:
            print(file=sys.stderr)
        self._next = 0.0
        self._shown, self._height = "", 0

    def _draw(self) -> None:
        """Over what is drawn. The cursor stays at its end, where the terminal echoes a ``^C``."""
        columns = self.columns
        lines = [self._shown, *self._below][: max(1, shutil.get_terminal_size().lines - _AROUND)]
        begin = f"\x1b[{self._height - 1}A" if self._height > 1 else ""
        text = "\n".join(f"\r\x1b[K{line[:columns]}" for line in lines)
        print(f"{begin}{text}\x1b[J" if self._height > 1 else text, end="", file=sys.stderr, flush=True)
        self._height = len(lines)
