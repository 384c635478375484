"""Bytes and durations out of what agents report: what is new is counted once, and only so much is kept."""

import pytest

from meshdev.intercept.spec import Port, Spec
from meshdev.manager.control import totals
from meshdev.manager.control.pods import HeldClaim
from meshdev.manager.control.traffic import ReportedTraffic
from meshdev.sidecar.envoy.claims import LiveClaim
from meshdev.wire.agent import PodPort, State
from meshdev.wire.counts import Traffic
from meshdev.wire.manager import Withdrawn
from meshdev.wire.modes import PROXY
from tests.loops import Clock
from tests.manager.claims import spec
from tests.manager.control.test_totals import joined, labels
from tests.manager.control.world import World, alias

A, B = spec("a"), spec("b", value="2")
BYTES = spec("c", Port(7000, "tcp", 7000), mode=PROXY)


def took(*durations: int, sent: int = 0) -> Traffic:
    return Traffic(response_bytes=sent, durations=durations)


def held(*specs: Spec) -> tuple[HeldClaim, ...]:
    return tuple(HeldClaim(one.id, LiveClaim(one, "ann", (), frozenset()), False, 1) for one in specs)


def counted(world: World) -> Traffic:
    return world.core.totals.traffic()[labels(A)]


def test_what_pods_report_is_added_up_over_lost_pods_and_envoys(world: World) -> None:
    world.claim(A, "b-1", "b-2")
    one, other = joined(world), joined(world, "b-2")
    assert counted(world) == Traffic()
    one.report(traffic=((A.id, took(1, 2, sent=10)),), envoys=1)
    other.report(traffic=((A.id, took(5, sent=1)),), envoys=1)
    one.report(traffic=((A.id, took(1, 4, sent=30)),), envoys=1)
    assert counted(world) == took(6, 4, sent=31)
    one.report(envoys=2)
    one.report(traffic=((A.id, took(1, 1, sent=2)),), envoys=2)
    assert counted(world) == took(7, 5, sent=33)
    world.hear(Withdrawn(alias(A)))
    one.report(traffic=((A.id, took(1, 2, sent=3)),), envoys=2)
    one.report(traffic=((A.id, took(1, 9, sent=9)),), envoys=2)
    assert counted(world) == took(7, 6, sent=34), "what was there when it ended, and nothing after that"


def test_an_envoy_that_is_ahead_of_the_one_before_is_counted_whole(world: World) -> None:
    world.claim(A, "b-1")
    one = joined(world)
    one.report(traffic=((A.id, took(3)),), envoys=1)
    one.report(traffic=((A.id, took(5)),), envoys=2)
    assert counted(world) == took(8)


def test_nothing_of_the_first_report_counts() -> None:
    reported = ReportedTraffic(lambda claim: claim.spec.id)
    first, second = (State(traffic=((A.id, took(count)),)) for count in (5, 7))
    assert reported.report(1, first, held(A), anew=False) == []
    assert reported.report(1, first, held(A), anew=False) == []
    assert reported.report(1, second, held(A), anew=False) == [(A.id, took(2))]
    reported.forget(1)
    assert reported.report(1, second, held(A), anew=False) == []


def test_bytes_of_a_port_are_its_holders() -> None:
    reported = ReportedTraffic(lambda claim: claim.spec.id)
    reported.report(1, State(), held(A, BYTES), anew=False)
    state = State(flow_traffic=((PodPort(7000), Traffic(3, 4)), (PodPort(8080), Traffic(5, 6))))
    assert reported.report(1, state, held(A, BYTES), anew=False) == [(BYTES.id, Traffic(3, 4))]


def test_of_too_much_nothing_is_kept_and_what_nobody_claims_neither() -> None:
    reported = ReportedTraffic(lambda claim: claim.spec.id, 2)
    both = State(traffic=((A.id, took(1)), (B.id, took(1))))
    reported.report(1, State(), held(A, B), anew=False)
    reported.report(2, State(), held(A, B), anew=False)
    assert len(reported.report(1, both, held(A), anew=False)) == 1
    assert len(reported.report(2, both, held(A, B), anew=False)) == 1, "there is room for one more"
    reported.forget(1)
    assert [label for label, _ in reported.report(2, both, held(A, B), anew=False)] == [B.id]


def test_of_many_intercepts_those_that_have_some_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals, "MAX_TRAFFIC", 2)
    every = held(*(spec(each, value=each) for each in "abcd"))
    of_all = totals.Totals(Clock(), every)
    assert len(of_all.traffic()) == 2
    of_all.report(1, State(), every)
    last = every[-1].claim
    of_all.report(1, State(traffic=((last.spec.id, took(3)),)), every)
    shown = of_all.traffic()
    assert (len(shown), shown[totals.InterceptLabels.of(last)]) == (2, took(3))


def test_a_pods_last_state_is_kept_without_it() -> None:
    state = State(applied=3, traffic=((A.id, took(1)),), flow_traffic=((PodPort(1), Traffic(1)),))
    assert state.without_traffic() == State(applied=3)
