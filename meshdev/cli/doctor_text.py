"""How ``doctor`` looks: a group of lines each, the way out below a finding."""

import os
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, TextIO

import typer

from meshdev.cli.render import print_text
from meshdev.doctor.verdicts.finding import Examined, FindingState
from meshdev.text import visible

_COLORS: Final[Mapping[FindingState, str]] = {
    "ok": "green",
    "warning": "yellow",
    "failed": "red",
    "skipped": "bright_black",
}
_SIGNS: Final[Mapping[FindingState, str]] = {"ok": "✓", "warning": "!", "failed": "✗", "skipped": "-"}
_WORDS: Final[Mapping[FindingState, str]] = {"ok": "ok", "warning": "warning", "failed": "failed", "skipped": "skipped"}
_NARROWEST: Final = 60


@dataclass(frozen=True)
class Look:
    """What the output can show; *width* in characters, 0 where lines are not wrapped."""

    signs: Mapping[FindingState, str]
    color: bool
    width: int

    @classmethod
    def of(cls, file: TextIO) -> "Look":
        """Signs and colors on a terminal that has them; words in pipes, which have no lines of a width either."""
        if not file.isatty():
            return cls(_WORDS, color=False, width=0)
        plain = os.environ.get("TERM") == "dumb" or "NO_COLOR" in os.environ
        signs = _SIGNS if (file.encoding or "").lower().replace("-", "") == "utf8" else _WORDS
        return cls(signs, not plain, max(shutil.get_terminal_size().columns, _NARROWEST))


def show(found: Sequence[Examined]) -> None:
    """All of it, on stdout."""
    look = Look.of(sys.stdout)
    # print_text would make colors visible: it is for words of others, which `rendered` makes safe itself.
    (typer.echo if look.color else print_text)(rendered(found, look))


def rendered(found: Sequence[Examined], look: Look) -> str:
    """The groups in order, and a line that counts."""
    widest = max(len(each.check) for each in found)
    lines: list[str] = []
    for group, members in groupby(found, key=lambda each: each.group):
        lines.append(typer.style(group, bold=True) if look.color else group)
        for each in members:
            lines += _lines(each, look, widest)
        lines.append("")
    return "\n".join([*lines, _total(found)])


def _lines(each: Examined, look: Look, widest: int) -> list[str]:
    signs = max(map(len, look.signs.values()))
    sign = look.signs[each.finding.state].ljust(signs)
    indent = " " * (2 + signs + 1 + widest + 2)
    first = f"  {_colored(sign, each.finding.state, look)} {each.check:<{widest}}  "
    lines = _wrapped(each.finding.detail, indent, look)
    lines[0] = first + lines[0].lstrip()
    for part in (each.finding.hint or "").splitlines():
        lines += _wrapped(part, f"{indent}  ", look, mark="→ " if look.signs is _SIGNS else "> ")
    return lines


def _wrapped(text: str, indent: str, look: Look, mark: str = "") -> list[str]:
    text = f"{indent}{mark}{visible(text)}"
    if not look.width:
        return [text]
    return textwrap.wrap(
        text, look.width, subsequent_indent=indent + " " * len(mark), break_long_words=False, break_on_hyphens=False
    ) or [text]


def _colored(sign: str, state: FindingState, look: Look) -> str:
    return typer.style(sign, fg=_COLORS[state]) if look.color else sign


def _total(found: Sequence[Examined]) -> str:
    states = [each.finding.state for each in found]
    counted = [f"{states.count(state)} {word}" for state, word in _WORDS.items() if state in states]
    return ", ".join(counted)
