"""SessionIntercepts of a session against an API server that keeps state, and a manager and pods that answer at once."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from meshdev.errors import Cancelled, ClusterError, InterceptError, MeshdevError, PortForwardError, VersionError
from meshdev.intercept import spec as specs
from meshdev.intercept.lease import name_of
from meshdev.intercept.spec import Spec
from meshdev.kube import leases
from meshdev.kube.client import KubeApi
from meshdev.kube.leases import Held
from meshdev.kube.manager import SidecarTerms
from meshdev.kube.portforward import PortForward
from meshdev.session import intercepts as module
from meshdev.session.api import Exchange
from meshdev.session.cluster import Cluster
from meshdev.session.exports import Exports
from meshdev.session.intercepts import NotConnected, SessionIntercepts, intercepting
from meshdev.session.local import LocalPorts
from meshdev.session.state import SessionState
from meshdev.tunnel.claims import ClaimMessage
from meshdev.wire.counts import InterceptCounts
from meshdev.wire.intercepts import ClaimRefusal, Intercept, Relay, Relays, Report, Withdraw
from meshdev.wire.modes import MESH
from meshdev.wire.ports import Transport
from meshdev.wire.session_api import Event
from meshdev.wire.session_intercepts import InterceptRequest, InterceptStatus, LeaveRequest, Left, Live, Up
from tests.kube.fake_api import FakeApi
from tests.kube.objects import put_workload, service, workload
from tests.session.standin import StandIn
from tests.session.test_exports import FakeExports
from tests.waiting import until

LEASES = ("leases", "coordination.k8s.io")
B = "deployment/b in namespace default"


class Client:
    """A command, seen from its stream."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.gone = asyncio.Event()

    def send(self, event: Event) -> None:
        self.events.append(event)

    async def closed(self) -> None:
        await self.gone.wait()

    def told(self, kind: type[Event]) -> bool:
        return any(isinstance(each, kind) for each in self.events)


async def no_forward(_namespace: str, _pod: str, _port: int) -> PortForward:
    raise PortForwardError("no kubelet here")


class World:
    """A session that is connected, a Deployment with a pod, and the Service that leads to it."""

    def __init__(self, here: StandIn, fake: FakeApi, api: KubeApi) -> None:
        put_workload(fake, workload(), "b-1")
        fake.put("services", service("b"))
        self.here, self.fake = here, fake
        self.cluster = cast("Cluster", SimpleNamespace(api=api, forward=no_forward, manager_namespace="default"))
        self.intercepts: NotConnected | SessionIntercepts = NotConnected()
        self.refusal: ClaimRefusal | None = None
        self.specs: list[Spec] = []
        self.streams: list[asyncio.Task[None]] = []
        here.claims.use(self._asked)

    def _asked(self, message: ClaimMessage) -> None:
        self.here.said(message)
        answers: list[Relays | Report] = []
        match message:
            case Intercept() if self.refusal is not None:
                answers = [Relays(message.id, (), self.refusal)]
            case Intercept():
                spec = specs.decode(message.spec)
                self.specs.append(spec)
                relays = (Relay(port.remote, port.transport, 20000 + len(self.specs)) for port in spec.ports)
                answers = [Relays(message.id, tuple(relays)), Report(message.id, "b-1", "acked", return_path="open")]
            case Withdraw():
                answers = [Report(message.id, "b-1", "gone")]
        for answer in answers:
            asyncio.get_running_loop().call_soon(self.here.claims.on_message, answer)

    @asynccontextmanager
    async def connected(self, exports: Exports | None = None) -> AsyncIterator[None]:
        here = cast("Any", self.here)
        async with intercepting(self.cluster, here, here, "jane@laptop", exports) as self.intercepts:
            yield
        assert self.fake.names(*LEASES) == []
        assert self.here.led == {}
        assert self.status() == ()
        for stream in self.streams:
            await asyncio.wait([stream])

    def shown(self) -> SessionState:
        assert isinstance(self.intercepts, SessionIntercepts)
        return self.intercepts.show(SessionState())

    def status(self) -> tuple[InterceptStatus, ...]:
        return self.shown().status(time.monotonic()).intercepts

    def open(self, client: Client, **asked: Any) -> asyncio.Task[None]:
        request = InterceptRequest(**{"target": "deployment/b", "mode": MESH, "headers": ("a=1",), **asked})
        stream = asyncio.ensure_future(self.intercepts.stream(request, cast("Exchange", client)))
        self.streams.append(stream)
        return stream

    async def up(self, **asked: Any) -> tuple[Client, asyncio.Task[None]]:
        client = Client()
        stream = self.open(client, **asked)
        await until(lambda: stream.done() or client.told(Up))
        assert client.told(Up)
        return client, stream


