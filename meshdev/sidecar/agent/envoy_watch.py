"""Whether Envoy records requests: as long as the manager says so, again and again, that somebody watches."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final, Protocol

from meshdev.errors import ClusterError
from meshdev.wire.access import WATCH_SECONDS

log = logging.getLogger(__name__)

#: An Envoy that has just been started has no admin socket for a moment.
_RETRY_SECONDS: Final = 0.1


class RecordingEnvoy(Protocol):
    """What is needed of :class:`~meshdev.sidecar.agent.envoy.Envoy`."""

    @property
    def pid(self) -> int | None:
        """Of the process that is there."""

    async def record(self, *, on: bool) -> None:
        """Record from now on, or not. Raises ClusterError."""


class Watching:
    """*envoy* is asked only when that changes, and each new process once. *clock* is in seconds."""

    def __init__(self, envoy: RecordingEnvoy, clock: Callable[[], float], lease: float = WATCH_SECONDS) -> None:
        self._envoy = envoy
        self._clock = clock
        self._lease = lease
        self._until = clock()
        self._news = asyncio.Event()
        self._recording: int | None = None
        """The process that records."""

    def watch(self, *, on: bool) -> None:
        """The manager says that somebody watches, for as long as a lease; or that nobody does."""
        self._until = self._clock() + self._lease if on else self._clock()
        self._news.set()

    def envoy_started(self) -> None:
        """There is another Envoy, which records nothing yet."""
        self._news.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            self._news.clear()
            wait = await self._follow()
            try:
                async with asyncio.timeout(wait):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def _follow(self) -> float | None:
        """Do what is to be done now; look again after so many seconds, or when there is news."""
        left, pid = self._until - self._clock(), self._envoy.pid
        on = left > 0
        if pid is not None and on != (self._recording == pid):
            try:
                await self._envoy.record(on=on)
            except ClusterError as error:
                log.debug("%s", error.message)
                return _RETRY_SECONDS
            self._recording = pid if on else None
        return left if on else None
