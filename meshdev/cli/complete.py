"""What a shell completes: behind ``meshdev completion`` and kubectl's plugin completion (docs/design/0034).

Output is Cobra's, which kubectl reads: a line ``VALUE<TAB>DESCRIPTION`` a candidate, and at last ``:DIRECTIVE``. The
shells' scripts (shells/) read the same. Nothing is ever said on stderr, as that would go into somebody's command line.
"""

import contextlib
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Final, NoReturn

import typer

from meshdev.cli.commands import app
from meshdev.cli.registry import COMMANDS, RUNS_PROGRAMS
from meshdev.text import visible

#: ``meshdev __complete WORD...``: the words so far, the last of them incomplete, "" where it is not begun.
WORDS: Final = "__complete"
#: ``meshdev __complete_line LINE``: the command line up to the cursor, for bash, which divides words at "=" and ":".
LINE: Final = "__complete_line"

#: Directives (https://pkg.go.dev/github.com/spf13/cobra#ShellCompDirective).
_NO_SPACE: Final = 2
_NO_FILES: Final = 4
#: A credential plugin or a server that hangs must not hold up the shell.
_SECONDS: Final = 2.0
#: What no shell interprets: a context's name may be anything, and the shells insert it as it is.
_SAFE: Final = re.compile(r"[\w@%+=:,./-]+")
_FILES: Final = frozenset({"FILE", "DIR"})


@dataclass(frozen=True)
class Candidate:
    """What may stand there, and what it is."""

    value: str
    description: str = ""


def main(words: Sequence[str]) -> NoReturn:
    """Print the candidates for the last of *words*, and exit with 0."""
    signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    with contextlib.suppress(OSError):  # the shell does not read on
        os.write(sys.stdout.fileno(), "".join(f"{line}\n" for line in lines(words)).encode())
    os._exit(0)  # no word from the interpreter's end either


def kubectl() -> NoReturn:
    """``kubectl_complete-meshdev``, which kubectl runs for ``kubectl meshdev``."""
    main(sys.argv[1:])


def lines(words: Sequence[str]) -> Iterator[str]:
    """Candidates and directive."""
    *before, incomplete = words or [""]
    found = _candidates(before, incomplete)
    for each in found:
        yield f"{each.value}\t{each.description}" if each.description else each.value
    directive = 0 if not found and _takes_files(before, incomplete) else _NO_FILES
    if found and all(each.value.endswith("/") for each in found):
        directive |= _NO_SPACE
    yield f":{directive}"


def words_of(line: str) -> list[str]:
    """The words of a command line behind the program, the last one incomplete."""
    split = shlex.shlex(line, posix=True, punctuation_chars=False)
    split.whitespace_split = True
    split.commenters = ""
    words: list[str] = []
    try:
        words.extend(split)
    except ValueError:  # a quotation mark is open: what follows it is in the lexer
        words.append(split.token)
    if not line or line[-1].isspace():
        words.append("")
    return words[1:] or [""]


def _candidates(before: Sequence[str], incomplete: str) -> list[Candidate]:
    """None where anything fails: whoever types sees the error once the command is entered."""
    command = next((word for word in before if not word.startswith("-")), None)
    if command is None and not incomplete.startswith("-"):  # without loading each of them
        return [Candidate(name, about) for name, about in COMMANDS.items() if name.startswith(incomplete)]
    if command is not None and command not in COMMANDS:
        return []
    try:
        found = [Candidate(str(each.value), _line(each.help)) for each in _completer(before, incomplete)]
    except Exception:  # noqa: BLE001 -- the outermost edge: a shell completes, nobody reads
        return []
    return [each for each in found if _SAFE.fullmatch(each.value)]


def _completer(before: Sequence[str], incomplete: str) -> Sequence[Any]:
    """Of the click that typer uses: its own copy since 0.26."""
    click = typer.BadParameter.__mro__[2].__module__.rpartition(".")[0]
    completing = import_module(f"{click}.shell_completion").ShellComplete
    # Abstract only in what concerns one shell; this is all that completing itself needs.
    line = SimpleNamespace(cli=typer.main.get_command(app), ctx_args={}, prog_name="meshdev")
    found: Sequence[Any] = completing.get_completions(line, list(before), incomplete)
    return found


def _takes_files(before: Sequence[str], incomplete: str) -> bool:
    """Whether a path may stand there: an option's, an argument's, or anything of a program's."""
    words = [word for word in before if not word.startswith("-")]
    group: Any = typer.main.get_command(app)
    command = group.commands.get(words[0]) if words else None
    if command is None:
        return False
    option = next((each for each in command.params if before[-1] in each.opts), None)
    if option is not None and not getattr(option, "is_flag", False):
        return option.metavar in _FILES
    if incomplete.startswith("-"):
        return False
    return words[0] == RUNS_PROGRAMS or any(
        each.param_type_name == "argument" and each.metavar in _FILES for each in command.params
    )


def _line(text: str | None) -> str:
    """In one line; a name from the cluster may have anything in it, and a shell shows it."""
    return visible(" ".join((text or "").split()))