def nobody(_port: int, _transport: Transport) -> None:
    """No program listens."""


@pytest.fixture
def world(here: StandIn, fake: FakeApi, api: KubeApi, monkeypatch: pytest.MonkeyPatch) -> World:
    async def terms(_api: KubeApi, _namespace: str) -> SidecarTerms:
        return SidecarTerms("10.96.0.5:15010", "sidecar:1")

    monkeypatch.setattr(module, "sidecar_terms", terms)
    monkeypatch.setattr(module, "LocalPorts", lambda *_: LocalPorts(look=lambda: nullcontext(nobody)))
    return World(here, fake, api)


async def test_it_lives_as_long_as_its_client(world: World) -> None:
    async with world.connected():
        client, stream = await world.up()
        (status,) = world.status()
        assert (status.target, status.state, status.acked, status.total) == ("deployment/b", "active", 1, 1)
        await until(lambda: client.told(Live))
        client.gone.set()
        await stream
        assert isinstance(client.events[-1], Left)
        assert (world.status(), world.fake.names(*LEASES)) == ((), [])


async def test_what_pods_report_is_told_live(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIVE_SECONDS", 0.01)
    async with world.connected():
        client, _ = await world.up()
        (spec,) = world.specs
        world.here.claims.on_message(Report(spec.id, "b-1", "acked", counts=InterceptCounts(7), return_path="open"))
        await until(
            lambda: any(isinstance(each, Live) and each.intercept.counts.matched == 7 for each in client.events)
        )


async def test_requests_are_traced_where_they_are_exported(world: World) -> None:
    async with world.connected():
        await world.up(detach=True)
    async with world.connected(FakeExports()):
        await world.up(detach=True)
    assert [each.trace for each in world.specs] == [False, True]


@pytest.mark.parametrize("typed", ["deployment/b", "service/b", None])
async def test_a_detached_one_stays_until_somebody_leaves_it(world: World, typed: str | None) -> None:
    async with world.connected():
        client, stream = await world.up(detach=True)
        await stream
        client.gone.set()
        assert [status.detached for status in world.status()] == [True]
        assert await world.intercepts.leave(LeaveRequest(typed, None)) == (B,)
        assert (world.status(), world.fake.names(*LEASES)) == ((), [])
        assert await world.intercepts.leave(LeaveRequest(typed, None)) == ()


async def test_what_a_service_led_to_is_left_by_its_name_whatever_it_selects_now(world: World) -> None:
    """Its pods may have been scaled away, or it may be gone; others on the same workload end with it."""
    async with world.connected():
        await world.up(target="svc/b", detach=True)
        await world.up(target="deploy/b", headers=("a=2",), detach=True)
        world.fake.remove("pods", "b-1")
        world.fake.remove("services", "b")
        assert await world.intercepts.leave(LeaveRequest("svc/b", None)) == (B,)
        assert world.status() == ()


async def test_all_on_a_workload_are_left_and_their_commands_hear_it(world: World) -> None:
    async with world.connected():
        one, first = await world.up()
        two, second = await world.up(headers=("a=2",), target="service/b")
        assert await world.intercepts.leave(LeaveRequest("deployment/b", "default")) == (B,)
        await asyncio.wait([first, second])
        assert isinstance(one.events[-1], Left)
        assert isinstance(two.events[-1], Left)


async def test_leaving_needs_no_answer_of_the_api_server_to_find_it(world: World) -> None:
    async with world.connected():
        await world.up()
        world.fake.refuse = {"get": (500, "away"), "list": (500, "away")}
        assert await world.intercepts.leave(LeaveRequest("deployment/b", None)) == (B,)
        with pytest.raises(ClusterError, match="away"):
            await world.intercepts.leave(LeaveRequest("deployment/b", None))
        world.fake.refuse = {}


async def test_one_that_still_looks_is_left_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    looking = asyncio.Event()

    async def terms(_api: KubeApi, _namespace: str) -> SidecarTerms:
        looking.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(module, "sidecar_terms", terms)
    async with world.connected():
        stream = world.open(Client())
        await looking.wait()
        await world.intercepts.leave(LeaveRequest("deployment/b", None))
        with pytest.raises(Cancelled, match="the intercept is undone"):
            await stream


async def test_a_client_that_is_gone_before_it_is_up(world: World) -> None:
    async with world.connected():
        client = Client()
        client.gone.set()
        with pytest.raises(Cancelled, match="the intercept is undone"):
            await world.open(client)
        assert world.fake.names(*LEASES) == []


async def test_leave_and_the_end_of_the_command_at_once(world: World) -> None:
    async with world.connected():
        client, stream = await world.up()
        leaving = asyncio.ensure_future(world.intercepts.leave(LeaveRequest("deployment/b", None)))
        client.gone.set()
        assert await leaving == (B,)
        await stream
        assert isinstance(client.events[-1], Left)
        assert world.fake.names(*LEASES) == []


async def test_what_keeps_it_from_coming_up_is_raised_and_undone(world: World) -> None:
    world.refusal = ClaimRefusal("limit", "full")
    async with world.connected():
        with pytest.raises(InterceptError, match="refuses the intercept: full"):
            await world.open(Client())
        assert world.fake.names(*LEASES) == []
        world.refusal = None
        await world.up()  # the session goes on


async def test_what_nobody_foresaw_ends_the_intercept_and_not_the_session(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def terms(_api: KubeApi, _namespace: str) -> SidecarTerms:
        raise KeyError("surprise")

    async with world.connected():
        await world.up()
        with monkeypatch.context() as patched:
            patched.setattr(module, "sidecar_terms", terms)
            with pytest.raises(MeshdevError, match=r"internal error: KeyError\('surprise'\)"):
                await world.open(Client(), headers=("a=2",))
        assert len(world.status()) == 1


@pytest.mark.parametrize("detach", [True, False])
async def test_one_that_is_lost_is_told(world: World, detach: bool) -> None:
    async with world.connected():
        _, stream = await world.up(detach=detach)
        (spec,) = world.specs
        world.fake.remove("leases", name_of(spec), group="coordination.k8s.io")
        await until(lambda: world.shown().notes)
        assert world.shown().notes == (
            f"the intercept of {spec.workload} is not yours any more: its Lease was deleted",
        )
        await asyncio.wait([stream])
        assert (stream.exception() is None) is detach


async def test_a_manager_that_is_too_old(world: World) -> None:
    assert world.here.welcome is not None
    world.here.welcome = replace(world.here.welcome, version=1)
    async with world.connected():
        with pytest.raises(VersionError, match="takes no intercepts"):
            await world.open(Client())


async def test_none_is_taken_before_and_after_the_connection(world: World) -> None:
    with pytest.raises(InterceptError, match="not up yet"):
        await world.open(Client())
    async with world.connected():
        pass
    with pytest.raises(InterceptError, match="about to end"):
        await world.open(Client())


async def test_the_end_of_the_connection_leaves_all(world: World) -> None:
    async with world.connected():
        client, stream = await world.up()
        await world.up(headers=("a=2",), detach=True)
    await stream
    assert isinstance(client.events[-1], Left)


async def test_a_second_end_does_not_cut_the_undo_short(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    connected, releasing, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
    release = leases.release

    async def slowly(api: KubeApi, held: Held) -> None:
        releasing.set()
        await go_on.wait()
        await release(api, held)

    monkeypatch.setattr(leases, "release", slowly)

    async def session() -> None:
        async with world.connected():
            await world.up()
            connected.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(session())
    await connected.wait()
    task.cancel()
    await releasing.wait()
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.wait([task])
    assert task.cancelled()
    assert world.fake.names(*LEASES) == []


async def test_looking_at_ports_that_breaks_ends_the_connection_and_undoes_all(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaks = asyncio.Event()

    async def run(ports: LocalPorts) -> None:
        looking = asyncio.ensure_future(looks(ports))
        await breaks.wait()
        looking.cancel()
        raise KeyError("surprise")

    looks = LocalPorts.run
    monkeypatch.setattr(LocalPorts, "run", run)

    async def session() -> None:
        async with world.connected():
            await world.up()
            breaks.set()
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as raised:
        await session()
    assert raised.value.subgroup(KeyError) is not None
    assert (world.fake.names(*LEASES), world.here.led) == ([], {})
