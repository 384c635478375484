"""The helper's loop: carries out one request after the other and watches the session's heartbeat.

It ends when the session closes, exits or breaks the protocol, or on SIGTERM, SIGINT, SIGHUP; whatever the cause,
everything is undone.
"""

import contextlib
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Sequence
from typing import Final

from meshdev.errors import LaptopError, MeshdevError, ProtocolError
from meshdev.helper.journal import Journal, JournalFile
from meshdev.helper.keeper import Keeper
from meshdev.helper.laptop import LaptopChanges, Outcome, OwnNetwork
from meshdev.helper.restore import undo_entries
from meshdev.wire.helper.answers import Acknowledged
from meshdev.wire.helper.limits import BEAT_LIMIT_SECONDS, LINE_LIMIT
from meshdev.wire.helper.lines import (
    Greeting,
    HelperAnswer,
    HelperFailure,
    encode_answer,
    encode_greeting,
    parse_request,
)
from meshdev.wire.helper.requests import Request, Shutdown
from meshdev.wire.jsonlines import LineSplitter

#: A session that accepts no answer for so long is taken for dead.
_SEND_SECONDS: Final = 5
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def serve(sock: socket.socket, uid: int, keeper: Keeper) -> int:
    """Greet, serve until the end, undo. The exit code is 0, or that of the error that kept the helper from serving."""
    wakeup = _prepare(sock)
    try:
        journal = JournalFile(uid)
    except MeshdevError as error:
        return refuse(sock, error)
    try:
        undo_entries(journal)
        try:
            laptop = LaptopChanges(journal)
            if laptop.table is not None:
                keeper.hold(laptop.table)
        except OSError as error:
            return refuse(sock, _not_seen(error))
        closed, failures = _serve(sock, wakeup, laptop, uid)
    finally:
        journal.close()
    _answer_close(sock, closed, failures)
    return 0


def serve_isolated(sock: socket.socket, uid: int, network: OwnNetwork) -> int:
    """The same in namespaces of this process's own: with it all of them end, so that there is nothing to journal."""
    wakeup = _prepare(sock)
    try:
        laptop = LaptopChanges(Journal(uid), network)
    except OSError as error:
        return refuse(sock, _not_seen(error))
    _answer_close(sock, *_serve(sock, wakeup, laptop, uid))
    return 0


def _prepare(sock: socket.socket) -> int:
    """The descriptor that becomes readable with a signal."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_SECONDS, 0))
    return _wake_on_signals()


def _serve(
    sock: socket.socket, wakeup: int, laptop: LaptopChanges, uid: int
) -> tuple[int | None, Sequence[MeshdevError]]:
    """The number of the session's close request, and what could not be undone."""
    closed = None
    try:
        closed = Server(sock, wakeup, laptop).run(uid)
    finally:
        failures = laptop.undo()
        for failure in failures:
            print(f"helper: {failure}", file=sys.stderr, flush=True)
    return closed, failures


def _answer_close(sock: socket.socket, closed: int | None, failures: Sequence[MeshdevError]) -> None:
    if closed is not None:
        with contextlib.suppress(OSError):
            sock.sendall(
                encode_answer(HelperAnswer(closed, HelperFailure.of(failures[0]) if failures else Acknowledged()))
            )


def _not_seen(error: OSError) -> LaptopError:
    return LaptopError(f"the helper cannot see this machine's network: {error}")


def refuse(sock: socket.socket, error: MeshdevError) -> int:
    """Greet with the error that keeps the helper from serving; returns its exit code."""
    sock.sendall(encode_greeting(HelperFailure.of(error)))
    return error.exit_code


class Server:
    """One session's requests."""

    def __init__(self, sock: socket.socket, wakeup: int, laptop: LaptopChanges) -> None:
        self._sock = sock
        self._wakeup = wakeup
        self._laptop = laptop
        self._lines = LineSplitter(LINE_LIMIT)
        self._last_sign = time.monotonic()
        self._closed: int | None = None

    def run(self, uid: int) -> int | None:
        """Serve until the end of the session; the number of its close request, None when it sent none."""
        try:
            self._sock.sendall(encode_greeting(self._greeting(uid)))
            while self._turn():
                pass
        except (OSError, ProtocolError) as error:
            print(f"helper: the session is gone: {error}", file=sys.stderr, flush=True)
        return self._closed

    def _greeting(self, uid: int) -> Greeting:
        former, decision = self._laptop.former(), self._laptop.decision
        return Greeting(os.getpid(), uid, decision.integration, decision.why[:4096], former.nameservers, former.search)

    def _turn(self) -> bool:
        """Wait for an event and handle it; False at the end."""
        poll = select.poll()
        for descriptor in (self._sock.fileno(), self._wakeup, self._laptop.upkeep.fileno()):
            poll.register(descriptor, select.POLLIN)
        ready = {fd for fd, _ in poll.poll(self._patience())}
        if self._wakeup in ready:
            return False
        self._look(news=self._laptop.upkeep.fileno() in ready)
        if self._sock.fileno() in ready:
            data = self._sock.recv(1 << 16)
            if not data:
                return False
            for line in self._lines.feed(data):
                number, request = parse_request(line)
                if isinstance(request, Shutdown):
                    self._closed = number
                    return False
                self._answer(number, request)
            self._last_sign = time.monotonic()
        elif self._laptop.needs_beat and time.monotonic() - self._last_sign >= BEAT_LIMIT_SECONDS:
            self._silence()
        return True

    def _look(self, *, news: bool) -> None:
        now = time.monotonic()
        if news:
            self._laptop.take_news(now)
        if self._laptop.needs_look and now >= self._laptop.upkeep.due:
            self._laptop.look(now)

    def _answer(self, number: int, request: Request) -> None:
        try:
            outcome = self._laptop.handle(request)
        except MeshdevError as error:
            outcome = Outcome(HelperFailure.of(error))
        except OSError as error:
            outcome = Outcome(HelperFailure.of(LaptopError(f"{request.op} failed: {error}")))
        try:
            line = encode_answer(HelperAnswer(number, outcome.result, len(outcome.passed)))
            self._send(line, [item.fileno() for item in outcome.passed])
        finally:
            outcome.close()

    def _send(self, line: bytes, fds: list[int]) -> None:
        """The descriptors are sent with the first bytes of the line."""
        sent = socket.send_fds(self._sock, [line], fds) if fds else 0
        self._sock.sendall(line[sent:])

    def _silence(self) -> None:
        try:
            self._laptop.silence()
        except (MeshdevError, OSError) as error:  # a full /run, for example, is no reason to end
            self._last_sign = time.monotonic()  # try again after the same patience
            print(f"helper: {error}", file=sys.stderr, flush=True)

    def _patience(self) -> int | None:
        """Milliseconds until the heartbeat is overdue or the device is to be checked; None without either."""
        deadlines = []
        if self._laptop.needs_beat:
            deadlines.append(self._last_sign + BEAT_LIMIT_SECONDS)
        if self._laptop.needs_look:
            deadlines.append(self._laptop.upkeep.due)
        return max(0, int((min(deadlines) - time.monotonic()) * 1000) + 1) if deadlines else None


def _wake_on_signals() -> int:
    """A descriptor that becomes readable with a signal: an undo in progress is never interrupted."""
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    for number in _SIGNALS:
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    return reader
