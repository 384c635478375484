"""What is recorded of requests and connections, how much of it, and for how long."""

from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final

import pytest

from meshdev.intercept.match import HeaderMatch, Match
from meshdev.intercept.spec import canonical_json
from meshdev.observe import reasons
from meshdev.pump.loop import Loop
from meshdev.sidecar.passthrough.http1 import RequestFollower, RequestHead
from meshdev.sidecar.worker import recorder as module
from meshdev.sidecar.worker.open_record import OpenRecord
from meshdev.sidecar.worker.port import ClaimedPort, PassthroughPort
from meshdev.sidecar.worker.recorder import EARLIER, MAX_WAITING, Recorder
from meshdev.wire.access import MAX_RECORDS, RECORDS_PER_SECOND, WATCH_SECONDS, AccessRecord, AccessRecords, Watch
from meshdev.wire.passthrough import PortClaims
from tests.sidecar.worker.world import Port

ALL: Final = Watch(on=True, all=True)
TRACE: Final = "0af7651916cd43dd8448eb211c80319c"


@dataclass(eq=False)
class Connection:
    """A client's."""

    port: PassthroughPort
    address: tuple[str, int] = ("10.244.0.9", 41000)
    carried: tuple[int, int] = (0, 0)
    watched: list[bool] = field(default_factory=list)

    def watch(self, *, on: bool) -> None:
        self.watched.append(on)


class World:
    """A recorder whose clock stands still, and an agent that may be slow."""

    def __init__(self) -> None:
        self.now = 100.0
        self.loop = Loop(lambda: self.now)
        self.port = Port(("10.244.0.7", 8080))
        self.connection = Connection(self.port)
        self.sent: list[AccessRecords] = []
        self.slow = False
        self.spent = 0.0
        self.recorder = Recorder(self.loop, [self.connection], lambda: 1_764_400_000.0 + self.now, lambda: self.spent)
        self.recorder.send = self._send
        self.recorder.add(self.port)

    def _send(self, records: AccessRecords) -> bool:
        if not self.slow:
            self.sent.append(records)
        return not self.slow

    def wait(self, seconds: float) -> None:
        """Until then, a timer at a time."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + 0.05)
            self.loop._run_timers()

    def begin(self, request: RequestHead | None = None) -> OpenRecord | None:
        return self.recorder.begin(self.connection, request or head())

    def records(self) -> list[AccessRecord]:
        """What comes within a batch's time."""
        self.wait(module.BATCH_SECONDS + 0.05)
        found = [record for each in self.sent for record in each.records]
        self.sent.clear()
        return found

    def one(self) -> AccessRecord:
        [record] = self.records()
        return record

    @property
    def dropped(self) -> int:
        return sum(each.dropped for each in self.sent)


def head(target: str = "/", *lines: str, line: str = "", host: str = "b") -> RequestHead:
    text = "".join(f"{each}\r\n" for each in (line or f"GET {target} HTTP/1.1", f"Host: {host}", *lines))
    event, _ = RequestFollower().next(f"{text}\r\n".encode("latin-1"))
    assert isinstance(event, RequestHead)
    return event


@pytest.fixture
def world() -> World:
    return World()


def test_one_request(world: World) -> None:
    world.recorder.watch(ALL)
    record = world.begin(head("/a?token=abc&x=1", f"traceparent: 00-{TRACE}-b7ad6b7169203331-01", host="u:p@b:80"))
    assert record is not None
    record.status, record.request_bytes, record.response_bytes = 404, 3, 14
    world.now += 0.0025
    record.end()
    record.end()
    assert world.one() == AccessRecord(
        time=1_764_400_100_000_000,
        source=IPv4Address("10.244.0.9"),
        port=8080,
        protocol="HTTP/1.1",
        served_by="original",
        duration=2500,
        method="GET",
        authority="***@b:80",
        path="/a?token=***&x=1",
        status=404,
        request_bytes=3,
        response_bytes=14,
        reason="no header a",
        trace_id=TRACE,
    )


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (head("http://u:p@c:81/x?sig=1", host="b"), ("***@c:81", "/x?sig=***")),
        (head("http://c"), ("c", "/")),
        (head("http://c?a=1"), ("c", "?a=1")),
        (head("*", line="OPTIONS * HTTP/1.1"), ("b", "*")),
        (head("/caf\xe9"), ("b", "/caf\xe9")),
        (head("/", host=""), ("", "/")),
        (head("/" + "x" * 9000), ("b", "/" + "x" * 511)),
    ],
)
def test_where_a_request_goes(world: World, request_: RequestHead, expected: tuple[str, str]) -> None:
    world.recorder.watch(ALL)
    opened = world.begin(request_)
    assert opened is not None
    opened.end()
    record = world.one()
    assert (record.authority, record.path) == expected
    assert opened.head is None, "nothing refers to it"


