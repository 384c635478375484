"""Watches put together: the newest of one decides what the other is of."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from meshdev.kube.watching import switched


class Source:
    """A generator that yields what it is given, and remembers that it was closed."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[str | Exception | None] = asyncio.Queue()
        self.closed = False

    async def values(self) -> AsyncGenerator[str]:
        try:
            while (item := await self.queue.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed = True


async def test_the_newest_value_decides() -> None:
    outer, inner = Source(), {name: Source() for name in "ab"}
    async with asyncio.timeout(5), aclosing(switched(outer.values(), lambda name: inner[name].values())) as states:
        outer.queue.put_nowait("a")
        inner["a"].queue.put_nowait("a1")
        assert await anext(states) == "a1"
        outer.queue.put_nowait("b")
        inner["b"].queue.put_nowait("b1")
        assert await anext(states) == "b1"
        assert (inner["a"].closed, inner["b"].closed) == (True, False)
        inner["b"].queue.put_nowait(None)  # it may end before the other
        outer.queue.put_nowait(None)
        with pytest.raises(StopAsyncIteration):
            await anext(states)
    assert outer.closed


@pytest.mark.parametrize("at", ["outer", "inner"])
async def test_what_either_raises_ends_both(at: str) -> None:
    outer, inner = Source(), Source()
    async with asyncio.timeout(5), aclosing(switched(outer.values(), lambda _: inner.values())) as states:
        outer.queue.put_nowait("a")
        inner.queue.put_nowait("a1")
        assert await anext(states) == "a1"
        (outer if at == "outer" else inner).queue.put_nowait(ValueError("broken"))
        with pytest.raises(ValueError, match="broken"):
            await anext(states)
    assert (outer.closed, inner.closed) == (True, True)


async def test_closed_early_it_closes_both() -> None:
    outer, inner = Source(), Source()
    async with asyncio.timeout(5), aclosing(switched(outer.values(), lambda _: inner.values())) as states:
        outer.queue.put_nowait("a")
        inner.queue.put_nowait("a1")
        assert await anext(states) == "a1"
    assert (outer.closed, inner.closed) == (True, True)
