"""A command's intercepts: their streams on the session API, from the first step to the last event."""

import contextlib
import selectors
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from meshdev.cli.event_stream import EventStream
from meshdev.cli.progress import ProgressView
from meshdev.cli.signals import ENDING, Signals
from meshdev.errors import Cancelled, MeshdevError, TunnelError
from meshdev.state import Paths
from meshdev.wire.session_api import Event, Failed, Note, Step, Wait
from meshdev.wire.session_intercepts import InterceptRequest, InterceptStatus, Left, Live, Up

#: A sidecar that leaves drains for up to 25 s (docs/intercepts.md); leaving needs not much more.
LEAVE_SECONDS: Final = 40.0

_GOES_ON: Final = "the session goes on undoing it: see `meshdev status`; `meshdev disconnect` ends everything"


class HasFileno(Protocol):
    """What can be waited for."""

    def fileno(self) -> int:
        """Its descriptor."""
        ...


class Stream:
    """One intercept. *status* is known once it is up, *error* once something ended it.

    *over*: nothing more comes, because it is no more, or because it is up and detached.
    """

    def __init__(self, paths: Paths, request: InterceptRequest) -> None:
        """Ask for it. Raises TunnelError where no session listens."""
        self.request = request
        self.status: InterceptStatus | None = None
        self.error: MeshdevError | None = None
        self.over = False
        self.notes: set[str] = set()
        """Notes that were among the steps."""
        self._events = EventStream(paths, request)
        self.fileno = self._events.fileno
        self.leave = self._events.leave
        """Ask the session to end it; its last event says that nothing is left."""

    def read(self) -> list[Event]:
        """The events that have arrived. A stream that ends without a final one is an error."""
        try:
            events = self._events.read()
        except MeshdevError as error:
            self._end(error)
            return []
        for event in events:
            self._take(event)
        if self._events.ended and not self.over:
            self._end(TunnelError("the session ended without giving a reason"))
        return events

    def close(self) -> None:
        """To the session, that is the same as :meth:`leave`."""
        self.over = True
        self._events.close()

    def _take(self, event: Event) -> None:
        match event:
            case Up(status) | Live(status):
                self.status = status
                self.over = self.request.detach
            case Note(text):
                self.notes.add(text)
            case Left():
                self._end(None)
            case Failed():
                self._end(event.as_error())
            case _:
                pass

    def _end(self, error: MeshdevError | None) -> None:
        self.over, self.error = True, error


class AttachedIntercepts:
    """Those of one command, in the order of opening. Use :func:`intercepts`."""

    def __init__(self, paths: Paths, signals: Signals, progress: ProgressView) -> None:
        self._paths = paths
        self._signals = signals
        self._progress = progress
        self._selector = selectors.DefaultSelector()
        self._selector.register(signals, selectors.EVENT_READ)
        self.streams: list[Stream] = []
        self.interrupted = False
        """The user wants the end: the next signal does not wait for it."""

    def open(self, request: InterceptRequest) -> InterceptStatus:
        """One more, once it is up. Raises what kept it, or one before it, from that.

        Cancelled where a signal came before; one that comes with the news sets *interrupted* only.
        """
        stream = Stream(self._paths, request)
        self.streams.append(stream)
        self._selector.register(stream, selectors.EVENT_READ)
        while True:
            self.interrupted |= bool(self.turn() & ENDING)
            if error := self.error():
                raise error
            if stream.status is not None:
                return stream.status
            if stream.over:
                raise TunnelError("the session gave up the intercept before it was up")
            if self.interrupted:
                raise Cancelled("interrupted; everything is undone")

    def error(self) -> MeshdevError | None:
        """What ended one of them."""
        return next((stream.error for stream in self.streams if stream.error), None)

    def over(self) -> bool:
        """Whether none is left."""
        return all(stream.over for stream in self.streams)

    def turn(self, seconds: float | None = None, live: Callable[[InterceptStatus], None] | None = None) -> set[int]:
        """Wait for the next events and process them; *live* is called with each new status.

        Return the signals received.
        """
        for key, _ in self._selector.select(seconds):
            if isinstance(key.fileobj, Stream):
                self._read(key.fileobj, live)
            elif key.data is not None:
                key.data()
        return self._signals.take()

    @contextmanager
    def also_reading(self, source: HasFileno, on_ready: Callable[[], None]) -> Iterator[Callable[[], None]]:
        """:meth:`turn` calls *on_ready* when *source* is readable, until the end, or until what it yields is called."""
        self._selector.register(source, selectors.EVENT_READ, on_ready)

        def stop() -> None:
            if source in self._selector.get_map():
                self._selector.unregister(source)

        try:
            yield stop
        finally:
            stop()

    def leave(self) -> None:
        """All are left when this returns. Raises what went wrong with that; a second signal does not wait for it."""
        started = time.monotonic()
        deadline = started + LEAVE_SECONDS
        waiting = [stream for stream in self.streams if not stream.over]
        for stream in waiting:
            stream.leave()
            if stream.status:
                self._progress.show(Wait(f"{_named(stream.status)} goes back to the original"))
        while not self.over():
            if self.turn(max(0.0, deadline - time.monotonic())) & ENDING:
                if self.interrupted:
                    raise Cancelled("interrupted before everything was undone", hint=_GOES_ON)
                self.interrupted = True
                self._progress.cancelling()
            if time.monotonic() > deadline:
                raise TunnelError(f"the session did not undo it in {LEAVE_SECONDS:.0f} s", hint=_GOES_ON)
        for stream in waiting:
            if stream.error and not isinstance(stream.error, Cancelled):
                raise stream.error
            if stream.status:
                self._progress.show(Step("left", _named(stream.status), time.monotonic() - started))

    def close(self) -> None:
        """Let go of everything; what was not left yet is left by the session."""
        for stream in self.streams:
            stream.close()
        self._selector.close()

    def _read(self, stream: Stream, live: Callable[[InterceptStatus], None] | None) -> None:
        for event in stream.read():
            if isinstance(event, Step | Note | Wait):
                self._progress.show(event)
            elif isinstance(event, Live) and live:
                live(event.intercept)
        if stream.over:
            self._selector.unregister(stream)


def _named(status: InterceptStatus) -> str:
    return f"{status.target} in namespace {status.namespace}"


@contextmanager
def intercepts(paths: Paths, signals: Signals, progress: ProgressView) -> Iterator[AttachedIntercepts]:
    """AttachedIntercepts inside; those that are not over are left at its end, whatever ended it."""
    them = AttachedIntercepts(paths, signals, progress)
    with contextlib.closing(them):
        try:
            yield them
        except BaseException as first:
            _leave_after(first, them, progress)
            raise
        them.leave()


def _leave_after(first: BaseException, them: AttachedIntercepts, progress: ProgressView) -> None:
    """A failure to leave is only a note if something else had failed before."""
    if isinstance(first, Cancelled):
        progress.cancelling()
    try:
        them.leave()
    except MeshdevError as error:
        if isinstance(first, Cancelled):
            raise error from first
        progress.show(Note(error.message))
