"""Signals as something to wait for: while a command has processes to look after, nothing may end it half-way."""

import signal
import socket
from types import FrameType, TracebackType
from typing import Final, Self

#: What ends a command: Ctrl-C, kill, the terminal's end.
ENDING: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


class Signals:
    """Catches ENDING and SIGCHLD for the time of a ``with``; readable (:meth:`fileno`) when one has arrived.

    What the caller ignores stays ignored (``nohup``, jobs in the background). Children get the defaults back: a
    caught signal is reset by exec.
    """

    def __init__(self) -> None:
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)
        self.fileno = self._receiver.fileno

    def __enter__(self) -> Self:
        self._wakeup = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        caught = [number for number in ENDING if signal.getsignal(number) is not signal.SIG_IGN]
        self._former = {number: signal.signal(number, _nothing) for number in (*caught, signal.SIGCHLD)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        self._receiver.close()
        self._sender.close()

    def take(self) -> set[int]:
        """The signals that arrived since the last call."""
        try:
            return set(self._receiver.recv(4096))
        except BlockingIOError:
            return set()


def _nothing(_number: int, _frame: FrameType | None) -> None:
    """The wakeup descriptor has the number already."""
