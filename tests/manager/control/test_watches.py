"""Who watches which pods, and which records each session gets: once, in order, bounded, masked."""

import json
from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any, Final

import pytest
from envoy.data.accesslog.v3 import accesslog_pb2

from meshdev.intercept.spec import Port, Spec
from meshdev.manager.control import watches
from meshdev.manager.control.access_logs import EnvoyLogs
from meshdev.manager.control.pods import HeldClaim
from meshdev.manager.control.watches import MAX_PODS, MAX_WAITING, WaitingRecords, Watches
from meshdev.sidecar.envoy.claims import LiveClaim
from meshdev.wire.access import (
    MAX_AUTHORITY,
    MAX_METHOD,
    MAX_PATH,
    MAX_RECORDS,
    RECORDS_PER_SECOND,
    WATCH_SECONDS,
    AccessRecord,
    AccessRecords,
    Watch,
)
from meshdev.wire.control import decode
from meshdev.wire.frames import RECORDS
from meshdev.wire.modes import PROXY
from meshdev.wire.watching import RENEW_SECONDS, ClaimRecords, WatchClaim
from tests.loops import Clock
from tests.manager.claims import spec

ANN, BOB = IPv4Address("198.18.0.2"), IPv4Address("198.18.0.3")
A, B, C = spec("a"), spec("b", Port(8081, "http", 3001)), spec("c")
OWN: Final = Watch(on=True)
ALL: Final = Watch(on=True, all=True)


def alias(one: Spec) -> str:
    return one.id[::-1]


