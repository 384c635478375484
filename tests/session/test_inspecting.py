"""The stream of ``inspect``: what is watched, what is sent, and when it ends."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from meshdev.errors import ForbiddenError, InterceptError
from meshdev.session import inspecting
from meshdev.session.inspecting import Inspectable, Inspector
from meshdev.session.records import RecordFeed
from meshdev.wire.access import AccessRecord, AccessRecords, Watch
from meshdev.wire.session_api import Event, Note
from meshdev.wire.session_inspect import InspectRequest, RequestFilter, Requests
from meshdev.wire.session_intercepts import Left
from meshdev.wire.watching import ClaimRecords
from tests.waiting import until

A, B = (Inspectable(letter * 32, "default", f"deployment/{letter}") for letter in "ab")
CLIENT = IPv4Address("10.244.1.1")
ONE = AccessRecord(1, CLIENT, 80, "HTTP/1.1", "original", 250, "GET", "b", "/a?token=x", 200)


class FakeExchange:
    """What a stream is sent."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.late = False
        self._closed = asyncio.Event()

    def send(self, event: Event) -> None:
        self.events.append(event)

    async def closed(self) -> None:
        await self._closed.wait()

    def close(self) -> None:
        self._closed.set()

    def requests(self) -> list[tuple[str, str | None, str]]:
        """Target, client and path of each."""
        found = [each for event in self.events if isinstance(event, Requests) for each in event.requests]
        return [(each.target, each.workload, each.record.path) for each in found]


class World:
    def __init__(self) -> None:
        self.asked: dict[str, Watch] = {}
        self.feed = RecordFeed(self.asked.__setitem__)
        self.there: tuple[Inspectable, ...] = (A,)
        self._before = 0

    def come(self, one: Inspectable, *, own: bool = False, count: int = 1, dropped: int = 0, lost: int = 0) -> None:
        some = tuple(
            replace(ONE, intercept=one.id if own else None, path=f"/{number}?token=x") for number in range(count)
        )
        for at in range(0, count, 12):
            records = AccessRecords(some[at : at + 12], dropped if not at else 0)
            self._before += lost
            self.feed.on_records(ClaimRecords(one.id, "b-1", records, self._before))
            self._before += len(records.records)

    @asynccontextmanager
    async def inspected(self, request: InspectRequest) -> AsyncIterator[FakeExchange]:
        """The stream while the block runs; it has to end with its client."""
        exchange = FakeExchange()
        inspector = Inspector(None, self.feed, lambda _: self.there)  # type: ignore[arg-type] # the API is not asked
        stream = asyncio.create_task(inspector.stream(request, exchange))  # type: ignore[arg-type] # it is like one
        try:
            if request.follow:
                await until(lambda: self.asked or stream.done())
            yield exchange
        finally:
            exchange.close()
            await asyncio.wait_for(stream, 5)


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> dict[IPv4Address, str]:
    """Whom the API server shows."""
    found: dict[IPv4Address, str] = {CLIENT: "deployment/client"}

    async def watch(*_: Any) -> AsyncGenerator[Mapping[IPv4Address, str]]:
        yield found
        await asyncio.Event().wait()

    monkeypatch.setattr(inspecting, "watch_clients", watch)
    return found


@pytest.fixture
def world(clients: dict[IPv4Address, str]) -> World:
    assert clients
    return World()


FOLLOW = InspectRequest(follow=True)
ALL = InspectRequest(follow=True, all=True)


async def test_what_comes_is_shown_with_its_client(world: World) -> None:
    async with world.inspected(ALL) as exchange:
        world.come(A)
        await until(exchange.requests)
        assert exchange.requests() == [("deployment/a", "deployment/client", "/0?token=***")]
        assert world.asked == {A.id: Watch(on=True, all=True)}
    assert world.asked == {A.id: Watch()}, "nobody looks any more"


async def test_only_what_the_filter_lets_through(world: World) -> None:
    wanted = RequestFilter(clients=("deployment/client",), paths=("/1", "/3"))
    async with world.inspected(replace(ALL, filter=wanted)) as exchange:
        world.come(A, count=5)
        await until(exchange.requests)
        assert [path for _, _, path in exchange.requests()] == ["/1?token=***", "/3?token=***"]


