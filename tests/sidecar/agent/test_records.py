"""Records that wait for the manager: in order, bounded, and what is lost is counted."""

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from meshdev.sidecar.agent.records import MAX_MESSAGES, RecordQueue
from meshdev.wire.access import AccessRecord, AccessRecords


def records(number: int = 1, dropped: int = 0, time: int = 0) -> AccessRecords:
    return AccessRecords((AccessRecord(time, IPv4Address("10.0.0.1"), 80, "tcp", "original", 0),) * number, dropped)


def test_in_order() -> None:
    queue = RecordQueue()
    assert queue.take() is None
    queue.put(records(time=1))
    queue.put(records(time=2, dropped=3))
    assert [queue.take(), queue.take(), queue.take()] == [records(time=1), records(time=2, dropped=3), None]


def test_what_is_too_much_is_counted_with_the_next_that_is_taken() -> None:
    queue = RecordQueue()
    for time in range(MAX_MESSAGES):
        queue.put(records(time=time))
    queue.put(records(12, dropped=5))
    queue.put(records(2))
    assert queue.take() == records(time=0, dropped=19)
    assert [queue.take() for _ in range(MAX_MESSAGES - 1)] == [records(time=time) for time in range(1, MAX_MESSAGES)]
    assert queue.take() is None


def test_what_nobody_wants_is_forgotten() -> None:
    queue = RecordQueue()
    for _ in range(MAX_MESSAGES + 1):
        queue.put(records())
    queue.clear()
    assert queue.take() is None


@given(st.lists(st.none() | st.builds(records, st.integers(0, 12), st.integers(0, 9)), max_size=300))
def test_nothing_is_lost_without_being_counted(steps: list[AccessRecords | None]) -> None:
    queue, put, taken = RecordQueue(), 0, 0
    for step in [*steps, *[None] * (MAX_MESSAGES + 1)]:
        if step is not None:
            queue.put(step)
            put += len(step.records) + step.dropped
        elif (found := queue.take()) is not None:
            taken += len(found.records) + found.dropped
    assert put == taken
