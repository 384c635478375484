"""``meshdev restore``: undo what helpers that died left on this machine; a running one is not touched."""

import os
from typing import Final

from meshdev.cli import leftovers, render
from meshdev.cli.launch import restore_command, run_as_root
from meshdev.errors import LaptopError

EXAMPLE: Final = "Example: meshdev restore"


def command() -> None:
    """Undo what a crashed connection left behind.

    A running connection is not touched.
    """
    uid = os.getuid()
    found = leftovers.find(uid)
    if not found:
        render.print_text("Nothing to restore")
        return
    run_as_root(restore_command(uid))
    left = leftovers.find(uid)
    if left:
        raise LaptopError(f"still there: {', '.join(left)}", hint="if it is in use, stop that and try again")
    for leftover in found:
        render.print_text(f"Restored: {leftover}")
