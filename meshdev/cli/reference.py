"""The reference of all commands, made of the code: docs/cli.md and the man page. ``make docs`` writes both.

``python -m meshdev.cli.reference FOLDER``. Nothing depends on the terminal's width, on rich or on the day.
"""

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path
from typing import Any, Final

import typer

from meshdev.cli import manpage, markdown
from meshdev.cli.commands import app
from meshdev.cli.registry import COMMANDS
from meshdev.errors import MeshdevError

#: Below the folder of the documentation; what makes each.
PAGES: Final = {"cli.md": markdown.page, "man/meshdev.1": manpage.page}


@dataclass(frozen=True)
class Parameter:
    """An option, or an argument, which has no names; *value* is its metavar, empty for a flag."""

    names: tuple[str, ...]
    value: str
    help: str


@dataclass(frozen=True)
class Reference:
    """A command, or meshdev itself, whose *name* is empty."""

    name: str
    summary: str
    details: tuple[str, ...]
    usage: str
    arguments: tuple[Parameter, ...]
    options: tuple[Parameter, ...]
    examples: tuple[str, ...]


@dataclass(frozen=True)
class ExitStatus:
    """Why a command ends with it."""

    number: int
    cause: str


def main(folder: Path) -> None:
    """Write the pages into *folder*."""
    for name, text in pages().items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def pages() -> Mapping[str, str]:
    """What is to be in each file."""
    group = typer.main.get_command(app)
    everything = [_reference("", group), *(_reference(name, group.commands[name]) for name in COMMANDS)]  # type: ignore[attr-defined]  # typer says Command, and it is CommandGroup
    statuses = sorted(_statuses(MeshdevError), key=lambda status: status.number)
    return {name: page(everything, statuses) for name, page in PAGES.items()}


def _statuses(kind: type[MeshdevError]) -> Iterator[ExitStatus]:
    if kind.__module__ == MeshdevError.__module__:
        yield ExitStatus(kind.exit_code, (kind.__doc__ or "").partition("\n")[0])
        for child in kind.__subclasses__():
            yield from _statuses(child)


def _reference(name: str, command: Any) -> Reference:  # noqa: ANN401 -- a command of typer's click, which has no stable name
    summary, *details = _paragraphs(command.help)
    options = tuple(_parameter(each) for each in command.params if each.param_type_name == "option" and not each.hidden)
    arguments = tuple(_parameter(each) for each in command.params if each.param_type_name == "argument")
    typed = " ".join(each.value for each in arguments) if name else "COMMAND"
    return Reference(
        name,
        summary,
        tuple(details),
        " ".join(filter(None, ("meshdev", name, "[OPTIONS]" if options else "", typed))),
        arguments,
        options,
        tuple(_examples(command.epilog or "")) if name else (),
    )


def _paragraphs(text: str) -> list[str]:
    return [" ".join(part.split()) for part in re.split(r"\n\s*\n", cleandoc(text).partition("\f")[0])]


def _examples(epilog: str) -> Iterator[str]:
    for line in epilog.replace("\b", "").splitlines():
        example = re.sub(r"^(Examples?|Start with):\s*", "", line.strip())
        if example:
            yield example


def _parameter(parameter: Any) -> Parameter:  # noqa: ANN401 -- as above
    """Short names behind long ones, as the help has them before: `--output`, `-o`."""
    option = parameter.param_type_name == "option"
    flag = option and parameter.is_flag
    choices = getattr(parameter.type, "choices", None)
    value = "" if flag else parameter.metavar or ("|".join(map(_text, choices)) if choices else "")
    if not value and not flag:
        value = str(parameter.name).upper()  # what a type is called differs between versions of typer
    notes = [" ".join((getattr(parameter, "help", None) or "").split())]
    if option and not flag and not parameter.multiple and parameter.default is not None:
        notes.append(f"Default: {_text(parameter.default)}.")
    if parameter.envvar:
        notes.append(f"Environment: ${parameter.envvar}.")
    names = tuple(sorted(parameter.opts, key=len, reverse=True)) if option else ()
    return Parameter(names, value, " ".join(filter(None, notes)))


def _text(value: object) -> str:
    return str(getattr(value, "value", value))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
