"""Certificates of one agent: when there is one, when another one, and that asking costs little."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from meshdev.identity.keys import key_id
from meshdev.intercept.spec import Workload
from meshdev.manager.control.certificates import PAUSE_SECONDS, Certificates, identity_path
from meshdev.wire.agent import IssuedCertificate
from tests.manager.control.identities import identity
from tests.manager.control.world import authority

WORKLOAD = Workload("default", "statefulset", "db.x", "0f2e2d8c-uid")
PATH = identity_path(WORKLOAD, "u-1")
OTHER = identity_path(WORKLOAD, "u-2")
ONE = identity()


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.timers: list[tuple[datetime, Callable[[], None]]] = []
        self.looked: list[str] = []
        self.certificates = Certificates(
            authority(), timedelta(hours=1), lambda: self.now, self.later, self.looked.append
        )

    def later(self, seconds: float, callback: Callable[[], None]) -> None:
        self.timers.append((self.now + timedelta(seconds=seconds), callback))

    def wait(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        for at, callback in self.timers:
            if at <= self.now:
                callback()
        self.timers = [timer for timer in self.timers if timer[0] > self.now]

    def current(self, *paths: str) -> IssuedCertificate | None:
        return self.certificates.current(ONE.key, paths)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_there_is_one_when_it_was_asked_for_and_a_session_says_whose_it_is(clock: Clock) -> None:
    assert clock.current(PATH) is None
    clock.certificates.request(ONE.key, ONE.pair.request())
    assert clock.current() is None
    issued = clock.current(PATH)
    assert issued is not None
    assert key_id(issued.certificate) == ONE.key
    assert clock.current(OTHER, PATH) is issued, "one session still says so"
    assert clock.current() is issued, "what it has it keeps"
    clock.certificates.forget(ONE.key)
    assert clock.current(PATH) is None


def test_the_next_one_comes_at_half_of_its_life_if_there_is_an_edge_still(clock: Clock) -> None:
    clock.certificates.request(ONE.key, ONE.pair.request())
    first = clock.current(PATH)
    clock.wait(1799)
    assert (clock.looked, clock.current(PATH)) == ([], first)
    clock.wait(1)
    assert clock.looked == [ONE.key]
    assert clock.current() is first
    assert clock.current(PATH) != first


def test_another_workload_or_request_is_another_certificate_but_not_at_once(clock: Clock) -> None:
    clock.certificates.request(ONE.key, ONE.pair.request())
    first = clock.current(PATH)
    assert clock.current(OTHER) is first
    clock.wait(PAUSE_SECONDS)
    assert clock.looked == [ONE.key]
    second = clock.current(OTHER)
    assert second not in {None, first}
    clock.certificates.request(ONE.key, ONE.pair.request())
    assert clock.current(OTHER) is None
    clock.wait(PAUSE_SECONDS)
    assert clock.current(OTHER) not in {None, first, second}


@pytest.mark.parametrize("request_", [b"", b"PKCS", identity("b-2").pair.request()])
def test_a_bad_request_gets_nothing_and_is_not_tried_again_and_again(
    clock: Clock, request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    clock.certificates.request(ONE.key, request_)
    for _ in range(10):
        assert clock.current(PATH) is None
    assert caplog.text.count("gets no certificate") == 1
