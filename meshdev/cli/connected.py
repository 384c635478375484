"""For commands that need a connection: use the existing one, or make one for the time of the command."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from meshdev.cli import connect
from meshdev.cli.disconnect import disconnect
from meshdev.cli.progress import ProgressView, progress_view
from meshdev.cli.signals import Signals
from meshdev.errors import MeshdevError
from meshdev.state import Paths
from meshdev.wire.session_api import ConnectOptions, Note, Status, Wait


@dataclass
class Here:
    """What a command has while connected. *ours*: the connection ends with the command; set it to False to keep it."""

    paths: Paths
    signals: Signals
    progress: ProgressView
    ours: bool
    lost: bool = False
    """The connection was ours and ended before the command did."""


@contextmanager
def connected(
    paths: Paths, wanted: ConnectOptions, check: Callable[[Status, ConnectOptions], None] = connect.check_cluster
) -> Iterator[Here]:
    """Be connected inside, and disconnect what was connected; progress is shown on stderr.

    *check* raises AlreadyConnectedError where an existing connection is not the right one.
    Signals are caught inside and ignored afterwards. Raises what connecting raises.
    """
    found = connect.lock_or_status(paths)
    if isinstance(found, Status):
        check(found, wanted)
    with Signals() as signals, contextlib.closing(progress_view()) as progress:
        if not isinstance(found, Status):
            connect.start(paths, found, wanted, signals, progress)
        here = Here(paths, signals, progress, ours=not isinstance(found, Status))
        try:
            yield here
        except BaseException:
            with _noted(progress):
                _disconnect(here)
            raise
        _disconnect(here)


def _disconnect(here: Here) -> None:
    if here.ours:
        here.progress.show(Wait("disconnecting"))
        here.lost = not disconnect(here.paths)


@contextmanager
def _noted(progress: ProgressView) -> Iterator[None]:
    """Show an error inside as a note only: another one came first."""
    try:
        yield
    except MeshdevError as error:
        progress.show(Note(error.message))
