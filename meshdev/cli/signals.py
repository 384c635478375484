"""Signals as events to wait for, so that no signal ends a command half-way."""

import signal
import socket
from types import FrameType, TracebackType
from typing import Final, Self

#: What ends a command: Ctrl-C, kill, the terminal's end.
ENDING: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


class Ended(Exception):  # noqa: N818 -- an end, not a fault
    """The command ends with *exit_code*; there is nothing more to report."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


class Signals:
    """Catches ENDING and SIGCHLD for the time of a ``with``; readable (:meth:`fileno`) when one has arrived.

    It is the last step of a command: afterwards they are ignored, so that the exit code says what the command did and
    not when a key was pressed. What the caller ignores stays ignored (``nohup``, jobs in the background).
    Children get the defaults: a caught signal is reset by exec.
    """

    def __init__(self) -> None:
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)
        self.fileno = self._receiver.fileno

    def __enter__(self) -> Self:
        signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        for number in (*ENDING, signal.SIGCHLD):
            self.catch(number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        self._receiver.close()
        self._sender.close()

    def catch(self, number: int) -> None:
        """Catch this one, too, from now on."""
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _nothing)

    def take(self) -> set[int]:
        """The signals that arrived since the last call, each once."""
        try:
            return set(self._receiver.recv(4096))
        except BlockingIOError:
            return set()


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """The wakeup descriptor has the number already."""
