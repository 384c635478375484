"""A claim between a manager and this machine, without either: relays, local programs, reports."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from meshdev.errors import FirewallError, InterceptError, TunnelError
from meshdev.intercept.spec import Port
from meshdev.session import claim as module
from meshdev.session.claim import SessionClaim
from meshdev.session.local import LocalTarget
from meshdev.wire.counts import InterceptCounts
from meshdev.wire.helper.requests import RelayTarget
from meshdev.wire.intercepts import ClaimRefusal, Relay, Relays, Report
from tests.intercept.values import HTTP, mesh, proxy
from tests.session.standin import HERE, LOCALHOST, RELAY, StandIn
from tests.waiting import until


def report(pod: str = "b-1", state: Any = "acked", **more: Any) -> Report:
    return Report(mesh().id, pod, state, **more)


async def test_relays_lead_to_the_program_and_all_of_it_goes_again(here: StandIn) -> None:
    async with here.claim() as claim:
        ready = asyncio.ensure_future(claim.ready())
        await asyncio.sleep(0)
        here.looked(HERE)
        here.tell(Relays(mesh().id, (RELAY,)))
        await ready
        assert (here.led, [each.up for each in here.local]) == ({20001: 8080}, [True])
        assert here.story[-2:] == ["20001→8080", "8080 is up"]
        here.tell(report())
        leaving = len(here.story)
        asyncio.get_running_loop().call_later(0.02, here.tell, report(state="gone"))
    assert here.story[leaving:] == ["withdrawn", "nothing is led"]
    assert [each.state for each in here.reports] == ["acked", "gone"]
    assert (here.claims._listeners, here.watched) == ({}, {})


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
        here.looked(LocalTarget(LOCALHOST, 4711), 9090, "udp")
        here.looked(None)
        assert here.story == ["8080 is down"]
        await until(lambda: "9090 is up" in here.story)
        assert here.story[1].endswith("20002→4711")


async def test_a_helper_that_cannot_is_asked_again_and_nothing_told_before(
    here: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FORWARD_RETRY_SECONDS", 0.02)
    async with here.claim() as claim:
        await here.comes_up(claim, None)
        here.refuse = FirewallError("no nftables")
        here.looked(HERE)
        await asyncio.sleep(0.05)
        assert here.story == []
        here.refuse = None
        await until(lambda: here.story == ["20001→8080", "8080 is up"])


@pytest.mark.parametrize(("code", "upgrade"), [("limit", False), ("protocol", True)])
async def test_a_refusal_is_the_error(here: StandIn, code: str, upgrade: bool) -> None:
    """A manager that cannot read a claim is older than this meshdev."""

    async def refused(claim: SessionClaim) -> None:
        here.looked(HERE)
        here.tell(Relays(mesh().id, (), ClaimRefusal(code, "full")))
        await claim.ready()

    with pytest.raises(InterceptError, match="the manager refuses the intercept: full") as caught:
        await here.hold(refused)
    assert ("--upgrade" in (caught.value.hint or "")) == upgrade
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
        here.tell(report("b-1", counts=InterceptCounts(3)))
        here.tell(report("b-2"))
        here.tell(Relays(mesh().id, (RELAY,)))  # the same one, after a lost carrier
        assert len(here.reports) == 2
        assert here.welcome is not None
        here.welcome = replace(here.welcome, pod="manager-2")
        here.tell(Relays(mesh().id, (replace(RELAY, relay=20007),)))
        assert [(each.pod, each.state, each.counts.matched) for each in here.reports[2:]] == [
            ("b-1", "joined", 3),
            ("b-2", "joined", 0),
        ]
        await until(lambda: here.led == {20007: 8080})
        started = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - started < 1  # nobody is waited for whom that manager never met


async def test_another_manager_that_refuses_ends_it(here: StandIn) -> None:
    async def refused(claim: SessionClaim) -> None:
        await here.comes_up(claim)
        here.tell(Relays(mesh().id, (), ClaimRefusal("limit", "every relay port of the manager is taken")))
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
        here.claims.use(None)
    assert here.story == ["nothing is led"]
    here.claims.use(here.said)
    assert here.story == ["nothing is led", "withdrawn"]


async def test_datagrams_alone_have_no_way_to_try(here: StandIn) -> None:
    here.filtered = True
    async with here.claim(proxy(ports=(Port(9090, "udp", 9090),))) as claim:
        ready = asyncio.ensure_future(claim.ready())
        here.tell(Relays(mesh().id, (Relay(9090, "udp", 20002),)))
        here.looked(None, 9090, "udp")
        await ready
        assert (here.led, [each.up for each in here.local]) == ({20002: 9090}, [False])


async def test_what_the_helper_was_told_half_is_told_again(here: StandIn) -> None:
    target = RelayTarget(20001, "tcp", LOCALHOST, 8080)
    here.refuse = FirewallError("busy")
    with pytest.raises(FirewallError):
        await here.claimant.forward("1", (target,))
    here.refuse = None
    await here.claimant.forward("1", (target,))
    assert here.led == {20001: 8080}
    here.story.clear()
    await here.claimant.forward("1", (target,))
    assert here.story == []
    setting = asyncio.ensure_future(here.claimant.forward("1", ()))
    await asyncio.sleep(0)
    setting.cancel()
    await asyncio.wait([setting])
    await here.claimant.forward("1", ())
    assert here.led == {}
