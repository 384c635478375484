"""``meshdev down``: end what ``meshdev up`` of the same file runs."""

import time
from typing import Final

from meshdev.cli import options, render
from meshdev.cli.api import wait_gone
from meshdev.cli.options import Format
from meshdev.cli.project_files import DEFAULT, FileOption
from meshdev.errors import ProcessError
from meshdev.state import Paths
from meshdev.wire.answers import DownAnswer
from meshdev.wire.message import dump

EXAMPLE: Final = "Example: meshdev down -f meshdev.yaml"

#: An `up` that is connecting answers afterwards.
_CONNECT_SECONDS: Final = 300.0
#: What is left of an `up` that was killed ends within the times of its processes.
_LEFT_SECONDS: Final = 60.0


def command(*, file: FileOption = DEFAULT, output: options.Output = Format.TEXT) -> None:
    """End the processes and intercepts of a project file.

    Returns once nothing of it is left. A connection that `meshdev up` found stays; one that it made is ended.
    """
    from meshdev.cli.project_files import ProjectFile  # noqa: PLC0415 -- as in `up`

    found = down(ProjectFile.of(file).paths(Paths.locate()))
    if output is Format.JSON:
        render.print_json(dump(DownAnswer(found)))
    else:
        render.print_text("Ended" if found else "Not up")


def down(project: Paths) -> bool:
    """End it and wait; return whether there was something. Raises ProcessError where it does not end."""
    from meshdev.cli.project_api import ProjectClient  # noqa: PLC0415 -- this command only

    found = False
    deadline = time.monotonic() + _LEFT_SECONDS
    while (pid := project.holder()) is not None:
        found = True
        try:
            client = ProjectClient(project)
        except OSError:  # it is starting or ending, or was killed: its lock is free when nothing is left
            if time.monotonic() > deadline:
                raise _does_not_end(pid) from None
            wait_gone(project, 0.1)
            continue
        try:
            status = client.ask("down", _CONNECT_SECONDS)
            seconds = status.undo_s if status else _LEFT_SECONDS
            client.wait_end(seconds)
        except TimeoutError:
            raise _does_not_end(pid) from None
        finally:
            client.close()
        if not wait_gone(project, seconds):
            raise _does_not_end(pid)
    return found


def _does_not_end(pid: int) -> ProcessError:
    return ProcessError("what runs the project does not end", hint=f"end it with: kill -9 {pid}" if pid else None)
