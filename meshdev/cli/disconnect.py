"""``meshdev disconnect``: ask the session to undo everything; if it does not answer, end it."""

import contextlib
import os
import signal
from typing import Final

from meshdev.cli import api, leftovers, render
from meshdev.errors import LaptopError
from meshdev.state import Paths
from meshdev.wire.session_api import DisconnectRequest

EXAMPLE: Final = "Example: meshdev disconnect"

#: A session undoes everything in well under a second; intercepts leave by draining, up to 25 s (docs/intercepts.md).
_UNDO_SECONDS: Final = 40.0

#: How long a session has between SIGTERM and SIGKILL.
_TERM_SECONDS: Final = 3.0

_HELPER_SECONDS: Final = 10.0


def command() -> None:
    """End the connection.

    All changes to this machine are undone. The traffic-manager stays in the cluster.
    """
    paths = Paths.locate()
    found = disconnect(paths)
    paths.ended.unlink(missing_ok=True)
    render.print_text("Disconnected" if found else "Not connected")
    left = leftovers.find(os.getuid())
    if left:
        render.print_text("Something is left over: `meshdev restore` removes it")


def disconnect(paths: Paths) -> bool:
    """End the session, if there is one, and wait until its helper has undone everything.

    Raises LaptopError if it does not end.
    """
    found = end_session(paths)
    leftovers.wait_undone(os.getuid(), _HELPER_SECONDS)
    return found


def end_session(paths: Paths) -> bool:
    """End the session, if there is one, and wait for its end. Raises LaptopError if it does not end."""
    found = api.find(paths)
    if found is None:
        return False
    if found.status is None or not _ask(paths):
        _end(paths, found.pid)
    if not api.wait_gone(paths, _TERM_SECONDS):
        raise LaptopError(f"{found.name} does not end", hint=f"end it with: kill -9 {found.pid}")
    return True


def _ask(paths: Paths) -> bool:
    with contextlib.suppress(api.NoAnswer):
        api.ask(paths, DisconnectRequest(), _UNDO_SECONDS)
        return api.wait_gone(paths, _TERM_SECONDS)
    return paths.holder() is None


def _end(paths: Paths, pid: int) -> None:
    """The pid is the session's as long as the lock is held. The helper undoes everything when the session is gone."""
    for number, seconds in ((signal.SIGTERM, _TERM_SECONDS), (signal.SIGKILL, _TERM_SECONDS)):
        if pid and paths.holder() == pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
            if api.wait_gone(paths, seconds):
                return
