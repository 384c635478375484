"""What pages get of a session, and that nothing is watched for nobody."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from meshdev.errors import InterceptError
from meshdev.intercept import lease
from meshdev.kube.client import KubeApi
from meshdev.session import dashboard_cluster, dashboard_feed
from meshdev.session.dashboard_feed import Observed, SessionFeed
from meshdev.session.inspecting import Inspectable
from meshdev.session.records import RecordFeed
from meshdev.session.state import SessionState
from meshdev.tunnel.traffic import TunnelTraffic
from meshdev.wire.access import AccessRecord, AccessRecords, Watch
from meshdev.wire.watching import ClaimRecords
from tests.intercept.values import B, mesh
from tests.kube.fake_api import FakeApi
from tests.kube.objects import pod, workload
from tests.session.test_dashboard_view import OWN
from tests.session.test_state import STANDING
from tests.waiting import until

ONE, TEAM = (
    Inspectable("1".rjust(32, "0"), "default", "deployment/b"),
    Inspectable("2".rjust(32, "0"), "team-1", "deployment/b"),
)
CLIENT = IPv4Address("10.244.0.7")
RECORD = AccessRecord(1_000_000, CLIENT, 80, "HTTP/1.1", "original", 2000, "GET", "b", "/a?token=x", 200)


class World:
    def __init__(self, fake: FakeApi, api: KubeApi) -> None:
        self.fake = fake
        self.asked: dict[str, Watch] = {}
        self.records = RecordFeed(self.asked.__setitem__)
        self.state: SessionState = replace(STANDING, intercepts=(OWN,))
        self.chosen: tuple[Inspectable, ...] = (ONE,)
        self.left: list[str] = []
        self.feed = SessionFeed(
            Observed(api, "ann@x", lambda: self.state, self.records, lambda: self.chosen, self._leave)
        )
        self._before = 0
        self.running: asyncio.Task[None] | None = None

    async def _leave(self, id_: str) -> None:
        await asyncio.sleep(0)
        if id_ != ONE.id:
            raise InterceptError("this session has no such intercept")
        self.left.append(id_)

    def put_pod(self, name: str, address: IPv4Address, namespace: str = "default", **more: Any) -> None:
        made = pod(name, workload(name="a"))
        made["status"] |= {"podIPs": [{"ip": str(address)}], **more}
        self.fake.put("pods", made, namespace)

    def come(self, record: AccessRecord, one: Inspectable = ONE, *, count: int = 1, lost: int = 0) -> None:
        for _ in range(count):
            self._before += lost
            self.records.on_records(ClaimRecords(one.id, "b-1", AccessRecords((record,), 0), self._before))
            self._before += 1


@pytest.fixture
async def world(fake: FakeApi, api: KubeApi, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(dashboard_feed, "REQUESTS_SECONDS", 0.01)
    monkeypatch.setattr(dashboard_feed, "STATE_SECONDS", 0.02)
    monkeypatch.setattr(dashboard_feed, "SAMPLE_SECONDS", 0.01)
    monkeypatch.setattr(dashboard_feed, "LINGER_SECONDS", 0.05)
    monkeypatch.setattr(dashboard_cluster, "LEASES_SECONDS", 0.02)
    made = World(fake, api)
    made.put_pod("a-1", CLIENT)
    made.running = asyncio.ensure_future(made.feed.run())
    yield made
    made.running.cancel()
    await asyncio.wait([made.running])
    assert made.running.cancelled(), made.running.exception()


class OpenPage:
    """What a client has got."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.newest: dict[str, Any] = {}
        self.requests: list[dict[str, Any]] = []
        self.skipped = 0

    async def read(self, feed: SessionFeed) -> None:
        async with aclosing(feed.events()) as events:
            async for event in events:
                self.names.append(event.name)
                self.newest[event.name] = event.data
                if event.name == "requests":
                    self.requests += self.newest["requests"]["requests"]
                    self.skipped += self.newest["requests"]["skipped"]

    def nodes(self) -> dict[str, Any]:
        return {each["id"]: each for each in self.newest["state"]["nodes"]} if "state" in self.newest else {}

    def edges(self) -> dict[tuple[str, str], Any]:
        return {(each["from"], each["to"]): each for each in self.newest["state"]["edges"]}