@pytest.mark.parametrize(
    "value",
    [
        *("", "00", f"00-{'0' * 32}-b7ad6b7169203331-01", f"00-{TRACE.upper()}-b7ad6b7169203331-01"),
        *(f"00-{TRACE}-b7ad6b7169203331", f"00-{TRACE}0-b7ad6b7169203331-01", f"{TRACE}"),
    ],
)
def test_what_is_no_trace(world: World, value: str) -> None:
    world.recorder.watch(ALL)
    record = world.begin(head("/", f"traceparent: {value}"))
    assert record is not None
    record.end()
    assert world.one().trace_id is None


def test_a_long_head_is_not_kept(world: World) -> None:
    world.recorder.watch(ALL)
    short, long = world.begin(head("/1")), world.begin(head("/2", f"x: {'y' * 3000}"))
    assert short is not None is not long
    assert short.head is not None
    assert (long.head, long.path, long.reason) == (None, "/2", "no header a")


def test_why_by_the_claims_of_the_moment_when_it_came(world: World) -> None:
    port = world.connection.port = ClaimedPort(("10.244.0.7", 8080))
    port.set(PortClaims(matches=(canonical_json(Match(headers=(HeaderMatch("a", "exact", "1"),))),)))
    world.recorder.watch(ALL)
    first = world.begin()
    port.set(PortClaims(matches=(canonical_json(Match(method="POST")),)))
    second = world.begin()
    assert first is not None is not second
    first.end()
    second.end()
    assert [record.reason for record in world.records()] == ["no header a", "method GET, not POST"]


def test_http_1_0_and_what_envoy_was_to_get(world: World) -> None:
    world.recorder.watch(ALL)
    for request in (head(line="GET / HTTP/1.0"), head("/", "a: 1")):
        record = world.begin(request)
        assert record is not None
        record.end()
    seen = [(each.protocol, each.served_by, each.reason) for each in world.records()]
    assert seen == [("HTTP/1.0", "original", "no header a"), ("HTTP/1.1", "fallback", reasons.NO_ENVOY)]


def test_without_all_only_what_was_claimed(world: World) -> None:
    world.recorder.watch(Watch(on=True))
    assert world.begin() is None
    record = world.begin(head("/", "a: 1"))
    assert record is not None
    record.end()
    world.recorder.begin_bytes(world.connection)
    world.recorder.begin_rest(world.connection, "other", new=True)
    world.recorder.end_all(world.connection)
    assert [each.served_by for each in world.records()] == ["fallback"]
    world.port.whole = True
    world.recorder.begin_bytes(world.connection)
    world.recorder.end_all(world.connection)
    found = world.one()
    assert (found.protocol, found.served_by, found.reason) == ("tcp", "fallback", reasons.NO_ENVOY)
    assert world.dropped == 0


def test_a_watch_ends_by_itself_unless_it_is_renewed(world: World) -> None:
    assert not world.port.watched
    world.recorder.watch(ALL)
    assert world.port.watched
    for _ in range(3):
        world.wait(WATCH_SECONDS - 1)
        world.recorder.watch(ALL)
    assert world.connection.watched == [True]
    record = world.begin()
    assert record is not None
    world.wait(WATCH_SECONDS - 0.1)
    assert world.port.watched
    world.wait(0.2)
    assert not world.port.watched
    assert world.connection.watched == [True, False]
    record.end()
    assert world.records() == []
    world.recorder.watch(ALL)
    world.recorder.watch(Watch())
    assert not world.port.watched
    world.recorder.watch(Watch(on=True))
    world.recorder.watch(ALL)
    assert world.connection.watched == [True, False, True, False, True, True]
    later = Port(("10.244.0.7", 8081))
    world.recorder.add(later)
    assert later.watched


def test_so_many_a_second_and_the_others_are_counted(world: World) -> None:
    world.recorder.watch(ALL)
    seen = dropped = 0
    for _ in range(20):
        for _ in range(1000):
            if (record := world.begin()) is not None:
                record.end()
        world.wait(0.1)
        seen += sum(len(each.records) for each in world.sent)
        dropped += world.dropped
        world.sent.clear()
    world.wait(0.2)
    seen += sum(len(each.records) for each in world.sent)
    dropped += world.dropped
    assert seen + dropped == 20_000
    assert 2.7 * RECORDS_PER_SECOND <= seen <= 3 * RECORDS_PER_SECOND + 20, "a burst, and then two seconds"


