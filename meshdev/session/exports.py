"""Spans and logs of one session, by OTLP: ``connect --otlp URL``.

Records of all its own intercepts are watched as long as it is connected. What makes spans of them and sends them
(meshdev.telemetry.exporting) is loaded only here, and only where they are wanted.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Final, Protocol

from meshdev.errors import LaptopError
from meshdev.session.inspecting import Inspectable
from meshdev.session.records import PodRecord, RecordFeed, Subscription
from meshdev.session.state import SessionState
from meshdev.telemetry import endpoint
from meshdev.telemetry.exports import RequestExports
from meshdev.wire.access import Watch
from meshdev.wire.session_api import ConnectOptions
from meshdev.wire.session_inspect import InspectedRequest

#: How often it is looked which intercepts there are, in seconds: before one is up it has to be watched.
_LOOK_SECONDS: Final = 0.1
#: Intercepts that have ended are known for as long: their last records may be on their way.
_MAX_KNOWN: Final = 256
_WATCH: Final = Watch(True)


class Exports(RequestExports, Protocol):
    """Those of a session."""

    async def flush(self) -> None:
        """Send what waits; not for long."""


@asynccontextmanager
async def exporting(options: ConnectOptions) -> AsyncIterator[Exports | None]:
    """What sends spans and logs, where that is asked for.

    Raises LaptopError where what it takes is not installed, or cannot read its environment; UsageError for a URL.
    """
    if options.otlp is None:
        yield None
        return
    endpoints = endpoint.parse(options.otlp, logs=options.otlp_logs)
    try:
        from meshdev.telemetry.exporting import Telemetry  # noqa: PLC0415 -- 5 to 16 MB, and not always installed
    except ImportError as error:
        raise LaptopError(
            f"--otlp needs packages that are not installed: {error.name or error}", hint="pip install 'meshdev[otlp]'"
        ) from error
    telemetry = Telemetry(endpoints)
    try:
        yield telemetry
    finally:
        await telemetry.close()


@asynccontextmanager
async def flushed(exports: Exports | None) -> AsyncIterator[None]:
    """What came inside is sent when the context ends: the tunnel is still there, and the receiver may be behind it."""
    try:
        yield
    finally:
        if exports is not None:
            await exports.flush()


def show(exports: Exports, state: SessionState) -> SessionState:
    """*state*, with how they fare."""
    signals = exports.states
    notes = (note for each in signals if (note := each.note()) is not None)
    return replace(state, signals=signals, notes=(*state.notes, *notes))


async def follow(exports: Exports, feed: RecordFeed, choose: Callable[[], Iterable[Inspectable]]) -> None:
    """Export the records of the intercepts that *choose* returns, which come and go, until cancelled."""
    following = _Following(exports, feed)
    try:
        while True:
            await following.wait()
            following.update(choose())
    finally:
        following.end()


class _Following:
    def __init__(self, exports: Exports, feed: RecordFeed) -> None:
        self._exports = exports
        self._feed = feed
        self._news = asyncio.Event()
        self._known: dict[str, Inspectable] = {}
        self._subscription = self._subscribe(())

    async def wait(self) -> None:
        """For records; not for long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):  # wait_for loses a cancellation that comes with news (3.11)
                await self._news.wait()
        self._news.clear()

    def update(self, chosen: Iterable[Inspectable]) -> None:
        """These are the intercepts now; what came is exported."""
        now = {each.id: each for each in chosen}
        self._known |= now
        if now.keys() != self._subscription.ids:
            former, self._subscription = self._subscription, self._subscribe(now)
            self._export(former)
            former.close()
            for id_ in [each for each in self._known if each not in now][:-_MAX_KNOWN]:
                del self._known[id_]
        self._export(self._subscription)

    def end(self) -> None:
        """The last records; nothing is watched any more."""
        self._export(self._subscription)
        self._subscription.close()

    def _subscribe(self, ids: Iterable[str]) -> Subscription:
        return self._feed.subscribe(ids, _WATCH, self._news.set)

    def _export(self, subscription: Subscription) -> None:
        records, dropped = subscription.take()
        if dropped:
            self._exports.missed(dropped)
        for each in records:
            if (found := self._request(each)) is not None:
                self._exports.request(found)

    def _request(self, found: PodRecord) -> InspectedRequest | None:
        intercept = self._known.get(found.record.intercept or "")
        if intercept is None:
            return None
        return InspectedRequest(intercept.namespace, intercept.target, found.pod, found.record)
