"""Certificates of agents: one for each key and workload that sessions name, and the next at half of its life."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509

from meshdev.errors import ProtocolError
from meshdev.identity.keys import key_id
from meshdev.intercept.spec import Workload
from meshdev.manager.control.certificates import Certificates, identity_path
from tests.manager.control.identities import Identity, identity
from tests.manager.control.world import authority

WORKLOAD = Workload("default", "statefulset", "db.x", "0f2e2d8c-uid")
PATH = identity_path(WORKLOAD, "u-1")
OTHER = identity_path(WORKLOAD, "u-2")
ONE, TWO = identity(), identity("b-2")


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.timers: list[tuple[datetime, Callable[[], None]]] = []
        self.wrong = timedelta()
        """By how much the time of day is not that of timers."""
        self.looked: list[str] = []
        self.certificates = Certificates(
            authority(), timedelta(hours=1), lambda: self.now + self.wrong, self.later, self.looked.append
        )

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        self.timers.append((self.now + timedelta(seconds=seconds), callback))

    def wait(self, seconds: float) -> None:
        """Timers that come due meanwhile are called at their time."""
        end = self.now + timedelta(seconds=seconds)
        while due := sorted((timer for timer in self.timers if timer[0] <= end), key=lambda timer: timer[0]):
            self.timers.remove(due[0])
            self.now = due[0][0]
            due[0][1]()
        self.now = end

    def current(self, path: str = PATH, who: Identity = ONE) -> bytes:
        return self.certificates.current(who.key, who.request, path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_it_is_the_same_while_it_is_fresh_for_all_who_say_the_same(clock: Clock) -> None:
    first = clock.current()
    assert key_id(first) == ONE.key
    clock.wait(1799)
    assert clock.current() is first
    other = clock.current(OTHER)
    assert key_id(other) == ONE.key
    assert other != first, "each session has its own words"
    assert clock.current() is first


def test_the_next_one_comes_at_half_of_its_life(clock: Clock) -> None:
    first = clock.current()
    clock.wait(600)
    clock.current(who=TWO)
    clock.wait(1199)
    assert clock.looked == []
    clock.wait(1)
    assert clock.looked == [ONE.key]
    assert clock.current() != first
    clock.wait(600 + 36)
    assert clock.looked == [ONE.key, ONE.key, TWO.key], "it was this test that asked first"


def test_one_that_nobody_renews_costs_a_look_now_and_then(clock: Clock) -> None:
    clock.current()
    clock.wait(1800 + 360)
    assert len(clock.looked) == 11
    assert len(clock.timers) == 1


def test_what_no_session_says_any_more_is_dropped(clock: Clock) -> None:
    first, other = clock.current(), clock.current(OTHER)
    clock.certificates.keep(ONE.key, {OTHER})
    assert clock.current(OTHER) is other
    assert clock.current() != first
    clock.certificates.keep(ONE.key, frozenset())
    clock.certificates.keep(TWO.key, {PATH})
    clock.wait(3600)
    assert (clock.looked, clock.timers) == ([], [])


@pytest.mark.parametrize("path", ["", "ns/default/deployment/b", PATH.replace("u-1", "../x")])
def test_what_is_no_workload_gets_nothing(clock: Clock, path: str) -> None:
    with pytest.raises(ProtocolError):
        clock.current(path)
    assert clock.timers == []


def test_whoever_needs_it_is_called_where_the_next_one_was_made_before_the_look(clock: Clock) -> None:
    clock.current()
    clock.wait(20)
    first = clock.current(who=TWO)
    clock.wait(1801)  # the look that found the first one due is 21 s ago, and the next is in 15 s
    assert clock.looked == [ONE.key]
    clock.looked.clear()
    assert clock.current(who=TWO) != first
    assert clock.looked == []
    clock.wait(0)
    assert clock.looked == [TWO.key]
    clock.wait(60)
    assert clock.looked.count(TWO.key) == 1


@pytest.mark.parametrize("hours", [-2, 2], ids=["put back", "put forward"])
def test_where_the_clock_was_set_the_next_one_comes_within_a_minute(clock: Clock, hours: int) -> None:
    first = clock.current()
    clock.wait(30)
    clock.wrong = timedelta(seconds=-50)
    assert clock.current() is first
    clock.wrong = timedelta(hours=hours)
    clock.wait(60)
    assert clock.looked == [ONE.key]
    found = x509.load_der_x509_certificate(clock.current())
    assert found.not_valid_before_utc < clock.now + clock.wrong < found.not_valid_after_utc
    clock.looked.clear()
    clock.wait(1740)
    assert clock.looked == [ONE.key], "it was this test that asked"
