"""Logging in at the bastion of ``--ssh`` before the session starts: here is the terminal on which it may ask."""

import selectors
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from meshdev.cli.launch import open_log
from meshdev.cli.progress import ProgressView
from meshdev.cli.signals import ENDING, Signals
from meshdev.errors import Cancelled
from meshdev.state import Paths
from meshdev.wire.session_api import Step

if TYPE_CHECKING:
    from meshdev.ssh.jump import Jump


@contextmanager
def logged_in(target: str | None, paths: Paths, signals: Signals, progress: ProgressView) -> Iterator["Jump | None"]:
    """The way through *target*, which lasts as long as the session has it; None without a target.

    Raises SshError, UnreachableError, Cancelled.
    """
    if target is None:
        yield None
        return
    from meshdev.ssh.jump import BastionProcess  # noqa: PLC0415 -- asyncio: with --ssh only

    with open_log(paths.log) as log:
        forwarder = BastionProcess(target, log)
    try:
        _wait(forwarder.fileno(), signals)
    except BaseException:
        forwarder.cancel()
        raise
    jump, seconds = forwarder.result()
    progress.show(Step("ssh", target, seconds))
    try:
        yield jump
    finally:
        jump.close()  # the session has its own by now, or there is none


def _wait(descriptor: int, signals: Signals) -> None:
    """Until there is something to read. Raises Cancelled."""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        selector.register(signals, selectors.EVENT_READ)
        while not any(key.fd == descriptor for key, _ in selector.select()):
            if signals.take() & ENDING:
                raise Cancelled("interrupted; nothing was begun")
