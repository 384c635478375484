"""One request to the session over ``session.sock``, with a time limit."""

import socket
import time
from dataclasses import dataclass
from typing import Final, overload

from meshdev.errors import MeshdevError
from meshdev.state import Paths
from meshdev.wire.jsonlines import LineSplitter
from meshdev.wire.session_api import (
    Answer,
    DisconnectRequest,
    Question,
    Status,
    StatusRequest,
    encode_request,
    parse_answer,
)
from meshdev.wire.session_intercepts import LeaveRequest

#: A session that is well answers in a millisecond; one that does not in this time hangs.
PATIENCE_SECONDS: Final = 2.0

#: How long a session may take from its lock to its socket: Python's start, on a busy machine.
_START_SECONDS: Final = 3.0


class NoAnswer(Exception):  # noqa: N818 -- not an error by itself: each command decides what it means
    """No listener, no answer in time, or the session ended before it answered."""


class NoListener(NoAnswer):
    """There is no listener on the socket."""


@dataclass(frozen=True)
class Found:
    """A running session; *status* is None when it does not answer, and *why* is the reason."""

    pid: int
    status: Status | None
    why: str = ""

    @property
    def name(self) -> str:
        """For sentences."""
        return f"the session (pid {self.pid})" if self.pid else "the session"


def find(paths: Paths) -> Found | None:
    """The session that holds the lock, asked for its status; None when there is none."""
    patience = time.monotonic() + _START_SECONDS
    while (pid := paths.holder()) is not None:
        try:
            return Found(pid, ask(paths, StatusRequest(), PATIENCE_SECONDS))
        except NoListener as error:
            if time.monotonic() > patience:
                return Found(pid, None, str(error))
            time.sleep(0.02)  # it is starting or ending: there is no event for either that we could wait for
        except NoAnswer as error:
            if paths.holder() is not None:
                return Found(pid, None, str(error))
        except MeshdevError as error:
            return Found(pid, None, error.message)
    return None


def wait_gone(paths: Paths, seconds: float) -> bool:
    """Whether the session is gone within *seconds*."""
    end = time.monotonic() + seconds
    while paths.holder() is not None:
        if time.monotonic() > end:
            return False
        time.sleep(0.02)  # flock waits for ever or not at all
    return True


@overload
def ask(paths: Paths, request: StatusRequest, seconds: float | None) -> Status: ...
@overload
def ask(paths: Paths, request: LeaveRequest, seconds: float | None) -> tuple[str, ...]: ...
@overload
def ask(paths: Paths, request: DisconnectRequest, seconds: float | None) -> None: ...
def ask(paths: Paths, request: Question, seconds: float | None) -> Answer:
    """The answer to *request*; raises NoAnswer, ProtocolError, or the error that the session answered."""
    deadline = None if seconds is None else time.monotonic() + seconds
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.settimeout(seconds)
            sock.connect(str(paths.socket))
            sock.sendall(encode_request(request))
            return parse_answer(request, _line(sock, deadline))
        except TimeoutError:
            raise NoAnswer(f"no answer in {seconds:g} s") from None
        except (FileNotFoundError, ConnectionRefusedError):
            raise NoListener("there is no listener on its socket") from None
        except OSError as error:
            raise NoAnswer(str(error.strerror)) from error


def _line(sock: socket.socket, deadline: float | None) -> bytes:
    splitter = LineSplitter()
    while True:
        if deadline is not None:
            sock.settimeout(max(deadline - time.monotonic(), 0.001))
        data = sock.recv(65536)
        if not data:
            raise NoAnswer("it ended before it answered")
        for line in splitter.feed(data):
            return line
