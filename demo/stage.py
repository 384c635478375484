"""Where the story is told: sentences, commands as they are typed, their output, and a second terminal."""

import contextlib
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.rule import Rule
from rich.text import Text

#: How long a program of the second terminal may take to say that it is ready, and to end.
_READY_SECONDS: Final = 20.0
_END_SECONDS: Final = 15.0


class StoryError(Exception):
    """A command of the story did not do what the story says."""


class Stage:
    """Commands run where *prefix* leads (nowhere: on this machine), in a shell."""

    def __init__(self, prefix: Sequence[str], console: Console, prompt: str = "dev@laptop") -> None:
        self._prefix = list(prefix)
        self._console = console
        self._prompt = prompt

    # -- sentences -------------------------------------------------------------------------------------------------

    def title(self, text: str, picture: str) -> None:
        """How it begins."""
        self._console.print(Panel.fit(f"{text}\n\n{picture}", title="[bold]meshdev[/]", padding=(1, 3)))

    def chapter(self, text: str, picture: str = "") -> None:
        """A new part, with a picture of who asks whom in it."""
        self._console.print()
        self._console.print(Rule(f"[bold]{text}[/]", align="left", style="blue"))
        if picture:
            self._console.print(f"\n{picture}")

    def say(self, text: str) -> None:
        """A sentence of the story."""
        self._console.print(f"\n[bold]{text}[/]")

    # -- commands --------------------------------------------------------------------------------------------------

    def run(self, command: str, *, fails: bool = False) -> None:
        """Show *command*, run it, let its output be seen. Raises StoryError when it ends otherwise."""
        self._typed(command)
        since = time.monotonic()
        code = subprocess.run(self._argv(command), check=False, stdin=subprocess.DEVNULL).returncode
        self._took(command, since)
        if (code != 0) != fails:
            raise StoryError(f"`{command}` ended with {code}")

    def ask(self, command: str, expected: str, *, ours: str = "") -> None:
        """As :meth:`run`, for a command that prints *expected*; what of that is *ours* is pointed at.

        Raises StoryError when it prints something else.
        """
        self._typed(command)
        since = time.monotonic()
        done = subprocess.run(
            self._argv(command), check=False, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        answer = done.stdout.rstrip("\n")
        self._answer(answer, ours)
        self._took(command, since)
        if done.returncode != 0 or expected not in answer:
            raise StoryError(f"`{command}` printed {answer!r}, not {expected!r} (exit code {done.returncode})")

    @contextmanager
    def second_terminal(self, command: str, ready: str) -> Iterator[None]:
        """*command* runs in another terminal while the block does; it has printed *ready* by then."""
        self._typed(command, second=True)
        program = subprocess.Popen(
            [*self._prefix, "sh", "-c", f"exec {command}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C at the story is not typed there
        )
        try:
            self._second(_until_ready(program, command, ready))
            yield
        finally:
            if program.poll() is None:
                self._second("^C")
                program.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(_END_SECONDS)
            program.kill()
            if program.stdout is not None:
                program.stdout.close()
            program.wait()

    def _argv(self, command: str) -> list[str]:
        return [*self._prefix, "sh", "-c", command]

    # -- looks -----------------------------------------------------------------------------------------------------

    def _typed(self, command: str, *, second: bool = False) -> None:
        where = f"[magenta]{self._prompt} (2)[/]" if second else f"[green]{self._prompt}[/]"
        self._console.print(f"{where} $ [bold cyan]{escape(command)}[/]", soft_wrap=True)

    def _second(self, line: str) -> None:
        self._console.print(f"[magenta]│[/] {escape(line)}", soft_wrap=True)

    def _answer(self, answer: str, ours: str) -> None:
        shown = Text(answer)
        at = answer.find(ours) if ours else -1
        if at >= 0:
            shown.stylize("bold green", at, at + len(ours))
        self._console.print(shown, soft_wrap=True)
        if at >= 0:
            self._console.print(f"{' ' * at}[green]{'▔' * len(ours)} this one ran on the laptop[/]")

    def _took(self, command: str, since: float) -> None:
        """How long meshdev's own commands took."""
        if command.startswith("meshdev "):
            self._console.print(f"[dim]{time.monotonic() - since:.1f} s[/]")


def _until_ready(program: subprocess.Popen[str], command: str, ready: str) -> str:
    """The line that says so. Raises StoryError when it does not come."""
    said: list[str] = []
    found = threading.Event()

    def read() -> None:
        for line in program.stdout or ():
            said.append(line.rstrip("\n"))
            if ready in line:
                break
        found.set()

    threading.Thread(target=read, daemon=True).start()
    found.wait(_READY_SECONDS)
    if not said or ready not in said[-1]:
        raise StoryError(f"`{command}` is not ready: {' '.join(said) or 'it says nothing'}")
    return said[-1]