@asynccontextmanager
async def opened(world: World) -> AsyncIterator[OpenPage]:
    page = OpenPage()
    reading = asyncio.ensure_future(page.read(world.feed))
    try:
        await until(lambda: "deployment/a" in page.nodes() or world.running is None or world.running.done())
        yield page
    finally:
        reading.cancel()
        await asyncio.wait([reading])
        assert reading.cancelled(), reading.exception()


async def test_history_comes_first_and_the_state_at_once(world: World) -> None:
    world.state = replace(world.state, traffic=TunnelTraffic(bytes_to_cluster=1000))
    async with opened(world) as page:
        assert page.names[:2] == ["history", "state"]
        state = page.newest["state"]
        assert state.keys() == {"time", "session", "nodes", "edges", "intercepts", "tunnel", "health"}
        assert page.nodes()["deployment/a"]["total"] == 1
        assert state["intercepts"][0]["id"] == ONE.id
        assert {each["check"] for each in state["health"]} >= {"tunnel", "manager", "names"}


async def test_requests_come_with_their_clients_and_make_edges(world: World) -> None:
    async with opened(world) as page:
        assert world.asked == {ONE.id: Watch(on=True, all=True)}
        world.come(RECORD)
        world.come(replace(RECORD, source=IPv4Address("1.2.3.4"), served_by="laptop", holder="ann@x", status=500))
        await until(lambda: len(page.requests) == 2 and len(page.edges()) == 3)
        first, second = page.requests
        assert (first["number"], first["source"]["workload"], first["path"]) == (1, "deployment/a", "/a?token=***")
        assert (second["number"], second["source"]) == (2, {"address": "1.2.3.4", "workload": None})
        edges = page.edges()
        assert edges.keys() == {
            ("deployment/a", "deployment/b"),
            ("address/1.2.3.4", "deployment/b"),
            ("deployment/b", "laptop/ann@x"),
        }
        assert edges["deployment/a", "deployment/b"]["errors"] == 0
        assert edges["deployment/b", "laptop/ann@x"]["errors"] == 1
        assert edges["deployment/a", "deployment/b"]["p50_ms"] == pytest.approx(2, rel=0.11)
        assert {node for ends in edges for node in ends} <= page.nodes().keys()


async def test_requests_of_another_namespace(world: World) -> None:
    world.chosen = (ONE, TEAM)
    world.fake.namespaces.add("team-1")
    world.put_pod("a-1", IPv4Address("10.244.0.8"), "team-1")
    async with opened(world) as page:
        await until(lambda: "deployment/a@team-1" in page.nodes())
        world.come(replace(RECORD, source=IPv4Address("10.244.0.8")), TEAM)
        await until(page.edges)
        assert [*page.edges()] == [("deployment/a@team-1", "deployment/b@team-1")]
        world.chosen = (ONE,)
        await until(lambda: world.asked[TEAM.id] == Watch())


async def test_more_requests_than_are_shown_are_counted(world: World) -> None:
    async with opened(world) as page:
        world.come(RECORD, count=300)
        world.come(RECORD, lost=7)
        await until(lambda: len(page.requests) + page.skipped == 308)
        assert page.skipped >= 7
        assert page.requests[-1]["number"] == 308
        assert len(page.newest["requests"]["requests"]) <= 50
        await until(lambda: page.edges() and page.edges()["deployment/a", "deployment/b"]["rate"] >= 4)


async def test_an_intercept_that_ends_is_watched_no_more(world: World) -> None:
    async with opened(world) as page:
        world.state, world.chosen = STANDING, ()
        await until(lambda: page.newest["state"]["intercepts"] == [])
        assert world.asked == {ONE.id: Watch()}