async def test_who_wants_the_last_ones_gets_no_more(world: World) -> None:
    """Whatever comes: a few, a few times a second."""
    async with world.inspected(replace(FOLLOW, last=3)) as exchange:
        for _ in range(5):
            world.come(A, own=True, count=100)
            await asyncio.sleep(0)
        await until(exchange.requests)
        assert [path for _, _, path in exchange.requests()] == [f"/{number}?token=***" for number in (97, 98, 99)]
        (event,) = exchange.events
        assert isinstance(event, Requests)
        assert event.dropped == 497
        world.come(A, own=True)
        await asyncio.sleep(0.05)
        assert len(exchange.events) == 1, "not at once"
        await until(lambda: len(exchange.events) == 2)


async def test_what_nobody_claimed_is_for_who_asks_for_all(world: World) -> None:
    async with world.inspected(FOLLOW) as exchange:
        world.come(A)
        world.come(A, own=True)
        await until(exchange.requests)
        assert len(exchange.requests()) == 1
        assert world.asked == {A.id: Watch(on=True)}


async def test_unknown_clients_are_addresses(world: World, clients: dict[IPv4Address, str]) -> None:
    clients.clear()
    async with world.inspected(ALL) as exchange:
        world.come(A)
        await until(exchange.requests)
        assert exchange.requests()[0][1] is None


async def test_who_may_not_list_pods_is_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def watch(*_: Any) -> AsyncGenerator[Mapping[IPv4Address, str]]:
        raise ForbiddenError("you may not list pods")
        yield {}

    monkeypatch.setattr(inspecting, "watch_clients", watch)
    async with world.inspected(ALL) as exchange:
        world.come(A)
        await until(exchange.requests)
        assert Note("clients are shown by their addresses: you may not list pods") in exchange.events


async def test_intercepts_that_come_later_are_watched_too(world: World) -> None:
    async with world.inspected(ALL) as exchange:
        world.there = (A, B)
        await until(lambda: world.asked.get(B.id) == Watch(on=True, all=True))
        world.come(B)
        world.come(A)
        await until(lambda: len(exchange.requests()) == 2)
        assert [target for target, _, _ in exchange.requests()] == ["deployment/b", "deployment/a"]


async def test_it_ends_with_the_last_intercept(world: World) -> None:
    async with world.inspected(ALL) as exchange:
        world.come(A)
        world.there = ()
        await until(lambda: Left() in exchange.events)
        assert len(exchange.requests()) == 1
    assert world.asked == {A.id: Watch()}


async def test_who_reads_slowly_loses_the_oldest_and_learns_how_many(world: World) -> None:
    async with world.inspected(ALL) as exchange:
        exchange.late = True
        world.come(A, count=5000)
        exchange.late = False
        await until(exchange.requests)
        assert len(exchange.requests()) == 4096
        dropped = [event.dropped for event in exchange.events if isinstance(event, Requests)]
        assert (sum(dropped), len(dropped)) == (904, 32)


async def test_what_got_lost_is_counted(world: World) -> None:
    async with world.inspected(ALL) as exchange:
        world.come(A)
        world.come(A, dropped=2, lost=3)
        await until(lambda: sum(event.dropped for event in exchange.events if isinstance(event, Requests)) == 5)


async def test_without_follow_it_is_what_others_saw(world: World) -> None:
    async with world.inspected(InspectRequest(all=True)) as exchange:
        await until(lambda: Left() in exchange.events)
        assert exchange.requests() == []
    async with world.inspected(ALL):
        world.come(A, count=300)
    for all_, count in ((True, 256), (False, 0)):
        async with world.inspected(InspectRequest(all=all_)) as exchange:
            await until(lambda: Left() in exchange.events)
            assert len(exchange.requests()) == count
    assert not world.asked[A.id].on


@pytest.mark.parametrize(
    ("target", "message"), [(None, "no intercepts"), ("deployment/b", "does not intercept deployment/b")]
)
async def test_where_nothing_is_intercepted(world: World, target: str | None, message: str) -> None:
    world.there = ()
    inspector = Inspector(None, world.feed, lambda _: world.there)  # type: ignore[arg-type] # the API is not asked
    with pytest.raises(InterceptError, match=message) as raised:
        await inspector.stream(InspectRequest(target=target), FakeExchange())  # type: ignore[arg-type] # it is like one
    assert "meshdev mesh" in str(raised.value.hint)
