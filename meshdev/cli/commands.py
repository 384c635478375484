"""All commands, and the one place that turns errors into a message and an exit code."""

import errno
import io
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Annotated

import typer

from meshdev.cli import render
from meshdev.cli.registry import RUNS_PROGRAMS, CommandGroup
from meshdev.cli.signals import Ended
from meshdev.errors import Cancelled, MeshdevError, UsageError

app = typer.Typer(
    name="meshdev",
    cls=CommandGroup,
    help="Connect this machine to a Kubernetes cluster and run the service you work on here.",
    epilog="Start with: meshdev connect",
    add_completion=False,
    rich_markup_mode=None,  # with rich, every start would cost 0.1 s more
    pretty_exceptions_enable=False,
)

#: What typer raises for a command line it cannot read. It brings its own copy of click since 0.26, so the class has
#: no stable name; BadParameter's base has been UsageError's base, ClickException, in click and in the copy.
_ClickError: type[Exception] = typer.BadParameter.__mro__[2]


@app.callback(invoke_without_command=True)
def _meshdev(
    context: typer.Context,
    *,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    _debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of unexpected errors.")] = False,
) -> None:
    if show_version:
        from meshdev.cli import version  # noqa: PLC0415 -- as every command: when it is called

        version.command()
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def run(words: list[str], call: Callable[[list[str]], object] | None = None) -> int:
    """Run the command line *words* and return its exit code; errors are printed. *call* is for tests."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, signal.default_int_handler)
        code = (call or _call)(words)
    except (typer.Exit, Ended) as left:
        return left.exit_code
    except BrokenPipeError:
        return 1
    except (Exception, KeyboardInterrupt) as caught:  # noqa: BLE001 -- the outermost edge: the user reads this
        error = _as_ours(caught)
        if type(error) is MeshdevError and "--debug" in words:
            traceback.print_exception(caught)
        return _report(error, words)
    if code == Cancelled.exit_code:  # what typer turns KeyboardInterrupt into since 0.26
        return _report(Cancelled("interrupted"), words)
    return code if isinstance(code, int) else 0


def _report(error: MeshdevError, words: list[str]) -> int:
    try:
        render.print_error(error, as_json=wants_json(words))
    except BrokenPipeError:
        pass
    except OSError:  # stdout is full or closed
        render.print_error(error, as_json=False)
    if _runs_program(words) and not isinstance(error, Cancelled):
        from meshdev.cli.run import FAILED  # noqa: PLC0415 -- the same

        return FAILED  # every other code is the program's own
    return error.exit_code


def _call(words: list[str]) -> object:
    return app(words, prog_name=program(), standalone_mode=False)


def program() -> str:
    """How this command is called: kubectl runs the program ``kubectl-meshdev`` for ``kubectl meshdev``."""
    return "kubectl meshdev" if PurePath(sys.argv[0]).name == "kubectl-meshdev" else "meshdev"


def _as_ours(error: BaseException) -> MeshdevError:
    match error:
        case MeshdevError():
            return error
        case KeyboardInterrupt() | typer.Abort():
            return Cancelled("interrupted")
        case OSError(errno=errno.ENOSPC | errno.EBADF | errno.EIO, filename=None):
            return MeshdevError(f"standard output cannot be written: {error.strerror}")
        case _ClickError():
            return UsageError(_one_line(error), hint=f"see {program()} --help")
        case _:
            sentence = f"internal error: {type(error).__name__}: {error}"
            return MeshdevError(sentence, hint="run it again with --debug for the traceback")


def wants_json(words: Sequence[str]) -> bool:
    """Whether ``-o json`` (of env also ``--format``) is on the command line, also on one that cannot be parsed."""
    if _runs_program(words):
        return False
    for at, word in enumerate(words):
        if word == "--":
            return False
        if word in ("-ojson", "-o=json", "--output=json", "--format=json"):
            return True
        if word in ("-o", "--output", "--format") and words[at + 1 : at + 2] == ["json"]:
            return True
    return False


def _runs_program(words: Sequence[str]) -> bool:
    return next((word for word in words if not word.startswith("-")), "") == RUNS_PROGRAMS


def _one_line(error: Exception) -> str:
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return " ".join(str(message).split()).rstrip(".")
