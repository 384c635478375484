"""What a session asks of the manager while somebody watches, and what each subscriber gets."""

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Final

from meshdev.session import records
from meshdev.session.records import MAX_WAITING, RecordFeed, Subscription
from meshdev.wire.access import AccessRecord, AccessRecords, Watch
from meshdev.wire.watching import ClaimRecords

A, B, C = ("a" * 32, "b" * 32, "c" * 32)
OWN: Final = Watch(on=True)
ALL: Final = Watch(on=True, all=True)
SECRETS: Final = Watch(on=True, values=True)
ONE: Final = AccessRecord(1, IPv4Address("10.244.1.1"), 80, "HTTP/2", "laptop", 250, "GET", "b", "/a", 200)


class World:
    def __init__(self) -> None:
        self.asked: list[tuple[str, Watch]] = []
        self.feed = RecordFeed(lambda id_, watch: self.asked.append((id_, watch)))
        self._before: dict[str, int] = {}

    def come(self, id_: str, *intercepts: str | None, dropped: int = 0, lost: int = 0, path: str = "/a") -> None:
        before = self._before.get(id_, 0) + lost
        self._before[id_] = before + len(intercepts)
        some = tuple(replace(ONE, intercept=each, path=path) for each in intercepts)
        self.feed.on_records(ClaimRecords(id_, "b-1", AccessRecords(some, dropped), before))


def intercepts(one: Subscription) -> list[str | None]:
    found, dropped = one.take()
    assert dropped == 0
    return [each.record.intercept for each in found]


def test_what_is_asked_for_is_what_all_want_together() -> None:
    world = World()
    first = world.feed.subscribe({A}, OWN)
    second = world.feed.subscribe([A, B], ALL)
    assert world.asked == [(A, OWN), (A, ALL), (B, ALL)]
    world.asked.clear()
    world.feed.renew()
    assert world.asked == [(A, ALL), (B, ALL)]
    world.asked.clear()
    second.close()
    second.close()
    assert world.asked == [(B, Watch()), (A, OWN)]
    first.close()
    world.feed.renew()
    assert world.asked[2:] == [(A, Watch())]


def test_each_gets_what_it_wants() -> None:
    world = World()
    own, every = world.feed.subscribe({A}, OWN), world.feed.subscribe({A, B}, ALL)
    world.come(A, A, None, C)
    world.come(B, B, None)
    assert intercepts(own) == [A]
    assert intercepts(every) == [A, None, C, B, None]
    assert intercepts(every) == []
    every.close()
    world.come(A, A, None)
    assert intercepts(own) == [A]
    assert intercepts(every) == []


def test_where_a_record_comes_from() -> None:
    world = World()
    own = world.feed.subscribe({A}, OWN)
    world.come(A, A)
    ((found,), _) = own.take()
    assert (found.id, found.pod, found.record.path) == (A, "b-1", "/a")


def test_credentials_are_only_for_who_asked_for_them() -> None:
    world = World()
    plain, secrets = world.feed.subscribe({A}, OWN), world.feed.subscribe({A}, SECRETS)
    assert world.asked[-1] == (A, SECRETS)
    world.come(A, A, path="/x?token=abc")
    assert [each.record.path for each in plain.take()[0]] == ["/x?token=***"]
    assert [each.record.path for each in secrets.take()[0]] == ["/x?token=abc"]


def test_what_did_not_come_is_counted() -> None:
    world = World()
    one, other = world.feed.subscribe({A}, OWN), world.feed.subscribe({B}, OWN)
    world.come(A, A, lost=5)
    assert one.take()[1] == 0, "it may be that this session was not there"
    world.come(A, A, dropped=2)
    world.come(A, A, lost=3)
    found, dropped = one.take()
    assert (len(found), dropped) == (2, 5)
    assert one.take() == ([], 0)
    assert other.take() == ([], 0)


def test_a_manager_that_begins_anew_lost_nothing() -> None:
    world = World()
    one = world.feed.subscribe({A}, OWN)
    world.come(A, A, A)
    world._before.clear()
    world.come(A, A)
    assert (len(one.take()[0]), one.take()[1]) == (3, 0)


def test_who_does_not_take_keeps_the_newest() -> None:
    world = World()
    news: list[int] = []
    one = world.feed.subscribe({A}, OWN, lambda: news.append(1))
    for number in range(MAX_WAITING // 10 + 2):
        world.come(A, *[A] * 10, path=f"/{number}")
    found, dropped = one.take()
    assert len(found) == MAX_WAITING
    assert dropped == 10 * (MAX_WAITING // 10 + 2) - MAX_WAITING
    assert found[-1].record.path == f"/{MAX_WAITING // 10 + 1}"
    assert len(news) == MAX_WAITING // 10 + 2


def test_what_a_manager_makes_up_is_not_kept() -> None:
    world = World()
    world.come(A, A)
    one = world.feed.subscribe({A}, OWN)
    world.come(B, A, lost=3)
    assert (one.take(), len(world.feed.recent)) == (([], 0), 0)
    for number in range(records._MAX_PODS + 10):
        world.feed.on_records(ClaimRecords(A, f"pod-{number}", AccessRecords((ONE,))))
    assert 0 < len(world.feed._next) <= records._MAX_PODS
