"""The reference of all commands as a man page, meshdev(1), in the macros of man(7)."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from meshdev.config import VERSION

if TYPE_CHECKING:
    from meshdev.cli.reference import ExitStatus, Parameter, Reference

#: Of the version, not of the day on which the page is made: who makes it again gets the same.
_DATE: Final = "2026-11-29"


def page(everything: Sequence["Reference"], statuses: Sequence["ExitStatus"]) -> str:
    """The whole page; *everything* begins with meshdev itself."""
    return "\n".join(_lines(everything, statuses)) + "\n"


def _lines(everything: Sequence["Reference"], statuses: Sequence["ExitStatus"]) -> Iterator[str]:
    meshdev, *commands = everything
    yield '.\\" Made of the code by `make docs`.'
    yield f'.TH MESHDEV 1 "{_DATE}" "meshdev {VERSION}" "User Commands"'
    yield ".SH NAME"
    yield r"meshdev \- " + _text(meshdev.summary[0].lower() + meshdev.summary[1:].rstrip("."))
    yield ".SH SYNOPSIS"
    yield from _usage(meshdev)
    yield ".SH DESCRIPTION"
    yield _text(meshdev.summary)
    yield from (line for paragraph in meshdev.details for line in (".PP", _text(paragraph)))
    yield ".SH OPTIONS"
    yield from _parameters(meshdev.options)
    yield ".SH COMMANDS"
    for command in commands:
        yield f".SS {_text(command.name)}"
        yield from _command(command)
    yield ".SH EXIT STATUS"
    yield from _item("0", "It is done, or there was nothing to do.")
    for status in statuses:
        yield from _item(str(status.number), status.cause)
    yield ".PP"
    yield "meshdev run exits with the code of the program that it ran, and with 125 where meshdev itself failed."
    yield ".SH SEE ALSO"
    yield r".BR kubectl (1)"


def _command(command: "Reference") -> Iterator[str]:
    yield _text(command.summary)
    yield from (line for paragraph in command.details for line in (".PP", _text(paragraph)))
    yield ".PP"
    yield from _usage(command)
    yield from _parameters(command.arguments)
    yield from _parameters(command.options)
    if command.examples:
        yield from (".PP", "For example:", ".PP", ".nf", ".RS")
        yield from map(_text, command.examples)
        yield from (".RE", ".fi")


def _usage(command: "Reference") -> Iterator[str]:
    program, typed = command.usage.partition(" [")[::2]
    yield f".B {_text(program)}" if typed else f".B {_text(command.usage)}"
    if typed:
        yield _text(f"[{typed}")


def _parameters(parameters: Sequence["Parameter"]) -> Iterator[str]:
    for each in parameters:
        names = ", ".join(rf"\fB{_text(name)}\fR" for name in each.names)
        value = rf"\fI{_text(each.value)}\fR" if each.value else ""
        yield from (".TP", " ".join(filter(None, (names, value))), _text(each.help))


def _item(head: str, text: str) -> Iterator[str]:
    yield from (".TP", rf"\fB{head}\fR", _text(text))


def _text(text: str) -> str:
    """*text* as it is to be read: hyphens that can be copied, no requests, no escapes."""
    plain = text.replace("\\", r"\e").replace("-", r"\-").replace("`", "").replace("…", "...")
    return rf"\&{plain}" if plain.startswith((".", "'")) else plain
