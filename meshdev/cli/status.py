"""``meshdev status``: the connection and what is left over. Never needs privileges, always exits 0."""

import os
from typing import Final

from meshdev.cli import api, leftovers, render
from meshdev.cli.options import Format, Output
from meshdev.cli.status_text import status_text
from meshdev.state import Paths
from meshdev.wire.message import dump
from meshdev.wire.session_api import Status

EXAMPLE: Final = "Example: meshdev status -o json"

#: A helper whose session is gone undoes everything in milliseconds: worth waiting for, to report the final state.
_UNDO_SECONDS: Final = 1.0
#: Characters of the reason.
_LONGEST: Final = 1000


def command(output: Output = Format.TEXT) -> None:
    """Show the state of the connection.

    Cluster, address, routes, names, intercepts, and what an earlier connection left behind. Never needs root.
    """
    status = current(Paths.locate())
    if output is Format.JSON:
        render.print_json(dump(status))
    else:
        render.print_text(status_text(status))


def current(paths: Paths) -> Status:
    """The status as far as it is known without the session."""
    found = api.find(paths)
    if found is None:
        return _without_session(os.getuid(), paths)
    if found.status is None:
        note = f"{found.name} does not answer ({found.why}); `meshdev disconnect` ends it"
        return Status(state="reconnecting", session_pid=found.pid or None, notes=(note,))
    return found.status


def _without_session(uid: int, paths: Paths) -> Status:
    if leftovers.wait_undone(uid, _UNDO_SECONDS):
        return Status(state="disconnected", leftovers=leftovers.find(uid), notes=_ended(paths))
    note = "a helper is running, but its session cannot be found: was XDG_RUNTIME_DIR different?"
    return Status(state="reconnecting", helper_pid=leftovers.live_helper(uid), notes=(note,))


def _ended(paths: Paths) -> tuple[str, ...]:
    """Why the last connection ended, unless it was asked to."""
    try:
        return (f"the last connection ended at {paths.ended.read_text(errors='replace').strip()[:_LONGEST]}",)
    except OSError:
        return ()
