"""For commands that need a connection: use the existing one, or make one for the time of the command."""

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from meshdev.cli import bastion, connect
from meshdev.cli.disconnect import disconnect, end_session
from meshdev.cli.follow import Follower
from meshdev.cli.launch import Processes
from meshdev.cli.progress import ProgressView, progress_view
from meshdev.cli.signals import Signals
from meshdev.errors import LaptopError, MeshdevError
from meshdev.state import Paths
from meshdev.wire.session_api import ConnectOptions, Note, Status, Wait
from meshdev.wire.values import listen_address

_ANY_PORT: Final = listen_address("127.0.0.1:0")


@dataclass
class Here:
    """What a command has while connected. *ours*: the connection ends with the command; set it to False to keep it."""

    paths: Paths
    signals: Signals
    progress: ProgressView
    ours: bool
    status: Status
    lost: bool = False
    """The connection was ours and ended before the command did."""
    isolated: bool = False
    """It is in namespaces of its own, those of the helper."""

    @property
    def helper(self) -> int:
        """The helper's process. Raises LaptopError where the session does not know it."""
        if self.status.helper_pid is None:
            raise LaptopError("the session does not say which process its helper is", hint="upgrade meshdev")
        return self.status.helper_pid


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
        status = found
        if not isinstance(status, Status):
            status = connect.start(paths, status, wanted, signals, progress)
        here = Here(paths, signals, progress, ours=not isinstance(found, Status), status=status)
        with _disconnecting(here):
            yield here


@contextmanager
def connected_alone(paths: Paths, wanted: ConnectOptions, *, proxy: bool = False) -> Iterator[Here]:
    """The same in namespaces of the connection's own, for this command alone: it ends with this process in any case.

    *paths* are the user's, whose other connections are not looked at. *proxy*: it serves one, ``status.socks``.
    """
    wanted = replace(wanted, isolated=True, attended=True, socks=_ANY_PORT if proxy else None)
    own, lock = paths.of_run()
    with (
        Signals() as signals,
        contextlib.closing(progress_view()) as progress,
        _processes(own, lock, wanted, signals, progress) as processes,
    ):
        status = Follower(own, processes, signals, progress).run(wanted)
        here = Here(own, signals, progress, ours=True, status=status, isolated=True)
        with _disconnecting(here):
            yield here
    if not here.lost:
        own.remove()  # otherwise, and where something failed, its logs stay for a while


@contextmanager
def _processes(
    own: Paths, lock: int, wanted: ConnectOptions, signals: Signals, progress: ProgressView
) -> Iterator[Processes]:
    try:
        with bastion.logged_in(wanted.ssh, own, signals, progress) as jump:
            processes = Processes(own, lock, jump, isolated=True)
    finally:
        os.close(lock)  # the session has it
    with contextlib.closing(processes):
        yield processes


@contextmanager
def _disconnecting(here: Here) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with _noted(here.progress):
            _disconnect(here)
        raise
    _disconnect(here)


def _disconnect(here: Here) -> None:
    if here.ours:
        here.progress.show(Wait("disconnecting"))
        here.lost = not (end_session if here.isolated else disconnect)(here.paths)


@contextmanager
def _noted(progress: ProgressView) -> Iterator[None]:
    """Show an error inside as a note only: another one came first."""
    try:
        yield
    except MeshdevError as error:
        progress.show(Note(error.message))
