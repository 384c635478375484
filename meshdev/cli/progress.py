"""Progress of a long command, on stderr.

On a terminal rich draws a spinner while something is waited for; it is imported only then, after the processes that
take time have been started. Without a terminal there is a plain line a step.
"""

import contextlib
import sys
from typing import TYPE_CHECKING, Protocol, TextIO

from meshdev.cli.render import NAME_WIDTH, indented
from meshdev.text import visible
from meshdev.wire.session_api import Event, Note, Step, Wait

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status as Spinner


class ProgressView(Protocol):
    """How a long command shows its progress."""

    def show(self, event: Event) -> None:
        """A step, a note, or what is waited for."""
        ...

    def cancelling(self) -> None:
        """The user cancelled; everything is being undone."""
        ...

    def pause(self) -> None:
        """Another program (sudo) writes to the terminal until the next event."""
        ...

    def close(self) -> None:
        """Nothing more comes; a second call does nothing."""
        ...


def progress_view() -> ProgressView:
    """The one that fits stderr."""
    return TerminalProgress() if sys.stderr.isatty() else PlainProgress(sys.stderr)


class PlainProgress:
    """A line a step, for logs and pipes."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._waiting = ""

    def show(self, event: Event) -> None:
        """A line, once for each thing that is waited for."""
        match event:
            case Step(name, text, seconds):
                self._print(f"{name:<{NAME_WIDTH}} {text} ({_duration(seconds)})")
            case Note(text):
                self._print(f"note: {text}")
            case Wait(text) if text != self._waiting:
                self._waiting = text
                self._print(f"waiting: {text}")
            case _:
                pass

    def cancelling(self) -> None:
        """A line."""
        self._print("Interrupted: undoing everything")

    def pause(self) -> None:
        """Nothing is moving here."""

    def close(self) -> None:
        """Nothing is open here."""

    def _print(self, text: str) -> None:
        with contextlib.suppress(OSError):  # progress that cannot be shown does not stop the command
            print(indented(text), file=self._file, flush=True)


class TerminalProgress:
    """A line a step and a spinner for what is under way."""

    def __init__(self) -> None:
        self._console: Console | None = None
        self._spinner: Spinner | None = None

    def show(self, event: Event) -> None:
        """A line, or another text beside the spinner."""
        match event:
            case Step(name, text, seconds):
                self._line("[green]✓[/] ", f"{name:<{NAME_WIDTH}} {text}", f" [dim]{_duration(seconds)}[/]")
                self._spin("")
            case Note(text):
                self._line("[yellow]![/] ", text, "")
            case Wait(text):
                self._spin(text)
            case _:
                pass

    def cancelling(self) -> None:
        """Beside the spinner; the ``^C`` that the terminal echoed gets its own line."""
        self._spin("Interrupted: undoing everything")

    def pause(self) -> None:
        """Take the spinner away."""
        if self._spinner:
            self._spinner.stop()

    def close(self) -> None:
        """Take the spinner away."""
        self.pause()
        self._spinner = None

    def _terminal(self) -> "Console":
        if self._console is None:
            from rich.console import Console  # noqa: PLC0415 -- 0.1 s, spent while the processes start

            self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        return self._console

    def _line(self, before: str, text: str, after: str) -> None:
        from rich.markup import escape  # noqa: PLC0415 -- see _terminal

        self._terminal().print(f"{before}{escape(indented(text))}{after}")

    def _spin(self, text: str) -> None:
        from rich.markup import escape  # noqa: PLC0415 -- see _terminal

        text = escape(visible(text))
        if self._spinner is None:
            self._spinner = self._terminal().status(text, spinner="dots")
        else:
            self._spinner.update(text)
        self._spinner.start()


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 0.1 else f"{seconds:.1f} s"
