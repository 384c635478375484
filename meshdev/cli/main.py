"""The command ``meshdev``: its commands, and the one place where errors become a sentence and an exit code."""

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from meshdev.cli import connect, disconnect, rbac, render, restore, status, uninstall, version
from meshdev.errors import Cancelled, MeshdevError, UsageError

app = typer.Typer(
    name="meshdev",
    help="Connect this machine to a Kubernetes cluster and run the service you work on here.",
    epilog="Start with: meshdev connect",
    add_completion=False,
    rich_markup_mode=None,  # with rich, every start would cost 0.1 s more
    pretty_exceptions_enable=False,
)

for _module in (connect, disconnect, status, restore, uninstall, rbac, version):
    app.command(name=_module.__name__.rpartition(".")[2], epilog=_module.EXAMPLE)(_module.command)

#: What typer raises for a command line it cannot read. It brings its own copy of click since 0.26, so the class has
#: no stable name; BadParameter's base has been UsageError's base, ClickException, in click and in the copy.
_ClickError: type[Exception] = typer.BadParameter.__mro__[2]


@app.callback(invoke_without_command=True)
def _meshdev(
    context: typer.Context,
    *,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
    _debug: Annotated[bool, typer.Option("--debug", help="Print the traceback of unexpected errors.")] = False,
) -> None:
    if show_version:
        version.command()
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a replaced stream may lack it
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # TextIO does not declare it
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # between commands' own handlers: as Ctrl-C
    code = run(words, lambda: app(words, prog_name="meshdev", standalone_mode=False))
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # `meshdev status | head -0`: nobody reads, nobody is to be told
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def run(words: Sequence[str], call: Callable[[], object]) -> int:
    """The exit code of *call*, after whatever it raised has been told."""
    try:
        call()
    except typer.Exit as left:
        return left.exit_code
    except BrokenPipeError:
        return 1
    except (Exception, KeyboardInterrupt) as caught:  # noqa: BLE001 -- the outermost edge: a person reads this
        error = _as_ours(caught)
        if type(error) is MeshdevError and "--debug" in words:
            traceback.print_exception(caught)
        with contextlib.suppress(BrokenPipeError):
            render.print_error(error, as_json=wants_json(words))
        return error.exit_code
    return 0


def _as_ours(error: BaseException) -> MeshdevError:
    match error:
        case MeshdevError():
            return error
        case KeyboardInterrupt() | typer.Abort():
            return Cancelled("interrupted")
        case _ClickError():
            return UsageError(_one_line(error), hint="meshdev --help says how")
        case _:
            sentence = f"this should not have happened: {type(error).__name__}: {error}"
            return MeshdevError(sentence, hint="with --debug it says where")


def wants_json(words: Sequence[str]) -> bool:
    """Whether ``-o json`` stands on the command line, also on one that cannot be read otherwise."""
    for at, word in enumerate(words):
        if word == "--":
            return False
        if word in ("-ojson", "-o=json", "--output=json"):
            return True
        if word in ("-o", "--output") and words[at + 1 : at + 2] == ["json"]:
            return True
    return False


def _one_line(error: Exception) -> str:
    message = error.format_message() if hasattr(error, "format_message") else str(error)
    return " ".join(str(message).split()).rstrip(".")
