"""A claim between a manager and this machine, without either: relays, local programs, reports."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import Any, cast

import pytest

from meshdev.errors import FirewallError, InterceptError, MeshdevError, TunnelError
from meshdev.intercept.spec import Port, Spec
from meshdev.session import claim as module
from meshdev.session.claim import Leading, SessionClaim, claimed
from meshdev.session.laptop import Laptop
from meshdev.session.local import Changed, LocalPorts, Target
from meshdev.session.way import Acceptor
from meshdev.tunnel.claims import Claims
from meshdev.tunnel.pool import Pool
from meshdev.wire.control import Welcome
from meshdev.wire.helper.requests import RelayTarget
from meshdev.wire.intercepts import Intercept, Local, Refusal, Relay, Relays, Report, Transport, Withdraw
from tests.intercept.values import HTTP, mesh, proxy
from tests.waiting import until

LOCALHOST = IPv4Address("127.0.0.1")
HERE = Target(LOCALHOST, 8080)
RELAY = Relay(8080, "tcp", 20001)


class StandIn:
    """What the session has: a pool, a laptop, the looks at local ports. The order of everything is written down."""

    def __init__(self) -> None:
        self.story: list[str] = []
        self.led: dict[int, int] = {}
        self.refuse: MeshdevError | None = None
        self.filtered = False
        self.tunnel = True
        self.claims = Claims()
        self.claims.speak(self.said)
        self.welcome: Welcome | None = Welcome(
            2, IPv4Address("198.18.0.2"), 1500, 0, (), (), "manager-1", "default", IPv4Address("10.244.0.2")
        )
        self.watched: dict[tuple[int, Transport], Changed] = {}
        self.ears: dict[str, Callable[[Relays | Report], None]] = {}
        self.reports: list[Report] = []
        self.device = SimpleNamespace(queues=[None], name="tun0")
        self.routing = SimpleNamespace(relayed=self._nothing)
        self.helper = SimpleNamespace(set_relays=self._set_relays)
        self.leading = Leading(cast("Laptop", self))

    def connected(self) -> bool:
        return self.tunnel

    async def _nothing(self) -> None:
        await asyncio.sleep(0)

    async def _set_relays(self, relays: Any) -> None:
        wanted: list[RelayTarget] = list(relays)
        await asyncio.sleep(0)
        if self.refuse is not None:
            raise self.refuse
        self.led = {each.relay: each.port for each in wanted}
        self.story.append(" ".join(f"{each.relay}→{each.port}" for each in wanted) or "nothing is led")

    def said(self, wish: Intercept | Withdraw | Local) -> None:
        match wish:
            case Intercept():
                self.story.append("declared")
            case Withdraw():
                self.story.append("withdrawn")
            case Local(remote=remote, up=up):
                self.story.append(f"{remote} is {'up' if up else 'down'}")

    def watch(self, port: int, transport: Transport, changed: Changed) -> Callable[[], None]:
        self.watched[port, transport] = changed
        return lambda: cast("None", self.watched.pop((port, transport), None))

    def subscribe(self, id_: str, ear: Callable[[Relays | Report], None] | None) -> None:
        if ear is None:
            self.ears.pop(id_)
        else:
            self.ears[id_] = ear

    def tell(self, message: Relays | Report) -> None:
        self.ears[message.id](message)

    def looked(self, target: Target | None, port: int = 8080, transport: Transport = "tcp") -> None:
        self.watched[port, transport](target)

    @asynccontextmanager
    async def claim(self, spec: Spec | None = None) -> AsyncIterator[SessionClaim]:
        async with claimed(
            spec or mesh(),
            "key",
            reset_older=False,
            pool=cast("Pool", self),
            laptop=cast("Laptop", self),
            leading=self.leading,
            ports=cast("LocalPorts", self),
            subscribe=self.subscribe,
            heard=self.reports.append,
        ) as made:
            yield made

    async def hold(self, work: Callable[[SessionClaim], Awaitable[None]]) -> None:
        """Errors as an intercept raises them (modes/holding.py)."""
        try:
            async with self.claim() as claim:
                await work(claim)
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def comes_up(self, claim: SessionClaim, target: Target | None = HERE, *relays: Relay) -> None:
        ready = asyncio.ensure_future(claim.ready())
        self.tell(Relays(mesh().id, relays or (RELAY,)))
        self.looked(target)
        await ready
        self.story.clear()


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn()

    async def lets_in(acceptor: Acceptor, _queue: object, _gateway: object, _address: object, relay: int) -> bool:
        await asyncio.sleep(0)
        assert made.led == {relay: acceptor.target.port}
        await asyncio.sleep(0.01)
        assert made.led == {relay: acceptor.target.port}, "it is led elsewhere while the way is tried"
        return not made.filtered

    monkeypatch.setattr(Acceptor, "lets_in", lets_in)
    return made


def report(pod: str = "b-1", state: Any = "acked", **more: Any) -> Report:
    return Report(mesh().id, pod, state, **more)


async def test_relays_lead_to_the_program_and_all_of_it_goes_again(here: StandIn) -> None:
    async with here.claim() as claim:
        ready = asyncio.ensure_future(claim.ready())
        await asyncio.sleep(0)
        here.looked(HERE)
        here.tell(Relays(mesh().id, (RELAY,)))
        await ready
        assert (here.led, claim.up, claim.local[0].up) == ({20001: 8080}, 1, True)
        assert here.story[-2:] == ["20001→8080", "8080 is up"]
        here.tell(report())
        leaving = len(here.story)
        asyncio.get_running_loop().call_later(0.02, here.tell, report(state="gone"))
    assert here.story[leaving:] == ["withdrawn", "nothing is led"]
    assert [each.state for each in here.reports] == ["acked", "gone"]
    assert (here.ears, here.watched) == ({}, {})


async def test_the_order_of_a_program_that_stops_and_starts(here: StandIn) -> None:
    async with here.claim() as claim:
        await here.comes_up(claim)
        here.looked(None)
        assert here.story == ["8080 is down"]
        await until(lambda: len(here.story) == 2)  # somebody answers at the relay until the way is proven
        assert here.led[20001] not in {8080, 0}
        await claim.proven()
        assert here.led == {20001: 8080}
        here.story.clear()
        here.looked(replace(HERE, port=4711))  # a copier in front of ::1
        await until(lambda: len(here.story) == 2)
        assert here.story == ["20001→4711", "8080 is up"]


async def test_a_port_that_opens_while_another_closes_is_not_told_before_it_is_led_to(here: StandIn) -> None:
    udp = Port(9090, "udp", 9090)
    async with here.claim(proxy(ports=(HTTP, udp))) as claim:
        ready = asyncio.ensure_future(claim.ready())
        here.tell(Relays(mesh().id, (RELAY, Relay(9090, "udp", 20002))))
        here.looked(HERE)
        here.looked(None, 9090, "udp")
        await ready
        here.story.clear()
        here.looked(Target(LOCALHOST, 4711), 9090, "udp")
        here.looked(None)
        assert here.story == ["8080 is down"]
        await until(lambda: "9090 is up" in here.story)
        assert here.story[1].endswith("20002→4711")


async def test_a_helper_that_cannot_is_asked_again_and_nothing_told_before(
    here: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEAD_AGAIN_SECONDS", 0.02)
    async with here.claim() as claim:
        await here.comes_up(claim, None)
        here.refuse = FirewallError("no nftables")
        here.looked(HERE)
        await asyncio.sleep(0.05)
        assert here.story == []
        here.refuse = None
        await until(lambda: here.story == ["20001→8080", "8080 is up"])


async def test_a_refusal_is_the_error(here: StandIn) -> None:
    async def refused(claim: SessionClaim) -> None:
        here.looked(HERE)
        here.tell(Relays(mesh().id, (), Refusal("limit", "full")))
        await claim.ready()

    with pytest.raises(InterceptError, match="the manager refuses the intercept: full"):
        await here.hold(refused)
    assert "withdrawn" in here.story


async def test_a_manager_that_says_nothing(here: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RELAYS_SECONDS", 0.02)
    with pytest.raises(TunnelError, match="did not answer within"):
        await here.hold(SessionClaim.ready)


async def test_a_packet_filter_is_named_by_its_device(here: StandIn) -> None:
    here.filtered = True
    with pytest.raises(FirewallError, match="drops what comes in from tun0"):
        await here.hold(here.comes_up)
    assert here.led == {}


async def test_another_manager_leads_by_other_relays_and_knows_only_what_it_reports(here: StandIn) -> None:
    async with here.claim() as claim:
        await here.comes_up(claim)
        here.tell(report("b-1", matched=3))
        here.tell(report("b-2"))
        here.tell(Relays(mesh().id, (RELAY,)))  # the same one, after a lost carrier
        assert len(here.reports) == 2
        assert here.welcome is not None
        here.welcome = replace(here.welcome, pod="manager-2")
        here.tell(Relays(mesh().id, (replace(RELAY, relay=20007),)))
        assert [(each.pod, each.state, each.matched) for each in here.reports[2:]] == [
            ("b-1", "joined", 3),
            ("b-2", "joined", 0),
        ]
        await until(lambda: here.led == {20007: 8080})
        started = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - started < 1  # nobody is waited for whom that manager never met


async def test_another_manager_that_refuses_ends_it(here: StandIn) -> None:
    async def refused(claim: SessionClaim) -> None:
        await here.comes_up(claim)
        here.tell(Relays(mesh().id, (), Refusal("limit", "every relay port of the manager is taken")))
        await asyncio.Event().wait()

    with pytest.raises(InterceptError, match="refuses the intercept: every relay port"):
        await here.hold(refused)


async def test_pods_that_do_not_answer_are_not_waited_for_longer(
    here: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GONE_SECONDS", 0.05)

    async def held(claim: SessionClaim) -> None:
        await here.comes_up(claim)
        here.tell(report())
        await asyncio.Event().wait()

    task = asyncio.ensure_future(here.hold(held))
    await until(lambda: here.reports)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert here.story == ["withdrawn", "nothing is led"]


async def test_without_a_tunnel_nobody_is_waited_for_and_the_next_carrier_tells_it(here: StandIn) -> None:
    async with here.claim() as claim:
        await here.comes_up(claim)
        here.tell(report())
        here.tunnel = False
        here.claims.speak(None)
    assert here.story == ["nothing is led"]
    here.claims.speak(here.said)
    assert here.story == ["nothing is led", "withdrawn"]


async def test_datagrams_alone_have_no_way_to_try(here: StandIn) -> None:
    here.filtered = True
    async with here.claim(proxy(ports=(Port(9090, "udp", 9090),))) as claim:
        ready = asyncio.ensure_future(claim.ready())
        here.tell(Relays(mesh().id, (Relay(9090, "udp", 20002),)))
        here.looked(None, 9090, "udp")
        await ready
        assert (here.led, claim.up) == ({20002: 9090}, 0)


async def test_what_the_helper_was_told_half_is_told_again(here: StandIn) -> None:
    target = RelayTarget(20001, "tcp", LOCALHOST, 8080)
    here.refuse = FirewallError("busy")
    with pytest.raises(FirewallError):
        await here.leading.set("1", (target,))
    here.refuse = None
    await here.leading.set("1", (target,))
    assert here.led == {20001: 8080}
    here.story.clear()
    await here.leading.set("1", (target,))
    assert here.story == []
    setting = asyncio.ensure_future(here.leading.set("1", ()))
    await asyncio.sleep(0)
    setting.cancel()
    await asyncio.wait([setting])
    await here.leading.set("1", ())
    assert here.led == {}