def test_batches_are_small_and_young(world: World) -> None:
    world.recorder.watch(ALL)
    for number in range(60):
        record = world.begin(head(f"/{number}"))
        assert record is not None
        record.end()
        assert len(world.sent) == 4 * (number >= 47), "enough of them go at once"
    world.wait(module.BATCH_SECONDS)
    assert [len(each.records) for each in world.sent] == [MAX_RECORDS] * 5
    assert [record.path for each in world.sent for record in each.records] == [f"/{number}" for number in range(60)]


def test_a_slow_agent_loses_records_and_learns_how_many(world: World) -> None:
    world.recorder.watch(ALL)
    world.slow = True
    for _ in range(MAX_WAITING + 50):
        record = world.begin()
        assert record is not None
        record.end()
    world.wait(1)
    assert len(world.recorder._waiting) + len(world.recorder._batch) == MAX_WAITING
    world.slow = False
    world.wait(0.2)
    assert sum(len(each.records) for each in world.sent) == MAX_WAITING
    assert [each.dropped for each in world.sent] == [50] + [0] * (MAX_WAITING // MAX_RECORDS - 1)
    world.sent.clear()
    world.wait(1)
    assert world.sent == [], "nothing is told twice"


def test_what_is_lost_is_told_without_records(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_OPEN", 2)
    world.recorder.watch(ALL)
    first, second, third = world.begin(), world.begin(), world.begin()
    assert third is None
    assert first is not None is not second
    world.wait(0.2)
    assert world.sent == [AccessRecords((), 1)]
    first.end()
    assert world.begin() is not None, "there is room again"


def test_a_slow_agent_of_a_watch_that_ended_is_not_waited_for(world: World) -> None:
    world.recorder.watch(ALL)
    world.slow = True
    record = world.begin()
    assert record is not None
    record.end()
    world.recorder.watch(Watch())
    world.slow = False
    world.wait(1)
    assert world.sent == []
    assert [timer for timer in world.loop._timers if not timer.cancelled] == []


def test_bytes(world: World) -> None:
    world.recorder.watch(ALL)
    world.connection.carried = (10, 20)
    world.port.unclaimed = True
    world.recorder.begin_bytes(world.connection)
    world.connection.carried = (110, 220)
    world.now += 2
    world.recorder.end_all(world.connection)
    record = world.one()
    assert (record.protocol, record.request_bytes, record.response_bytes) == ("tcp", 110, 220)
    assert (record.duration, record.reason, record.status) == (2_000_000, reasons.NOTHING_CLAIMED, 0)
    assert (record.method, record.path, record.authority) == ("", "", "")
    world.port.unclaimed = False
    world.recorder.begin_bytes(world.connection, new=False)
    world.recorder.begin_bytes(world.connection, new=False)
    world.connection.carried = (111, 222)
    world.recorder.end_all(world.connection)
    record = world.one()
    assert (record.request_bytes, record.response_bytes, record.reason) == (1, 2, EARLIER)


def test_the_rest_of_a_connection_belongs_to_its_oldest_request(world: World) -> None:
    world.recorder.watch(ALL)
    first, second = world.begin(head("/1")), world.begin(head("/2"))
    assert first is not None is not second
    first.status, first.response_bytes = 101, 5
    world.connection.carried = (10, 20)
    world.recorder.begin_rest(world.connection, "upgraded", new=False)
    [record] = world.records()
    assert (record.path, record.status) == ("/2", 0)
    world.connection.carried = (11, 22)
    world.recorder.end_all(world.connection)
    record = world.one()
    assert (record.path, record.status, record.request_bytes, record.response_bytes) == ("/1", 101, 1, 7)
    assert record.reason == "no header a; followed no further: upgraded"


def test_the_rest_without_a_request(world: World) -> None:
    world.recorder.watch(ALL)
    world.recorder.begin_rest(world.connection, None, new=False)
    world.recorder.end_all(world.connection)
    assert world.records() == []
    for new, size in ((True, 12), (False, 2)):
        world.connection.carried = (10, 10)
        world.recorder.begin_rest(world.connection, "chunk", new=new)
        world.connection.carried = (12, 12)
        world.recorder.end_all(world.connection)
        record = world.one()
        assert (record.protocol, record.reason) == ("tcp", "followed no further: chunk")
        assert record.request_bytes == record.response_bytes == size


def test_what_is_not_answered_is_recorded_when_its_connection_ends(world: World) -> None:
    world.recorder.watch(ALL)
    assert world.begin() is not None
    world.recorder.end_all(world.connection)
    world.recorder.end_all(world.connection)
    assert world.one().status == 0
