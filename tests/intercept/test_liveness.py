"""Which Leases are renewed, whatever the clocks of holders, API servers and lookers show."""

from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.intercept.lease import EXPIRED_SECONDS, RENEW_SECONDS, STALE_SECONDS, LeaseStatus, Record
from meshdev.intercept.liveness import CONFIRM_SECONDS, Sightings
from tests.intercept.values import mesh

NOW: Final = 1_767_225_600.0
YEAR: Final = 3.2e7


def record(version: int = 1, written: float | None = NOW, duration: float = EXPIRED_SECONDS) -> Record:
    return Record(mesh(), "jane@laptop", "default", LeaseStatus(), NOW, "n", "uid", str(version), written, duration)


@pytest.mark.parametrize(
    ("age", "looked", "life"),
    [
        (0, 0, "renewed"),
        (30, 0, "renewed"),
        (31, 0, "unknown"),
        (YEAR, 0, "unknown"),
        (YEAR, CONFIRM_SECONDS, "unknown"),
        (YEAR, CONFIRM_SECONDS + 1, "expired"),
        (31, CONFIRM_SECONDS + 1, "expired"),
        (5, 25, "renewed"),
        (5, 26, "expired"),
        (25, 6, "unknown"),
        (25, CONFIRM_SECONDS + 1, "expired"),
        (-3, 0, "renewed"),  # two API servers of one cluster
        (-60, 0, "unknown"),
        (-YEAR, 30, "unknown"),
        (-YEAR, 31, "expired"),
        (None, 0, "unknown"),
        (None, 30, "unknown"),
        (None, 31, "expired"),
    ],
)
def test_one_that_never_changes(age: float | None, looked: float, life: str) -> None:
    sightings = Sightings()
    there = record(written=None if age is None else NOW - age)
    sightings.saw([there], 7.0, NOW)
    assert sightings.life(there, 7.0 + looked) == life


def test_a_change_is_a_renewal_for_one_duration() -> None:
    sightings = Sightings()
    sightings.saw([record(1, written=NOW - YEAR)], 0, NOW)
    sightings.saw([record(2, written=NOW - YEAR)], 5, NOW)
    assert sightings.life(record(2), 35) == "renewed"
    assert sightings.silent(record(2), 35) == 30
    assert sightings.life(record(2), 36) == "expired"
    assert sightings.life(record(3), 36) == "renewed"  # a change that is just being shown


def test_its_own_duration_counts() -> None:
    sightings = Sightings()
    there = record(duration=120, written=None)
    sightings.saw([there], 0, NOW)
    assert [sightings.life(there, at) for at in (120, 121)] == ["unknown", "expired"]


def test_what_was_not_seen_is_not_known() -> None:
    sightings = Sightings()
    assert sightings.life(record(), 0) == "unknown"
    sightings.saw([record(written=NOW - YEAR)], 0, NOW)
    sightings.blind()
    sightings.saw([record(written=NOW - YEAR)], 100, NOW)
    assert sightings.life(record(), 100 + CONFIRM_SECONDS) == "unknown"


@pytest.mark.parametrize("age", [0, STALE_SECONDS, STALE_SECONDS + EXPIRED_SECONDS, YEAR, None])
def test_anybody_may_delete_what_was_silent_for_ten_minutes(age: float | None) -> None:
    sightings = Sightings()
    there = record(written=None if age is None else NOW - age)
    sightings.saw([there], 0, NOW)
    limit = EXPIRED_SECONDS + STALE_SECONDS
    assert not sightings.stale(there, CONFIRM_SECONDS)
    expected = max(limit - (age or 0), CONFIRM_SECONDS)
    assert [sightings.stale(there, expected + extra) for extra in (0, 1)] == [False, True]
    sightings.saw([replace(there, version="2")], expected + 1, NOW)
    assert not sightings.stale(replace(there, version="2"), expected + 1 + limit)


_AGES = st.floats(-YEAR, YEAR) | st.none()


@given(
    pauses=st.lists(st.floats(0.1, RENEW_SECONDS + 1.5), max_size=20),
    looks=st.lists(st.floats(0.1, 60), min_size=1, max_size=20),
    age=_AGES,
    server=_AGES,
    start=st.floats(0, 10),
)
def test_who_renews_is_never_found_expired(
    pauses: list[float], looks: list[float], age: float | None, server: float | None, start: float
) -> None:
    """Whatever every clock but the looker's says, and however seldom it looks."""
    renewals = [start]
    for pause in pauses:
        renewals.append(renewals[-1] + pause)
    sightings, now = Sightings(), 0.0
    for look in looks:
        now += look
        if now > renewals[-1] + RENEW_SECONDS:
            break  # it died, as far as this list goes
        version = sum(at <= now for at in renewals)
        written = None if age is None else NOW + age
        there = record(version, written=written)
        sightings.saw([there], now, None if server is None else NOW + server)
        assert sightings.life(there, now) != "expired"
        assert not sightings.stale(there, now)


@given(age=_AGES, server=_AGES, duration=st.floats(EXPIRED_SECONDS, 120))
def test_who_does_not_renew_is_expired_after_its_duration(
    age: float | None, server: float | None, duration: float
) -> None:
    sightings = Sightings()
    there = record(written=None if age is None else NOW + age, duration=duration)
    server_now = None if server is None else NOW + server
    for now in range(122):
        sightings.saw([there], now, server_now)
    assert sightings.life(there, duration + 1) == "expired"
