"""``meshdev restore``: after the worst, undo what dead helpers left on this machine. A live one is left alone."""

import os
from typing import Final

from meshdev.cli import leftovers, render
from meshdev.cli.launch import restore_command, run_as_root
from meshdev.errors import LaptopError

EXAMPLE: Final = "Example: meshdev restore"


def command() -> None:
    """Undo what a dead connection left behind.

    For a connection that ended the hard way. A live one is not touched.
    """
    uid = os.getuid()
    found = leftovers.find(uid)
    if not found:
        render.print_text("Nothing to restore")
        return
    run_as_root(restore_command(uid))
    left = leftovers.find(uid)
    if left:
        raise LaptopError(f"still there: {', '.join(left)}", hint="is it in use? try again")
    for leftover in found:
        render.print_text(f"Restored: {leftover}")
