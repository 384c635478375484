"""What `up` prints: lines of its processes, and its own, each with a name before it."""

import contextlib
import os
import sys
from collections.abc import Iterable
from typing import Final

from meshdev.cli.render import indented
from meshdev.processes.lines import PrefixedLines
from meshdev.wire.session_api import Event, Note, Step, Wait

_OURS: Final = "meshdev"
#: The log of a project in the background begins anew beyond this: where it lies may be memory.
_MAX_LOG: Final = 8 << 20


class ProjectOutput:
    """Lines of processes go to the descriptor *processes*, meshdev's own to stderr."""

    def __init__(self, names: Iterable[str], processes: int, *, limited: bool = False) -> None:
        """*limited*: the descriptor is a log of ours, opened to append."""
        self._descriptor = processes
        self._limited = limited
        self._names = list(names)
        self._width = max(map(len, (*self._names, _OURS)))
        colored = os.isatty(processes) and not os.environ.get("NO_COLOR")
        self._lines = {
            name: PrefixedLines(name, self._width, number if colored else None)
            for number, name in enumerate(self._names)
        }

    def printed(self, name: str, data: bytes) -> None:
        """A process has printed that. Raises OSError where stdout cannot be written."""
        self._write(self._lines[name].feed(data))

    def ended(self, name: str) -> None:
        """No more comes of its output."""
        self._write(self._lines[name].end())

    def say(self, text: str) -> None:
        """A line of meshdev's own, or several."""
        for line in indented(text).splitlines():
            with contextlib.suppress(OSError):  # as progress: that it cannot be shown does not end anything
                print(f"{_OURS:<{self._width}} | {line}", file=sys.stderr, flush=True)

    def show(self, what: str, event: Event) -> None:
        """Progress of an intercept."""
        match event:
            case Step(name, text, seconds):
                self.say(f"{what}: {name} {text} ({seconds:.1f} s)")
            case Note(text):
                self.say(f"{what}: note: {text}")
            case Wait(text):
                self.say(f"{what}: waiting: {text}")
            case _:
                pass

    def _write(self, lines: list[bytes]) -> None:
        data = b"".join(lines)
        if self._limited and data and os.fstat(self._descriptor).st_size > _MAX_LOG:
            os.ftruncate(self._descriptor, 0)
        while data:
            data = data[os.write(self._descriptor, data) :]
