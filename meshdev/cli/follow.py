"""Follow a connect to its end: the session's events, sudo's password, signals and deadlines in one loop."""

import contextlib
import selectors
import signal
import socket
import subprocess
import termios
import time
from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Final

from meshdev.cli import api
from meshdev.cli.child import terminal
from meshdev.cli.launch import Processes, has_terminal
from meshdev.cli.progress import ProgressView
from meshdev.cli.signals import ENDING, Signals
from meshdev.errors import Cancelled, LaptopError, MeshdevError, SudoError
from meshdev.state import Paths
from meshdev.wire.jsonlines import LineSplitter
from meshdev.wire.session_api import (
    ConnectOptions,
    DisconnectRequest,
    Done,
    Event,
    Failed,
    Status,
    Step,
    parse_event,
)

#: How long the session may take to undo everything.
UNDO_SECONDS: Final = 10.0

#: The password is asked for at the session's first step, so that nobody types one to learn that there is no
#: kubeconfig; or after this time.
_ASK_SECONDS: Final = 3.0

#: How long the session has to report why the helper ended, before sudo's own message is used.
_REASON_SECONDS: Final = 3.0

#: The session's errors for a helper that is gone; the process that started it knows more.
_NO_HELPER: Final = (LaptopError.code, SudoError.code)

_LEFT_BEHIND: Final = (
    "`meshdev restore` undoes what is left on this machine, `meshdev uninstall` what is in the cluster."
)


class _Root(Enum):
    """How far the start of the helper as root is."""

    STARTING = auto()
    WANTS_PASSWORD = auto()
    ASKING = auto()
    STARTED = auto()
    FAILED = auto()


