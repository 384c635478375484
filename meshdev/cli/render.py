"""Output: answers on stdout, as text or as JSON, and errors. Progress is in :mod:`meshdev.cli.progress`."""

import contextlib
import json
import sys
from collections.abc import Mapping, Sequence

from meshdev.errors import MeshdevError
from meshdev.text import visible_lines

#: Of the first column, where lines have a name.
NAME_WIDTH = 10


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
