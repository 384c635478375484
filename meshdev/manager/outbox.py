"""Messages that wait for a slow reader: the newest under each key, so that it costs nothing and hears what is true."""

import asyncio
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

M = TypeVar("M")


class Outbox(Generic[M]):
    """Messages in the order in which their keys came; one that replaces another takes its place in the order."""

    def __init__(self, waiting: Iterable[tuple[Hashable, M]] = ()) -> None:
        self._waiting: dict[Hashable, M] = dict(waiting)
        self._news = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, key: Hashable, message: M) -> None:
        """It replaces what waits under the same *key*."""
        self._waiting[key] = message
        self._news.set()

    def discard(self, key: Hashable) -> None:
        """What waits under *key*, if anything does, waits no longer."""
        self._waiting.pop(key, None)

    def take(self) -> M:
        """The first one, which waits no longer. Raises StopIteration where there is none."""
        return self._waiting.pop(next(iter(self._waiting)))

    async def get(self) -> M:
        """The first one, as soon as there is one."""
        while not self._waiting:
            self._news.clear()
            await self._news.wait()
        return self.take()

    def drain(self, send: Callable[[M], object]) -> None:
        """Give each to *send*; the one at which it raises waits on, as do those behind it."""
        while self._waiting:
            key = next(iter(self._waiting))
            send(self._waiting[key])
            del self._waiting[key]

    def clear(self) -> None:
        """Nothing waits any more."""
        self._waiting.clear()