class Follower:
    """One connect, from started processes to "done", or to everything undone."""

    def __init__(self, paths: Paths, processes: Processes, signals: Signals, progress: ProgressView) -> None:
        self._paths = paths
        self._processes = processes
        self._signals = signals
        self._progress = progress
        self._root = _Root.STARTING
        self._held: list[Event] = []
        self._stepped = False
        self._status: Status | None = None
        self._failed: Failed | None = None
        self._helper_error: MeshdevError | None = None
        self._cancelled = False
        self._undone = True
        self._timer: tuple[float, Callable[[], None]] | None = None
        self._terminal: list[Any] | None = None

    def run(self, options: ConnectOptions) -> Status:
        """The status once connected. Raises what went wrong, or Cancelled; then everything is undone."""
        with contextlib.suppress(OSError):  # a session that is gone already is noticed below
            self._processes.progress.sendall(options.encode())
        try:
            self._start_helper(ask=False)
            self._loop()
        finally:
            self._restore_terminal()
        if self._status and not self._cancelled:
            return self._status
        self._wait_for_session()
        raise self._outcome()

    def _loop(self) -> None:
        """Until connected, or until the session is gone."""
        progress, splitter = self._processes.progress, LineSplitter()
        progress.setblocking(False)
        with selectors.DefaultSelector() as selector:
            selector.register(progress, selectors.EVENT_READ)
            selector.register(self._signals, selectors.EVENT_READ)
            while not (self._status and not self._cancelled):
                selector.select(self._patience())
                self._on_signals(self._signals.take())
                ended = self._processes.session.poll() is not None  # checked before its last output is read
                try:
                    data = progress.recv(65536)
                except BlockingIOError:
                    if ended:
                        return
                    continue
                except OSError:
                    return
                if not data:
                    return
                for line in splitter.feed(data):
                    self._on_event(parse_event(line))

    def _patience(self) -> float | None:
        """How long to wait for the next thing; a timer that is due is run first."""
        while self._timer:
            when, action = self._timer
            left = when - time.monotonic()
            if left > 0:
                return left
            self._timer = None
            action()
        return None

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        self._timer = (time.monotonic() + seconds, action)

    def _on_event(self, event: Event) -> None:
        if self._root is _Root.ASKING and not isinstance(event, Failed):
            self._held.append(event)  # nothing may be printed into the password prompt
        elif isinstance(event, Done):
            self._status = event.status
            if self._cancelled:
                self._disconnect()
        elif isinstance(event, Failed):
            self._failed = event
            self._after(UNDO_SECONDS, self._kill)
        else:
            self._progress.show(event)
        self._stepped |= isinstance(event, Step)
        if self._stepped and self._root is _Root.WANTS_PASSWORD and not self._over():
            self._start_helper(ask=True)

    def _over(self) -> bool:
        return self._cancelled or self._failed is not None

    def _on_signals(self, numbers: set[int]) -> None:
        if self._root in (_Root.STARTING, _Root.ASKING):
            self._look_at_helper()
        if not numbers & ENDING:
            return
        if self._cancelled:
            raise Cancelled("interrupted before everything was undone", hint=_LEFT_BEHIND)
        self._cancelled = True
        self._progress.cancelling()
        self._release()
        self._after(UNDO_SECONDS, self._kill)

    def _release(self) -> None:
        """Ask the session to undo everything by end of file, which it also reads if this process is killed."""
        with contextlib.suppress(OSError):
            self._processes.progress.shutdown(socket.SHUT_WR)
        if self._processes.helper:
            with contextlib.suppress(PermissionError):  # sudo is root's; Ctrl-C reaches it by the terminal
                self._processes.helper.process.terminate()
        self._processes.release_helper()

    def _start_helper(self, *, ask: bool) -> None:
        if ask:
            self._progress.pause()
            self._remember_terminal()
        self._timer = None
        self._root = _Root.ASKING if ask else _Root.STARTING
        try:
            self._processes.start_helper(ask=ask)
        except SudoError as error:
            self._no_helper(error)

    def _look_at_helper(self) -> None:
        helper = self._processes.helper
        code = helper.process.poll() if helper else None
        if helper is None or code is None:
            return
        if code == 0:
            self._root = _Root.STARTED
            self._processes.release_helper()
        elif not self._over() and helper.wants_password() and has_terminal():
            self._root = _Root.WANTS_PASSWORD
            self._after(0 if self._stepped else _ASK_SECONDS, lambda: self._start_helper(ask=True))
            return
        else:
            self._no_helper(helper.error())
        held, self._held = self._held, []
        for event in held:
            self._on_event(event)

    def _no_helper(self, error: MeshdevError) -> None:
        self._root = _Root.FAILED
        self._helper_error = error
        self._processes.release_helper()
        self._after(_REASON_SECONDS, self._give_up)

    def _give_up(self) -> None:
        self._release()
        self._after(UNDO_SECONDS, self._kill)

    def _disconnect(self) -> None:
        """The session connected before it read our end of file; disconnect it through the session API."""
        with contextlib.suppress(api.NoAnswer, MeshdevError):
            api.ask(self._paths, DisconnectRequest(cancelled=True), UNDO_SECONDS)

    def _kill(self) -> None:
        """The last resort: the helper undoes the laptop's part by itself when the session is gone."""
        self._processes.session.kill()

    def _wait_for_session(self) -> None:
        """Until the session is gone, and the helper, which may still be starting when it is asked to end."""
        try:
            self._processes.session.wait(UNDO_SECONDS)
        except subprocess.TimeoutExpired:
            self._kill()
        if self._root in (_Root.STARTING, _Root.STARTED):
            self._undone = self._processes.helper_gone(UNDO_SECONDS)

    def _outcome(self) -> MeshdevError:
        killed = self._processes.session.poll() == -signal.SIGKILL
        if self._cancelled:
            if not self._undone:
                return Cancelled("interrupted; the helper does not end", hint=_LEFT_BEHIND)
            if killed:
                return Cancelled("interrupted; the session did not end by itself and was killed", hint=_LEFT_BEHIND)
            return Cancelled("interrupted; everything is undone")
        if self._helper_error and (self._failed is None or self._failed.code in _NO_HELPER):
            return self._helper_error
        if self._failed:
            return self._failed.as_error()
        return MeshdevError("the session ended before it was connected", hint=f"its log: {self._paths.log}")

    def _remember_terminal(self) -> None:
        with contextlib.suppress(OSError, termios.error), terminal() as descriptor:
            self._terminal = termios.tcgetattr(descriptor)

    def _restore_terminal(self) -> None:
        """sudo switches the echo off; where it was killed, nobody else would switch it on."""
        if self._terminal is not None and self._root is _Root.ASKING:
            with contextlib.suppress(OSError, termios.error), terminal() as descriptor:
                termios.tcsetattr(descriptor, termios.TCSADRAIN, self._terminal)
