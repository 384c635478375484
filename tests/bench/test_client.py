"""When something took effect, from what clients were answered."""

from collections import Counter

import pytest

from bench.client import Row, effect, wrong


def rows(*said: str, to: int = 0) -> list[Row]:
    """One every 10 ms from 1.0 s on, each of 4 ms."""
    return [Row(to, 1 + number / 100, 1 + number / 100 + 0.004, each) for number, each in enumerate(said)]


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (("b", "b", "b"), 0.004),
        (("a", "b", "b"), 0.014),
        (("b", "a", "b", "b"), 0.024),
        (("a", "!closed", "b"), 0.024),
        (("b", "b", "a"), None),
        ((), None),
    ],
)
def test_the_first_right_answer_after_the_last_wrong_one(said: tuple[str, ...], seconds: float | None) -> None:
    assert effect(rows(*said), 0, 1.0, 2.0, "b") == (pytest.approx(seconds) if seconds else None)


def test_requests_under_way_at_a_change_say_nothing() -> None:
    assert effect(rows("a", "b", "b", "c"), 0, 1.005, 1.032, "b") == pytest.approx(0.009)


def test_addresses_are_apart() -> None:
    every = [*rows("a", "a"), *rows("b", "b", to=1)]
    assert effect(every, 0, 1.0, 2.0, "b") is None
    assert effect(every, 1, 1.0, 2.0, "b") == pytest.approx(0.004)


def test_failures_are_counted_by_what_was_said() -> None:
    assert wrong(rows("b", "!closed", "!closed", "!503")) == Counter({"closed": 2, "503": 1})