async def test_intercepts_of_others_come_and_go(world: World) -> None:
    other = lease.lease(mesh(number=9, workload=replace(B, name="a")), "jane@there", "default", 1.0)
    async with opened(world) as page:
        world.fake.put("leases", other, group="coordination.k8s.io")
        await until(lambda: len(page.newest["state"]["intercepts"]) == 2)
        found = page.newest["state"]["intercepts"][1]
        assert (found["holder"], found["mine"], found["target"]) == ("jane@there", False, "deployment/a")
        assert page.nodes()["deployment/a"]["intercepts"] == [found["id"]]
        world.fake.remove("leases", other["metadata"]["name"], group="coordination.k8s.io")
        await until(lambda: len(page.newest["state"]["intercepts"]) == 1)


async def test_who_may_list_nothing_sees_the_rest_and_why(world: World) -> None:
    world.fake.allow = lambda asked: asked.resource not in {"pods", "leases"}
    page = OpenPage()
    reading = asyncio.ensure_future(page.read(world.feed))
    await until(lambda: "state" in page.newest and any("pods" in each["detail"] for each in api_server(page)))
    (check,) = api_server(page)
    assert check["state"] == "warning"
    assert "leases" in check["detail"]
    assert page.nodes().keys() == {"deployment/b", "laptop/ann@x"}
    reading.cancel()
    await asyncio.wait([reading])


def api_server(page: OpenPage) -> list[dict[str, str]]:
    return [each for each in page.newest["state"]["health"] if each["check"] == "API server"]


async def test_a_watch_that_ends_is_taken_up_again(world: World) -> None:
    async with opened(world) as page:
        world.fake.end_watches()
        world.put_pod("a-2", IPv4Address("10.244.0.17"))
        await until(lambda: page.nodes()["deployment/a"]["total"] == 2)


async def test_nobody_looking_costs_nothing(world: World) -> None:
    """Neither before, nor afterwards."""
    await asyncio.sleep(0.05)
    assert (world.asked, world.fake.asked) == ({}, [])
    async with opened(world), opened(world):
        assert world.asked == {ONE.id: Watch(on=True, all=True)}
    await until(lambda: world.asked == {ONE.id: Watch()})
    await asyncio.sleep(0.05)  # what was on its way has come
    world.fake.asked.clear()
    world.put_pod("a-3", IPv4Address("10.244.0.18"))
    await asyncio.sleep(0.05)
    assert world.fake.asked == []


async def test_a_page_that_is_loaded_again_finds_what_it_had(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard_feed, "LINGER_SECONDS", 10)
    async with opened(world) as page:
        world.come(RECORD)
        await until(page.edges)
    async with opened(world) as page:
        assert page.edges()
        assert len(page.newest["history"]["points"]) > 0


async def test_the_tunnels_history_goes_on_without_pages(world: World) -> None:
    for number in range(5):
        world.state = replace(world.state, traffic=TunnelTraffic(bytes_to_laptop=1000 * number))
        await asyncio.sleep(0.02)
    async with opened(world) as page:
        points = page.newest["history"]["points"]
        assert len(points) >= 5
        assert points[0].keys() == {"time", "to_cluster", "to_laptop", "rtt_ms"}
        assert max(each["to_laptop"] for each in points) > 0
        assert {each["rtt_ms"] for each in points} == {1.5}


def test_the_history_is_bounded() -> None:
    history = dashboard_feed._TunnelHistory()
    for number in range(1000):
        history.note(replace(STANDING, traffic=TunnelTraffic(bytes_to_cluster=100 * number)), float(number), 0.0)
    assert len(history.points) == dashboard_feed.MAX_POINTS
    assert history.rates == (100.0, 0.0)


async def test_leave(world: World) -> None:
    await world.feed.leave(ONE.id)
    assert world.left == [ONE.id]
    with pytest.raises(InterceptError):
        await world.feed.leave(TEAM.id)
