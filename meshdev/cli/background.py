"""A command that goes on in the background: a fork that reports to the process that waits for it.

A fork and not a program that is started anew: the connection is made in the foreground, where sudo can ask, and what
has been read and locked is used as it is.
"""

import contextlib
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Final

from meshdev.cli import render
from meshdev.cli.signals import ENDING, Signals
from meshdev.errors import MeshdevError, ProcessError
from meshdev.wire.jsonlines import LineSplitter
from meshdev.wire.session_api import Failed, Note, encode_event, parse_event

#: Of the log, where it failed.
_LAST_LINES: Final = 20
_LAST_BYTES: Final = 16 << 10


class BackgroundFollower:
    """The side that waits, and ends when the other one is up."""

    def __init__(self, reports: socket.socket, pid: int, log: Path) -> None:
        self._reports = reports
        self._pid = pid
        self._log = log

    def wait(self, signals: Signals) -> None:
        """Until it is up. Raises what it failed with. A signal ends it; then it reports that everything is undone."""
        splitter = LineSplitter()
        with self._reports:
            while True:
                select.select([self._reports.fileno(), signals.fileno()], [], [])
                if signals.take() & ENDING:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(self._pid, signal.SIGTERM)
                with contextlib.suppress(BlockingIOError):
                    data = self._reports.recv(65536)
                    for line in splitter.feed(data):
                        event = parse_event(line)
                        if isinstance(event, Failed):
                            self._print_log()
                            raise event.as_error()
                        return
                    if not data:
                        self._print_log()
                        raise ProcessError("it ended without giving a reason", hint=f"its log: {self._log}")

    def _print_log(self) -> None:
        """Its end: the reason mostly stands there."""
        with contextlib.suppress(OSError), self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - _LAST_BYTES))
            lines = log.read().decode(errors="replace").splitlines()[-_LAST_LINES:]
            print(render.printable("\n".join(lines)), file=sys.stderr, flush=True)


class BackgroundReports:
    """The side in the background."""

    def __init__(self, reports: socket.socket) -> None:
        self._reports = reports

    def up(self) -> None:
        """It is up; nobody waits any more."""
        self._send(encode_event(Note("up")))

    def failed(self, error: MeshdevError) -> None:
        """It is over, with everything undone."""
        self._send(encode_event(Failed.of(error)))

    def _send(self, line: bytes) -> None:
        with contextlib.suppress(OSError), self._reports:  # whoever waited may have been killed
            self._reports.sendall(line, socket.MSG_NOSIGNAL)


def fork(log: Path) -> BackgroundFollower | BackgroundReports:
    """Fork. The one in the background has no terminal, no input, and its output is *log*."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid:
        theirs.close()
        ours.setblocking(False)
        return BackgroundFollower(ours, pid, log)
    ours.close()
    os.setsid()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(nothing)
    os.close(output)
    return BackgroundReports(theirs)
