"""Control watches all claims for itself, and pods from the moment that a claim reaches them."""

from meshdev.manager.control.watches import MAX_PODS
from meshdev.wire.access import RECORDS_PER_SECOND, WATCH_SECONDS, Watch
from meshdev.wire.watching import RENEW_SECONDS
from tests.manager.control.test_watches import BOB, OWN, A, B, World, world

__all__ = ["world"]  # the fixture


def test_control_takes_what_claims_of_all_sessions_take(world: World) -> None:
    world.claim(B, "l", session=BOB)
    taken: list[tuple[str, str, str]] = []
    with world.watches.agent("k", lambda watch: world.told.append(("k", watch))):
        world.watches.watch_all(lambda held, record: taken.append((held.pod, record.holder, record.path)))
        assert world.told == [("k", OWN)], "no session watches"
    assert world.log("k", "/1?token=hunter2", by=A)
    assert world.log("l", "/2", by=B)
    world.log("l", "/nobody's")
    assert taken == [("pod-k", "ann", "/1?token=***"), ("pod-l", "ann", "/2")]
    assert world.take() == [], "and none gets anything"


def test_a_session_and_control_get_the_same_record_once_each(world: World) -> None:
    taken: list[str] = []
    missed: list[int] = []
    world.watches.watch_all(lambda _, record: taken.append(record.path), missed.append)
    world.watch(A)
    world.log("k", "/1", by=A)
    assert (taken, missed) == (["/1"], [])
    assert world.paths() == {A.id[:2]: ["/1"]}


def test_control_goes_on_watching_whatever_sessions_do(world: World) -> None:
    taken: list[str] = []
    world.watches.watch_all(lambda _, record: taken.append(record.path))
    world.watches.tunnel_connected()
    world.watch(A)
    world.wait(WATCH_SECONDS + 2 * RENEW_SECONDS)
    assert world.log("k", "/1", by=A)
    assert taken == ["/1"]
    world.held.clear()
    world.wait(RENEW_SECONDS)
    assert not world.log("k", "/2", by=A)


def test_a_pod_that_a_claim_reaches_now_is_watched_at_once(world: World) -> None:
    told: list[Watch] = []
    world.watch(A)
    world.claim(A, "m")
    with world.watches.agent("m", told.append):
        assert told == []
        world.watches.refresh()
        assert told == [OWN]
        world.watches.refresh()
        assert told == [OWN], "once"


def test_control_leaves_pods_to_sessions_where_they_are_too_many(world: World) -> None:
    world.claim(A, *(f"a{number}" for number in range(MAX_PODS)))
    world.claim(B, "last", session=BOB)
    world.watches.watch_all(lambda *_: None)
    world.watch(B)
    assert world.log("last", "/1", by=B)
    watched = [key for key in world.held if world.watches.is_watched(key)]
    assert len(watched) == MAX_PODS


def test_how_many_more_there_were_is_counted(world: World) -> None:
    taken: list[str] = []
    missed: list[int] = []
    world.watches.watch_all(lambda _, record: taken.append(record.path), missed.append)
    world.log("k", *(f"/{number}" for number in range(RECORDS_PER_SECOND + 7)), by=A)
    assert (len(taken), sum(missed)) == (RECORDS_PER_SECOND, 7)
