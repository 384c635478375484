"""The newest of a sequence of immutable values, for whoever wants to know when it changes."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Published(Generic[T]):
    """One writer, any number of readers, all in one event loop."""

    def __init__(self, value: T) -> None:
        self._value = value
        self._changed = asyncio.Event()

    @property
    def value(self) -> T:
        """The current one."""
        return self._value

    def publish(self, value: T) -> None:
        """From now on it is *value*. One that equals the current value is no change."""
        if value != self._value:
            self._value = value
            self._changed.set()
            self._changed = asyncio.Event()

    async def until(self, holds: Callable[[T], bool]) -> T:
        """The first value, the current one included, of which *holds* is true.

        A reader sees the newest value when it runs, not each one: those in between are skipped.
        """
        while not holds(self._value):
            await self._changed.wait()
        return self._value

    async def changed(self, known: T) -> T:
        """The first value that differs from *known*: at once where it does so already."""
        return await self.until(lambda value: value != known)
