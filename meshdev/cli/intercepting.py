"""What ``proxy`` and ``mesh`` share: turn flags into a request, intercept, and stay attached."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from meshdev.cli import intercept_text, options, render
from meshdev.cli.attach import AttachedIntercepts, intercepts
from meshdev.cli.connected import connected
from meshdev.cli.counting import Counting
from meshdev.cli.options import Format
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
            _stay(them, here.progress)
        here.progress.close()
    if them.interrupted:
        raise Ended(Cancelled.exit_code)


def _say_up(status: InterceptStatus, asked: InterceptRequest, output: Format) -> None:
    if output is Format.JSON:
        render.print_json(dump(status))
    else:
        render.print_text(intercept_text.up(status, asked))


def _stay(them: AttachedIntercepts, progress: render.ProgressView) -> None:
    """Stay until a signal arrives or another command ends it. Raises whatever else ends it."""
    stream, counting = them.streams[0], Counting()

    def live(status: InterceptStatus) -> None:
        for note in status.notes:
            if note not in stream.notes:
                stream.notes.add(note)
                counting.end()
                progress.show(Note(note))
        counting.show(intercept_text.counts(status))

    if stream.status and (counting.in_place or stream.status.counts != InterceptCounts() or stream.status.notes):
        live(stream.status)
    while not (stream.over or them.interrupted):
        them.interrupted = bool(them.turn(counting.due(), live) & ENDING)
        counting.tick()
    counting.end()
    if stream.error:
        raise stream.error
    if not them.interrupted:
        progress.show(Note("another command has ended it"))
