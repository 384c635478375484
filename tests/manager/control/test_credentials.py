"""Control's TLS: anchors follow the claims, and no more often than the cost allows."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from meshdev.manager.control.credentials import TrustedPeers
from tests.manager.control.identities import identity
from tests.manager.control.world import authority


class Anchors:
    def __init__(self) -> None:
        self.found: dict[str, bytes] = {}
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.asked = 0
        self.peers = TrustedPeers(
            authority(), self._anchors, lambda *timer: self.timers.append(timer), datetime.now(UTC)
        )

    def _anchors(self) -> dict[str, bytes]:
        self.asked += 1
        return dict(self.found)

    def add(self, name: str) -> None:
        self.found[name] = identity(name).certificate
        self.peers.follow()

    def fire(self) -> None:
        (timer,) = self.timers
        self.timers.clear()
        timer[1]()


@pytest.fixture
def anchors() -> Anchors:
    return Anchors()


def test_what_is_as_it_was_is_not_answered_again(anchors: Anchors) -> None:
    assert anchors.peers._fetch() is None
    anchors.add("b-1")
    assert anchors.peers._fetch() is not None
    assert anchors.peers._fetch() is None
    anchors.fire()
    anchors.peers.follow()
    assert anchors.peers._fetch() is None
    assert anchors.timers == []


def test_changes_that_follow_each_other_are_one(anchors: Anchors) -> None:
    anchors.add("b-1")
    before = anchors.asked
    anchors.add("b-2")
    anchors.add("evil")
    assert anchors.asked == before
    first = anchors.peers._fetch()
    assert (first is not None, anchors.peers._fetch()) == (True, None)
    anchors.fire()
    assert anchors.peers._fetch() is not None
    assert [seconds for seconds, _ in anchors.timers] == [pytest.approx(0.023)], "the more, the longer"


def test_of_sets_that_nobody_fetched_the_newest_counts(anchors: Anchors) -> None:
    anchors.add("b-1")
    anchors.fire()
    anchors.add("b-2")
    assert anchors.peers._fetch() is not None
    assert anchors.peers._fetch() is None


def test_who_is_not_needed_any_more_makes_no_other_set(anchors: Anchors) -> None:
    anchors.add("b-1")
    anchors.fire()
    anchors.add("b-2")
    anchors.fire()
    assert anchors.peers._fetch() is not None
    anchors.found.clear()
    anchors.peers.follow()
    assert (anchors.peers._fetch(), anchors.timers) == (None, [])
    anchors.add("b-1")
    assert anchors.peers._fetch() is None, "it is among them still"
