"""What waits for a slow reader: the newest of each key, in the order in which the keys came."""

import asyncio

import pytest

from meshdev.manager.outbox import Outbox


def test_a_newer_message_takes_the_place_of_the_one_that_waits() -> None:
    outbox: Outbox[str] = Outbox([("a", "1"), ("b", "2")])
    outbox.put("c", "3")
    outbox.put("a", "4")
    assert len(outbox) == 3
    assert [outbox.take() for _ in range(3)] == ["4", "2", "3"]
    assert not outbox


def test_what_cannot_be_sent_waits_on() -> None:
    outbox: Outbox[int] = Outbox((each, each) for each in range(3))
    sent: list[int] = []

    def send(message: int) -> None:
        if message == 1 and len(sent) == 1:
            raise BlockingIOError
        sent.append(message)

    with pytest.raises(BlockingIOError):
        outbox.drain(send)
    assert (sent, len(outbox)) == ([0], 2)
    sent.append(-1)
    outbox.drain(send)
    assert (sent, len(outbox)) == ([0, -1, 1, 2], 0)


def test_nothing_waits_after_it_was_cleared() -> None:
    outbox: Outbox[int] = Outbox([("a", 1)])
    outbox.clear()
    outbox.drain(lambda _: pytest.fail("nothing is there"))


async def test_a_reader_that_waits_gets_what_comes() -> None:
    outbox: Outbox[int] = Outbox()
    reading = asyncio.ensure_future(outbox.get())
    await asyncio.sleep(0)
    assert not reading.done()
    outbox.put("a", 1)
    outbox.put("a", 2)
    assert (await reading, len(outbox)) == (2, 0)
