"""Options whose value may be left out, which typer has not: its parser takes the next word, whatever that is."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from typer.core import TyperCommand


def filled(words: Sequence[str], defaults: Mapping[str, str]) -> list[str]:
    """*words* with the default behind each of those options that the end or another option follows.

    For commands without arguments of their own: what does not begin with a hyphen is the value.
    """
    return [
        f"{word}={defaults[word]}" if word in defaults and after.startswith("-") else word
        for word, after in pairwise((*words, "-"))
    ]


def command_class(defaults: Mapping[str, str]) -> type[TyperCommand]:
    """The class for a command with such options."""

    class Command(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 -- a context of typer's click
            return super().parse_args(ctx, filled(args, defaults))

    return Command
