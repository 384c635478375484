"""What ``proxy`` and ``mesh`` share: turn flags into a request, intercept, and stay attached."""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from meshdev.cli import intercept_text, options, render
from meshdev.cli.attach import AttachedIntercepts, intercepts
from meshdev.cli.connected import connected
from meshdev.cli.counting import Counting
from meshdev.cli.live_requests import LiveRequests
from meshdev.cli.options import Format
from meshdev.cli.progress import ProgressView
from meshdev.cli.signals import ENDING, Ended
from meshdev.errors import Cancelled
from meshdev.intercept.match import parse_match
from meshdev.intercept.ports import parse_port
from meshdev.intercept.target import parse_target
from meshdev.state import Paths
from meshdev.wire.counts import InterceptCounts
from meshdev.wire.message import dump
from meshdev.wire.modes import Mode
from meshdev.wire.session_api import ConnectOptions, Note
from meshdev.wire.session_intercepts import InterceptRequest, InterceptStatus


def request(
    mode: Mode,
    target: str,
    how: options.Intercepting,
    *,
    namespace: str | None,
    match: Mapping[str, Any] | None = None,
    detach: bool = False,
) -> InterceptRequest:
    """What to ask the session for; conditions are for modes that need a match. The values stay as typed.

    Raises UsageError for what cannot be meant.
    """
    parse_target(target)
    for port in how.ports or ():
        parse_port(port)
    asked = InterceptRequest(
        target=target,
        namespace=options.not_empty("--namespace", namespace),
        mode=mode,
        ports=tuple(how.ports or ()),
        strategy=how.strategy,
        takeover=how.takeover,
        reset_existing=how.existing == "reset",
        fallback=not how.no_fallback,
        detach=detach,
    )
    if not mode.needs_match:
        return asked
    typed = match or {}
    parse_match(**typed)
    return replace(asked, **typed)


def intercept(wanted: ConnectOptions, asked: InterceptRequest, output: Format) -> None:
    """Connect where needed, intercept, report it, and stay until a signal arrives; detached, return instead.

    Raises Ended where the user ended it: nothing is left then.
    """
    paths = Paths.locate()
    with connected(paths, wanted) as here:
        with intercepts(paths, here.signals, here.progress) as them:
            status = them.open(asked)
            here.progress.close()
            _say_up(status, asked, output)
            if asked.detach:
                here.ours = False
                return
            _Staying(them, here.progress).run(paths, requests=output is Format.TEXT)
        here.progress.close()
    if them.interrupted:
        raise Ended(Cancelled.exit_code)


def _say_up(status: InterceptStatus, asked: InterceptRequest, output: Format) -> None:
    if output is Format.JSON:
        render.print_json(dump(status))
    else:
        render.print_text(intercept_text.up(status, asked))


class _Staying:
    """Shows how the intercept of a command stands until a signal arrives or another command ends it."""

    def __init__(self, them: AttachedIntercepts, progress: ProgressView) -> None:
        self._them = them
        self._stream = them.streams[0]
        self._progress = progress
        self._counting = Counting()

    def run(self, paths: Paths, *, requests: bool) -> None:
        """Until then; on a terminal with the last *requests*. Raises whatever else ends it."""
        them, stream = self._them, self._stream
        status = stream.status
        with contextlib.ExitStack() as stack:
            if status and (self._counting.in_place or status.counts != InterceptCounts() or status.notes):
                self._live(status)
            if status and requests and self._counting.in_place:
                self._show_requests(paths, status, stack)
            while not (stream.over or them.interrupted):
                them.interrupted = bool(them.turn(self._counting.due(), self._live) & ENDING)
                self._counting.tick()
            self._counting.end()
        if stream.error:
            raise stream.error
        if not them.interrupted:
            self._progress.show(Note("another command has ended it"))

    def _live(self, status: InterceptStatus) -> None:
        for note in status.notes:
            if note not in self._stream.notes:
                self._stream.notes.add(note)
                self._note(Note(note))
        self._counting.show(intercept_text.counts(status))

    def _note(self, note: Note) -> None:
        self._counting.end()
        self._progress.show(note)

    def _show_requests(self, paths: Paths, status: InterceptStatus, stack: contextlib.ExitStack) -> None:
        live = stack.enter_context(contextlib.closing(LiveRequests(paths, status)))

        def read() -> None:
            for note in live.read():
                self._note(note)
                if self._stream.status:
                    self._live(self._stream.status)
            self._counting.show_below(live.lines(self._counting.columns))
            if live.over:
                stop()

        stop = stack.enter_context(self._them.also_reading(live, read))
