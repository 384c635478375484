"""What waits for one client stays small, and what is lost is counted."""

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from meshdev.dashboard.client_events import MAX_WAITING, ClientEvents, FeedEvent


def requests(*numbers: int, skipped: int = 0) -> FeedEvent:
    return FeedEvent("requests", {"requests": list(numbers), "skipped": skipped})


async def test_the_newest_state_wins() -> None:
    waiting = ClientEvents()
    waiting.put(FeedEvent("history", {"points": []}))
    for number in range(3):
        waiting.put(FeedEvent("state", {"time": number}))
    assert await waiting.take() == [("history", {"points": []}), ("state", {"time": 2})]


async def test_who_takes_waits_for_the_next_one() -> None:
    waiting = ClientEvents()
    taking = asyncio.ensure_future(waiting.take())
    await asyncio.sleep(0)
    assert not taking.done()
    waiting.put(requests(1))
    assert await taking == [requests(1)]


async def test_one_event_is_passed_on_as_it_is() -> None:
    waiting, event = ClientEvents(), requests(*range(3))
    waiting.put(event)
    assert (await waiting.take())[0].data is event.data, "so that it is encoded once for all clients"


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 5)), min_size=1, max_size=20))
def test_requests_are_joined_and_each_is_there_or_counted(batches: list[tuple[int, int]]) -> None:
    async def run() -> Any:
        waiting, number = ClientEvents(), 0
        for count, skipped in batches:
            waiting.put(requests(*range(number, number + count), skipped=skipped))
            number += count
        return number, (await waiting.take())[0].data

    count, data = asyncio.run(run())
    kept = data["requests"]
    if len(batches) > 1:
        assert len(kept) <= MAX_WAITING
    assert kept == list(range(count - len(kept), count)), "the newest, in order"
    assert data["skipped"] + len(kept) == count + sum(skipped for _, skipped in batches)
