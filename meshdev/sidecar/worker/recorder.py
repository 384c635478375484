"""Access records of what goes to the app, while somebody watches (:mod:`meshdev.wire.access`).

Nobody is held up by it: what is too much is counted instead. Too much is more than RECORDS_PER_SECOND, more than
:data:`MAX_OPEN` that are not over, more than :data:`MAX_WAITING` that the agent has not taken yet, or more than
:data:`SHARE` of the time: who sends a request decides what its record costs. An error loses records, and ends no
connection. Records are made of what was noted in batches: one by one, each costs five times as much, since the caches
of the CPU have other things.

A request is recorded when its response is complete; what is not followed any more, and bytes, when their connection
ends. Of these the kernel has counted the bytes.
"""

import functools
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Concatenate, Final, ParamSpec, Protocol, TypeVar

from meshdev.observe import reasons
from meshdev.pump.loop import Loop, Timer
from meshdev.rate import TokenBucket
from meshdev.sidecar.passthrough.heads import Reason
from meshdev.sidecar.passthrough.http1 import RequestHead
from meshdev.sidecar.worker.open_record import OpenRecord, RecordedConnection, describe, made
from meshdev.wire.access import (
    MAX_REASON,
    MAX_RECORDS,
    RECORDS_PER_SECOND,
    WATCH_SECONDS,
    AccessRecord,
    AccessRecords,
    ServedBy,
    Watch,
)

log = logging.getLogger(__name__)

#: How old a record may be when it is sent, in seconds.
BATCH_SECONDS: Final = 0.1
#: Records that are over and that wait for the agent: half a second of them. With so many none waits for the others.
MAX_WAITING: Final = 240
_ENOUGH: Final = 4 * MAX_RECORDS
#: Records that are not over: of requests, and as many of what is followed no further, which may last for days.
MAX_OPEN: Final = 2048
#: Of the processor's time, for which records are made, and how much of that at once: 500 usual ones a second take 0.03.
SHARE: Final = 0.2
_AT_ONCE_SECONDS: Final = 0.05
#: Bytes of a head that is kept until its record is made; of a longer one it is made at once.
_MAX_KEPT_HEAD: Final = 2048
#: Where one is too much, so are those of the next moment: half the time until another one is allowed, in seconds.
_FULL_SECONDS: Final = 0.5 / RECORDS_PER_SECOND
#: Of connections that were there before the watch.
EARLIER: Final = "followed no further since before the watch"

P = ParamSpec("P")
R = TypeVar("R")


class WatchedPort(Protocol):
    """A port's own notice that somebody watches: it is asked once for each request."""

    watched: bool


def _harmless(do: Callable[Concatenate["Recorder", P], R]) -> Callable[Concatenate["Recorder", P], R | None]:
    """Whoever calls this carries requests, which go on without records."""

    @functools.wraps(do)
    def safely(recorder: "Recorder", /, *args: P.args, **named: P.kwargs) -> R | None:
        try:
            return do(recorder, *args, **named)
        except Exception as error:  # noqa: BLE001 -- whatever it is: see above
            recorder.fail(error)
            return None

    return safely


