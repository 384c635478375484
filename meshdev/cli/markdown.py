"""The reference of all commands as docs/cli.md."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meshdev.cli.reference import ExitStatus, Parameter, Reference

_HEAD = """\
# Commands

`make docs` writes this page from the code. In a terminal the same is in `meshdev COMMAND --help`, and in `man meshdev`.
What each exit code means is on a [page of its own](exit-codes.md)."""


def page(everything: Sequence["Reference"], _statuses: Sequence["ExitStatus"]) -> str:
    """The whole page; *everything* begins with meshdev itself."""
    meshdev, *commands = everything
    table = ["| command | what it does |", "|---|---|"]
    table += [f"| [{each.name}](#meshdev-{each.name}) | {_cell(each.summary)} |" for each in commands]
    parts = [_HEAD, "\n".join(table), "\n\n".join(_options(meshdev, "Options before the command"))]
    parts += ["\n\n".join(_section(each)) for each in commands]
    return "\n\n".join(parts) + "\n"


def _section(command: "Reference") -> Iterator[str]:
    yield f"## meshdev {command.name}"
    yield command.summary
    yield from command.details
    yield f"```text\n{command.usage}\n```"
    yield from _table("argument", command.arguments)
    yield from _options(command, "Options")
    if command.examples:
        yield "```sh\n{}\n```".format("\n".join(command.examples))


def _options(command: "Reference", title: str) -> Iterator[str]:
    yield from _table(title.lower().replace("options", "option", 1), command.options)


def _table(title: str, parameters: Sequence["Parameter"]) -> Iterator[str]:
    if parameters:
        rows = [f"| {_cell(_typed(each))} | {_cell(each.help)} |" for each in parameters]
        yield "\n".join([f"| {title} | |", "|---|---|", *rows])


def _typed(parameter: "Parameter") -> str:
    """``--output``, ``-o`` and its value, each as code."""
    if not parameter.names:
        return f"`{parameter.value}`"
    *others, last = parameter.names
    return ", ".join(f"`{each}`" for each in (*others, f"{last} {parameter.value}".rstrip()))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
