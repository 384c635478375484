"""Values that are published: who waits is woken by a change, and by nothing else."""

import asyncio

from meshdev.published import Published


async def test_who_waits_sees_a_change_and_not_a_repetition() -> None:
    published = Published((1,))
    waiting = asyncio.ensure_future(published.changed((1,)))
    await asyncio.sleep(0)
    published.publish((1,))
    await asyncio.sleep(0)
    assert not waiting.done()
    published.publish((2,))
    assert await waiting == (2,)
    assert await published.changed((1,)) == (2,), "a change is not missed by who looks too late"


async def test_a_value_is_waited_for_by_what_holds_of_it() -> None:
    published = Published(0)
    waiting = [asyncio.ensure_future(published.until(lambda value: value >= 2)) for _ in range(3)]
    await asyncio.sleep(0)
    published.publish(1)
    await asyncio.sleep(0)
    assert not any(each.done() for each in waiting)
    published.publish(2)
    published.publish(3)
    assert [await each for each in waiting] == [3, 3, 3], "the newest, when the reader runs"
    assert published.value == 3
