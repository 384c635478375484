"""The token bucket: a burst, then so many a second, whatever is asked when."""

from hypothesis import given
from hypothesis import strategies as st

from meshdev.rate import TokenBucket


def test_a_burst_then_so_many_a_second() -> None:
    bucket = TokenBucket(2.0, 3.0, now=10.0)
    assert [bucket.take(10.0) for _ in range(4)] == [True, True, True, False]
    assert [bucket.take(10.4), bucket.take(10.5), bucket.take(10.5)] == [False, True, False]
    assert [bucket.take(1000.0) for _ in range(4)] == [True, True, True, False], "what is unused is a burst at most"


def test_several_times_are_all_or_none() -> None:
    bucket = TokenBucket(2.0, 3.0, now=10.0)
    assert [bucket.take(10.0, 2), bucket.take(10.0, 2), bucket.take(10.0)] == [True, False, True]
    assert [bucket.take(10.5, 2), bucket.take(11.0, 2)] == [False, True]


@given(st.lists(st.floats(0, 10), max_size=200), st.integers(1, 20), st.integers(1, 20))
def test_never_more_than_burst_and_rate_allow(times: list[float], per_second: int, burst: int) -> None:
    bucket = TokenBucket(per_second, burst, now=0.0)
    taken = [now for now in sorted(times) if bucket.take(now)]
    for at, first in enumerate(taken):
        for more, last in enumerate(taken[at:], 1):
            assert more <= burst + per_second * (last - first) + 1e-6


def test_who_waits_as_told_is_never_too_often() -> None:
    bucket = TokenBucket(2.0, 3.0, now=10.0)
    assert [bucket.delay(10.0) for _ in range(5)] == [0, 0, 0, 0.5, 1.0]
    assert bucket.delay(11.0) == 0.5
