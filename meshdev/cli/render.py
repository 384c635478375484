"""Output: progress on stderr, answers on stdout, as text or as JSON.

On a terminal rich draws a spinner while something is waited for; it is imported only then, after the processes that
take time have been started. Without a terminal there is a plain line a step.
"""

import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TextIO

from meshdev.errors import MeshdevError
from meshdev.text import age, visible, visible_lines
from meshdev.wire.session_api import Event, Note, Status, Step, Wait

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status as Spinner

_NAME_WIDTH = 10


def printable(text: str) -> str:
    """*text* of one or more lines without what a terminal would act on (:mod:`meshdev.text`)."""
    return visible_lines(text)


def indented(text: str) -> str:
    """The same with further lines indented, so that a webhook's message cannot imitate lines of ours."""
    return visible_lines(text).replace("\n", "\n  ")


def print_json(value: Mapping[str, object] | Sequence[Mapping[str, object]]) -> None:
    """The answer of ``-o json``; at once, as the command may stay."""
    print(json.dumps(value, indent=2), flush=True)


def print_text(text: str) -> None:
    """The answer as text; at once."""
    print(printable(text), flush=True)


def print_error(error: MeshdevError, *, as_json: bool) -> None:
    """The message and the hint on stderr; or the error as JSON on stdout."""
    if as_json:
        print_json({"error": error.as_json()})
        return
    # A full or closed stderr changes nothing about the exit code, as with coreutils.
    with contextlib.suppress(OSError):
        print(f"meshdev: {indented(error.message)}", file=sys.stderr)
        if error.hint:
            print(printable(error.hint), file=sys.stderr, flush=True)


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
                self._print(f"{name:<{_NAME_WIDTH}} {text} ({_duration(seconds)})")
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
                self._line("[green]✓[/] ", f"{name:<{_NAME_WIDTH}} {text}", f" [dim]{_duration(seconds)}[/]")
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


def status_text(status: Status) -> str:
    """The status for people: what is known, a line each."""
    lines = [_headline(status)]
    lines += [f"  {name:<{_NAME_WIDTH}} {visible(value)}" for name, value in _details(status) if value]
    lines += [f"  {name:<{_NAME_WIDTH}} {value}" for name, value in _intercepts(status)]
    lines += [f"note: {visible(note)}" for note in status.notes]
    if status.leftovers:
        lines.append("Left over from a connection that crashed:")
        lines += [f"  {leftover}" for leftover in status.leftovers]
        lines.append("`meshdev restore` removes it.")
    return "\n".join(lines)


def _intercepts(status: Status) -> list[tuple[str, str]]:
    if not status.intercepts:
        return []
    from meshdev.cli import intercept_text  # noqa: PLC0415 -- only where there are some

    return [
        pair
        for each in status.intercepts
        for pair in (("intercept", intercept_text.line(each)), *intercept_text.identities(each))
    ]


def _headline(status: Status) -> str:
    where = f" to {status.context}" if status.context else ""
    server = f" ({status.server})" if status.server else ""
    namespace = f", namespace {status.namespace}" if status.namespace else ""
    state = "Connected (degraded)" if status.state == "degraded" else status.state.capitalize()
    return f"{state}{where}{server}{namespace}"


def _details(status: Status) -> list[tuple[str, str]]:
    up = sum(carrier.up for carrier in status.carriers)
    pool = f"{up} of {len(status.carriers)} up" if status.carriers else ""
    rtt = [carrier.rtt_ms for carrier in status.carriers if carrier.rtt_ms is not None]
    fastest = f"{min(rtt):.1f} ms" if rtt else ""
    dns = status.dns
    names = f"{', '.join(dns.domains)} ({dns.integration}, nameserver {dns.nameserver})" if dns else ""
    manager = f"{status.manager_namespace}/{status.manager_pod}" if status.manager_pod else ""
    pids = (("session", status.session_pid), ("helper", status.helper_pid))
    return [
        ("since", "" if status.since_s is None else age(status.since_s)),
        ("address", status.address or ""),
        ("carrier", ", ".join(part for part in (status.carrier, pool, fastest) if part)),
        ("routes", ", ".join(status.routes)),
        ("names", names),
        ("manager", manager),
        ("metrics", status.metrics or ""),
        ("otlp", status.otlp or ""),
        ("processes", ", ".join(f"{name} {pid}" for name, pid in pids if pid)),
    ]