class World:
    """Control with its claims as plain values, and a tunnel container that takes when it is told to."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.held: dict[str, list[HeldClaim]] = {}
        self.ready: dict[str, WaitingRecords] = {}
        self.told: list[tuple[str, Watch]] = []
        self._timers: list[tuple[float, Callable[[], None]]] = []
        self.watches = Watches(self, lambda queue: self.ready.update({queue.name: queue}), self._later, self.clock)

    def held_by(self, key: str) -> list[HeldClaim]:
        return self.held.get(key, [])

    def reached_by(self, name: str) -> list[str]:
        return [key for key, held in self.held.items() if any(each.alias == name for each in held)]

    def named(self) -> list[str]:
        return list(self.held)

    def _later(self, seconds: float, callback: Callable[[], None]) -> None:
        self._timers.append((self.clock.now + seconds, callback))

    def wait(self, seconds: float) -> None:
        end = self.clock.now + seconds
        while due := sorted((each for each in self._timers if each[0] <= end), key=lambda each: each[0])[:1]:
            self._timers.remove(due[0])
            self.clock.now = due[0][0]
            due[0][1]()
        self.clock.now = end

    def claim(self, one: Spec, *keys: str, session: IPv4Address = ANN) -> None:
        for key in keys:
            claim = LiveClaim(one, "ann", (), frozenset())
            held = HeldClaim(alias(one), claim, False, 1, session=session, pod=f"pod-{key}")
            self.held.setdefault(key, []).append(held)

    def watch(self, one: Spec, watch: Watch = OWN) -> None:
        self.watches.on_watch(WatchClaim(alias(one), watch))

    def log(self, key: str, *paths: str, by: Spec | None = None) -> bool:
        return self.watches.logged(key, EnvoyLogs(tuple(entry(path, by) for path in paths)))

    def take(self) -> list[ClaimRecords]:
        """All that waits, as the session of each claim reads it."""
        found = []
        while self.ready:
            queue = self.ready.pop(next(iter(self.ready)))
            message = queue.take()
            if queue:
                self.ready[queue.name] = queue
            read = decode(RECORDS, message.body)
            assert isinstance(read, ClaimRecords)
            assert message.id == read.id[::-1]
            found.append(read)
        return found

    def paths(self) -> dict[str, list[str]]:
        """By claim."""
        found: dict[str, list[str]] = {}
        for each in self.take():
            found.setdefault(each.id[:2], []).extend(record.path for record in each.records.records)
        return found


def entry(path: str, by: Spec | None = None) -> Any:
    made = accesslog_pb2.HTTPAccessLogEntry()
    made.request.path = path
    made.common_properties.downstream_local_address.socket_address.port_value = 8080
    made.common_properties.upstream_cluster = "original_8080"
    if by is not None:
        made.common_properties.custom_tags["intercept"] = by.id
    return made


@pytest.fixture
def world() -> World:
    made = World()
    made.claim(A, "k")
    return made


# -- who is told ---------------------------------------------------------------------------------------------------


def test_nothing_is_wanted_while_nobody_watches(world: World) -> None:
    assert not world.log("k", "/1", by=A)
    assert world.take() == []


def test_agents_are_told_and_told_again_and_told_that_it_is_over(world: World) -> None:
    with world.watches.agent("k", lambda watch: world.told.append(("k", watch))):
        world.watch(A)
        assert world.told == [("k", OWN)]
        for _ in range(4):
            world.wait(RENEW_SECONDS)
            world.watch(A)
        assert world.told == [("k", OWN)] * 5
        world.told.clear()
        world.watch(A, Watch())
        assert world.told == [("k", Watch())]
        assert not world.log("k", "/1", by=A)
        world.wait(60)
        assert world.told == [("k", Watch())]


def test_a_watch_that_is_not_renewed_ends(world: World) -> None:
    with world.watches.agent("k", lambda watch: world.told.append(("k", watch))):
        world.watch(A)
        world.wait(WATCH_SECONDS - 0.1)
        assert world.log("k", "/1", by=A)
        world.wait(RENEW_SECONDS)
        assert not world.log("k", "/2", by=A)
        assert world.told[-1] == ("k", Watch())
        assert world.take()[0].records == AccessRecords(())
    assert world._timers == []


def test_what_several_watch_is_told_together(world: World) -> None:
    world.claim(B, "k", "l", session=BOB)
    told = world.told
    with (
        world.watches.agent("k", lambda watch: told.append(("k", watch))),
        world.watches.agent("l", lambda watch: told.append(("l", watch))),
    ):
        world.watch(A)
        world.watch(B, ALL)
        assert told == [("k", OWN), ("k", ALL), ("l", ALL)]
        told.clear()
        world.watch(B, Watch())
        assert told == [("l", Watch()), ("k", OWN)]


def test_an_agent_that_comes_while_it_is_watched_is_told_at_once(world: World) -> None:
    world.watch(A)
    with world.watches.agent("k", lambda watch: world.told.append(("first", watch))):
        with world.watches.agent("k", lambda watch: world.told.append(("second", watch))):
            pass
        assert world.told == [("first", OWN), ("second", OWN)]
        world.watch(A, Watch())
        assert len(world.told) == 2, "the stream that was replaced is told no more"


def test_no_more_pods_are_watched_than_control_has_connections_for(world: World) -> None:
    keys = [f"k{number}" for number in range(MAX_PODS + 5)]
    world.claim(B, *keys)
    world.watch(B)
    assert sum(world.log(key, "/1", by=B) for key in keys) == MAX_PODS


def test_who_watches_many_pods_leaves_some_to_others(world: World) -> None:
    many, few = [f"a{number:03}" for number in range(2 * MAX_PODS)], ["y", "z"]
    world.claim(B, *many)
    world.claim(C, *few, session=BOB)
    world.watch(B)
    assert all(world.log(key, "/1", by=B) for key in many[:MAX_PODS])
    world.watch(C)
    assert all(world.log(key, "/1", by=C) for key in few)
    assert sum(world.log(key, "/1", by=B) for key in many) == MAX_PODS - len(few)


def test_a_new_tunnel_container_knows_no_watches(world: World) -> None:
    world.watch(A)
    world.log("k", "/1", by=A)
    world.watches.tunnel_connected()
    assert not world.log("k", "/2", by=A)
    assert [each.records.records for each in world.take()] == [()]
    world.watch(A)
    world.log("k", "/3", by=A)
    assert world.paths() == {A.id[:2]: ["/3"]}


# -- who gets what -------------------------------------------------------------------------------------------------


def test_who_watches_its_own_gets_its_own(world: World) -> None:
    world.claim(B, "k", session=BOB)
    world.watch(A)
    world.log("k", "/a", by=A)
    world.log("k", "/b", by=B)
    world.log("k", "/nobody's")
    assert world.paths() == {A.id[:2]: ["/a"]}


def test_who_watches_all_gets_each_once(world: World) -> None:
    world.claim(C, "k")
    world.claim(B, "k", session=BOB)
    for one in (A, C, B):
        world.watch(one, ALL)
    for path, by in {"/a": A, "/b": B, "/c": C, "/nobody's": None}.items():
        world.log("k", path, by=by)
    found = world.paths()
    assert found[B.id[:2]] == ["/a", "/b", "/c", "/nobody's"]
    assert found[C.id[:2]] == ["/c"], "the claim that took it"
    assert found[A.id[:2]] == ["/a", "/b", "/nobody's"]


def test_other_pods_are_not_watched(world: World) -> None:
    world.claim(B, "l")
    world.watch(A, ALL)
    assert not world.log("l", "/1", by=B)


def test_what_an_agent_saw(world: World) -> None:
    one = AccessRecord(1, IPv4Address("10.0.0.1"), 80, "HTTP/1.1", "original", 1, "GET", "b", "/x?token=abc")
    world.watches.recorded("k", AccessRecords((one,), 2))
    assert world.take() == []
    world.watch(A)
    world.watches.recorded("k", AccessRecords((one,), 0))
    assert world.paths() == {}
    world.watch(A, ALL)
    world.watches.recorded("k", AccessRecords((one,), 2))
    (found,) = world.take()
    assert found.records == AccessRecords((replace(one, path="/x?token=***"),), 2)


def test_what_an_agent_saw_is_no_span(world: World) -> None:
    one = AccessRecord(1, IPv4Address("10.0.0.1"), 80, "HTTP/1.1", "original", 1, trace_id="ab" * 16)
    world.watch(A, ALL)
    made_up = replace(one, span_id="cd" * 8, parent_span_id="ef" * 8, sampled=True)
    world.watches.recorded("k", AccessRecords((made_up,), 0))
    (found,) = world.take()
    assert found.records == AccessRecords((one,), 0)


def test_credentials_are_masked_but_in_one_s_own_requests_where_one_asks_for_them(world: World) -> None:
    world.claim(B, "k", session=BOB)
    world.watch(A, Watch(on=True, all=True, values=True))
    world.watch(B, ALL)
    for by in (A, B, None):
        world.log("k", "/x?password=hunter2", by=by)
    found = world.paths()
    assert found[A.id[:2]] == ["/x?password=hunter2", "/x?password=***", "/x?password=***"]
    assert found[B.id[:2]] == ["/x?password=***"] * 3


def test_connections_go_to_whoever_has_the_whole_port(world: World) -> None:
    flow = spec("f", Port(7000, "tcp", 7001), mode=PROXY)
    world.claim(flow, "k")
    made = accesslog_pb2.TCPAccessLogEntry()
    made.common_properties.downstream_local_address.socket_address.port_value = 7000
    world.watch(flow)
    world.watches.logged("k", EnvoyLogs(connections=(made,)))
    (found,) = world.take()
    assert [record.intercept for record in found.records.records] == [flow.id]


# -- how much ------------------------------------------------------------------------------------------------------


def numbers(found: list[ClaimRecords]) -> tuple[list[int], int]:
    """The numbers in the paths, and how many more there were."""
    paths = [int(record.path[1:]) for each in found for record in each.records.records]
    return paths, sum(each.records.dropped for each in found)


def test_messages_are_bounded_and_count_what_was_sent_before(world: World) -> None:
    world.watch(A)
    world.log("k", *(f"/{number}" for number in range(30)), by=A)
    found = world.take()
    assert [(each.before, len(each.records.records)) for each in found] == [(0, 12), (12, 12), (24, 6)]
    assert {each.pod for each in found} == {"pod-k"}
    assert numbers(found) == (list(range(30)), 0)
    assert MAX_RECORDS == 12


def test_so_many_a_second_of_a_pod_and_the_rest_is_counted(world: World) -> None:
    world.claim(B, "l")
    world.watch(A)
    world.watch(B)
    for _ in range(3):
        world.log("k", *(f"/{number}" for number in range(RECORDS_PER_SECOND)), by=A)
    world.log("l", "/1", by=B)
    found = world.take()
    assert numbers([each for each in found if each.pod == "pod-k"]) == (list(range(500)), 1000)
    assert numbers([each for each in found if each.pod == "pod-l"]) == ([1], 0), "another pod's own"
    world.clock.now += 0.1
    world.log("k", *(f"/{number}" for number in range(100)), by=A)
    assert numbers(world.take()) == (list(range(50)), 50)


def test_what_nobody_wants_takes_no_room(world: World) -> None:
    world.watch(A)
    world.log("k", *["/nobody's"] * 2000)
    world.log("k", "/1", by=A)
    assert numbers(world.take()) == ([1], 0)


def test_a_session_that_does_not_take_loses_the_newest_and_learns_how_many(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watches, "RECORDS_PER_SECOND", 1 << 20)
    world.watch(A)
    for number in range(MAX_WAITING + 100):
        world.log("k", f"/{number}", by=A)
    assert numbers(world.take()) == (list(range(MAX_WAITING)), 100)
    world.log("k", "/7", by=A)
    (found,) = world.take()
    assert (found.before, numbers([found])) == (MAX_WAITING, ([7], 0))


def test_what_waits_for_all_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches, "MAX_WAITING_IN_ALL", 10)
    world.claim(B, "l", session=BOB)
    world.watch(A)
    world.watch(B)
    for key, by in (("k", A), ("l", B)):
        world.log(key, *(f"/{number}" for number in range(8)), by=by)
    assert numbers(world.take()) == ([*range(8), 0, 1], 6)
    assert world.watches._waiting.total() == 0


def test_what_cannot_be_read_is_counted(world: World) -> None:
    world.watch(A)
    nowhere = entry("/1", A)
    nowhere.common_properties.ClearField("downstream_local_address")
    world.watches.logged("k", EnvoyLogs((nowhere,), (), 1))
    (found,) = world.take()
    assert found.records == AccessRecords((), 2)


def test_what_is_sent_of_texts_is_short(world: World) -> None:
    world.watch(A, Watch(on=True, values=True))
    world.log("k", "/" + "x" * 100_000, by=A)
    (queue,) = world.ready.values()
    assert len(json.dumps(queue.take().body.decode())) < 5000


def test_what_waits_is_short_too(world: World) -> None:
    """Of 8,192 records with all that an entry may have control would have no memory left."""
    world.watch(A, Watch(on=True, all=True, values=True))
    made = entry("/" + "\u4f60" * 100_000, A)
    made.request.authority = "\u4f60" * 100_000
    made.request.request_headers[":method"] = "\u4f60" * 100_000
    world.watches.logged("k", EnvoyLogs((made,)))
    (queue,) = world.ready.values()
    record = queue._records[0]
    assert (len(record.path), len(record.authority), len(record.method)) == (MAX_PATH, MAX_AUTHORITY, MAX_METHOD)


def test_who_says_something_new_all_the_time_is_followed_now_and_then(world: World) -> None:
    """Finding out who is watched takes time, and telling an agent costs its pod some."""
    with world.watches.agent("k", lambda watch: world.told.append(("k", watch))):
        for number in range(2001):
            world.watch(A, Watch(on=True, all=number % 2 == 0))
            world.watches.refresh()
            world.wait(0.001)
        assert 2 < len(world.told) < 30
        world.wait(1)
        assert world.told[-1] == ("k", ALL)