class Recorder:
    """Of one worker. Everything belongs to the loop's thread."""

    def __init__(
        self,
        loop: Loop,
        connections: Iterable[RecordedConnection],
        now: Callable[[], float] = time.time,
        spent: Callable[[], float] = time.thread_time,
    ) -> None:
        """*connections* are those that are open, at any time; *now* is the time of day, *spent* the processor time of
        this thread, in seconds."""
        self.send: Callable[[AccessRecords], bool] = lambda _: False
        """Send this to the agent; False where that is not possible now."""
        self._loop = loop
        self._connections = connections
        self._now = now
        self._spent = spent
        self._watch = Watch()
        self._ports: list[WatchedPort] = []
        self._expiry: Timer | None = None
        self._rate = TokenBucket(RECORDS_PER_SECOND, RECORDS_PER_SECOND, loop.clock())
        self._time = TokenBucket(SHARE, _AT_ONCE_SECONDS, loop.clock())
        self._full_until = 0.0
        self._open: dict[RecordedConnection, list[OpenRecord]] = {}
        self._opened = self._lasting = 0
        """How many there are of requests, and of what is followed no further."""
        self._waiting: deque[OpenRecord] = deque()
        self._batch: tuple[AccessRecord, ...] = ()
        """What was made of the first ones that waited, and is sent next."""
        self._dropped = 0
        self._flushing: Timer | None = None
        self._failed = False

    def add(self, port: WatchedPort) -> None:
        """A port whose requests are recorded."""
        self._ports.append(port)
        port.watched = self._watch.on

    @_harmless
    def watch(self, watch: Watch) -> None:
        """From now on this is watched, for WATCH_SECONDS."""
        if self._expiry is not None:
            self._expiry.cancel()
        self._expiry = self._loop.call_later(WATCH_SECONDS, lambda: self.watch(Watch())) if watch.on else None
        before, self._watch = self._watch, watch
        if (watch.on, watch.all) == (before.on, before.all):
            return
        for port in self._ports:
            port.watched = watch.on
        if not watch.on:
            self._failed = False
            self._forget()
        for connection in list(self._connections):
            connection.watch(on=watch.on)

    def fail(self, error: Exception) -> None:
        """Nothing is kept that may be wrong; all of it is counted."""
        if not self._failed:
            self._failed = True  # the next ones would fill the log
            log.error("records are lost by an internal error", exc_info=error)
        lost = self._dropped + self._opened + self._lasting + len(self._waiting) + len(self._batch) + 1
        self._forget()
        self._dropped = lost
        self._flush_later()

    @_harmless
    def begin(self, connection: RecordedConnection, head: RequestHead) -> OpenRecord | None:
        """A request goes to the app. None: nobody wants to know, or it is too much."""
        if not (self._watch.all or connection.port.would_claim(head)):
            return None
        if self._loop.clock() < self._full_until:  # as for most requests of a busy pod, so it is quick
            self._dropped += 1
            return None
        if not self._may(self._opened):
            return None
        record = OpenRecord(self, connection, "HTTP/1.1" if head.minor else "HTTP/1.0")
        record.head, record.explain = head, connection.port.explainer
        if len(head.raw) > _MAX_KEPT_HEAD:
            began = self._spent()
            describe(record)
            self._take_time(began)
        return self._begin(record)

    @_harmless
    def begin_bytes(self, connection: RecordedConnection, *, new: bool = True) -> None:
        """A connection whose bytes all go to the app; of one that is not *new* only what comes from now on counts."""
        port = connection.port
        if new and port.whole:
            self._begin_tcp(connection, reasons.NO_ENVOY, "fallback", new=True)
        elif self._watch.all and connection not in self._open:
            reason = reasons.NOTHING_CLAIMED if port.unclaimed else EARLIER
            self._begin_tcp(connection, reason, new=new)

    @_harmless
    def begin_rest(self, connection: RecordedConnection, reason: Reason | None, *, new: bool) -> None:
        """A connection is followed no further: its oldest request that has no complete response goes on until it ends.

        Without one it goes on as bytes, those before included where it is *new*; unless there is no *reason*: then it
        is about to end.
        """
        if pending := self._open.get(connection):
            first, *others = pending
            if first.carried is None:
                self._opened -= 1
                self._lasting += 1
            first.carried = connection.carried
            for record in others:
                self.end(record)
            if reason is not None:
                describe(first)
                text = reasons.not_followed(reason)
                first.reason = f"{first.reason}; {text}"[:MAX_REASON] if first.reason else text
        elif reason is not None and self._watch.all:
            self._begin_tcp(connection, reasons.not_followed(reason), new=new)

    @_harmless
    def end(self, record: OpenRecord) -> None:
        """It is over; nothing changes where it was so already."""
        mine = self._open.get(record.connection, [])
        if record in mine:
            mine.remove(record)
            self._close(record)
            if not mine:
                del self._open[record.connection]
            self._finish(record)

    @_harmless
    def end_all(self, connection: RecordedConnection) -> None:
        """The connection is about to be closed."""
        for record in self._open.pop(connection, ()):
            self._close(record)
            self._finish(record)

    def _may(self, open_now: int) -> bool:
        """Whether one more can be recorded, of a kind of which so many are open; counted where it cannot."""
        now = self._loop.clock()
        if open_now >= MAX_OPEN:
            self._drop()
            return False
        if self._has_time(now) and self._rate.take(now):
            return True
        self._full_until = now + _FULL_SECONDS
        self._drop()
        return False

    def _begin_tcp(
        self, connection: RecordedConnection, reason: str, served_by: ServedBy = "original", *, new: bool
    ) -> None:
        if self._may(self._lasting):  # a watch may find thousands: the kernel is asked about no more than these
            record = OpenRecord(self, connection, "tcp")
            record.reason, record.served_by = reason, served_by
            record.carried = (0, 0) if new else connection.carried
            self._begin(record)

    def _begin(self, record: OpenRecord) -> OpenRecord:
        record.time, record.began = self._now(), self._loop.clock()
        self._open.setdefault(record.connection, []).append(record)
        if record.carried is None:
            self._opened += 1
        else:
            self._lasting += 1
        return record

    def _close(self, record: OpenRecord) -> None:
        """The opposite of :meth:`_begin`."""
        if record.carried is None:
            self._opened -= 1
        else:
            self._lasting -= 1

    def _finish(self, record: OpenRecord) -> None:
        if len(self._waiting) + len(self._batch) >= MAX_WAITING:
            self._drop()
            return
        record.duration = self._loop.clock() - record.began
        if record.carried is not None:
            received, sent = record.connection.carried
            record.request_bytes += max(0, received - record.carried[0])
            record.response_bytes += max(0, sent - record.carried[1])
        self._waiting.append(record)
        if len(self._waiting) == _ENOUGH:
            self._flush()
        self._flush_later()

    def _drop(self) -> None:
        self._dropped += 1
        self._flush_later()

    def _flush_later(self) -> None:
        if self._flushing is None and (self._waiting or self._dropped):
            self._flushing = self._loop.call_later(BATCH_SECONDS, self._flush_in_time)

    @_harmless
    def _flush_in_time(self) -> None:
        self._flushing = None
        self._flush()
        self._flush_later()  # the agent takes no more now

    def _flush(self) -> None:
        while self._batch or self._waiting or self._dropped:
            self._batch = self._batch or self._made()
            if not self.send(AccessRecords(self._batch, self._dropped)):
                return
            self._batch, self._dropped = (), 0

    def _made(self) -> tuple[AccessRecord, ...]:
        found: list[AccessRecord] = []
        while self._waiting and len(found) < MAX_RECORDS:
            record = self._waiting.popleft()
            if record.head is None or self._has_time(self._loop.clock()):
                began = self._spent()
                found.append(made(record))
                self._take_time(began)
            else:
                self._dropped += 1
        return tuple(found)

    def _has_time(self, now: float) -> bool:
        return not self._time.delay(now, 0)

    def _take_time(self, began: float) -> None:
        self._time.delay(self._loop.clock(), self._spent() - began)

    def _forget(self) -> None:
        """Nobody wants to know any more."""
        self._open.clear()
        self._waiting.clear()
        self._batch = ()
        self._opened = self._lasting = self._dropped = 0
        self._full_until = 0.0
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
