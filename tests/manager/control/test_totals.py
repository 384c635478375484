"""Counters out of what agents report: over lost streams, lost pods, and Envoys and agents that begin anew."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.intercept.spec import Port, Spec
from meshdev.manager.control import totals as totals_module
from meshdev.manager.control.core import EDGE_SECONDS
from meshdev.manager.control.pods import HeldClaim
from meshdev.manager.control.totals import KEPT_SECONDS, OTHER, InterceptLabels, Totals, WorkloadLabels
from meshdev.sidecar.envoy.claims import LiveClaim
from meshdev.sidecar.passthrough.heads import REASONS
from meshdev.wire.agent import PodPort, State
from meshdev.wire.counts import Counts, PassthroughTotals
from meshdev.wire.manager import Withdrawn
from meshdev.wire.modes import PROXY
from tests.loops import Clock
from tests.manager.claims import spec
from tests.manager.control.sidecar_pod import SidecarPod
from tests.manager.control.world import World, alias

A, B = spec("a"), spec("b", value="2")
BYTES = spec("c", Port(7000, "tcp", 7000), mode=PROXY)
WORKLOAD = WorkloadLabels("default", "deployment/b")


def labels(one: Spec) -> InterceptLabels:
    return InterceptLabels(one.id, "ann", "default", "deployment/b")


def joined(world: World, name: str = "b-1") -> SidecarPod:
    pod = world.pod(name)
    pod.connect_agent()
    pod.connect_envoy()
    world.settle()
    return pod


def counted(world: World, one: Spec = A) -> Counts:
    return world.core.totals.requests()[labels(one)]


def report(pod: SidecarPod, matched: int, fell_back: int = 0, errors: int = 0, envoys: int = 1, **more: Any) -> None:
    pod.report(intercepts=((A.id, Counts(matched, fell_back, errors)),), envoys=envoys, **more)


def test_what_pods_report_is_added_up(world: World) -> None:
    world.claim(A, "b-1", "b-2")
    one, other = joined(world), joined(world, "b-2")
    assert counted(world) == Counts(), "a series from the start: rate() needs a first value"
    report(one, 3)
    report(other, 4, 2, 1)
    report(one, 5, 1)
    assert counted(world) == Counts(9, 3, 1)


def test_a_lost_pod_takes_nothing_with_it(world: World) -> None:
    world.claim(A, "b-1", "b-2")
    pod = joined(world)
    report(pod, 5)
    pod.disconnect_agent()
    pod.disconnect_envoy()
    world.wait(EDGE_SECONDS + 1)
    assert counted(world) == Counts(5)
    report(joined(world, "b-2"), 2)
    assert counted(world) == Counts(7)


def test_a_lost_stream_counts_nothing_twice(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world)
    report(pod, 5)
    pod.disconnect_agent(ends=False)
    pod.connect_agent(again=True, report=False)
    report(pod, 8)  # it went on
    assert counted(world) == Counts(8)


def test_an_agent_that_begins_anew_counts_from_nothing(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world)
    report(pod, 5)
    pod.disconnect_agent()
    pod.disconnect_envoy()
    joined(world)
    report(pod, 9)
    assert counted(world) == Counts(14)


def test_another_envoy_counts_from_nothing_even_where_it_is_ahead_of_the_former_one(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world)
    report(pod, 5)
    report(pod, 7, envoys=2)
    assert counted(world) == Counts(12)
    report(pod, 8, envoys=2)
    assert counted(world) == Counts(13)
    assert world.core.totals.workloads()[WORKLOAD].envoy_restarts == 1


def test_agents_of_earlier_versions_do_not_number_their_envoys(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world)
    report(pod, 5, envoys=0)
    report(pod, 2, envoys=0)
    assert counted(world) == Counts(7), "it is lower, so it began anew"


def test_a_new_control_does_not_count_what_the_former_one_did(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world)
    report(pod, 500)
    world.restart_control()
    world.connect_tunnel()
    world.claim(A, "b-1")
    pod.connect_agent(again=True, report=False)
    report(pod, 520)
    assert counted(world) == Counts()
    report(pod, 521)
    assert counted(world) == Counts(1)


def test_a_route_that_was_removed_and_made_again_counts_from_nothing(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world)
    report(pod, 5)
    pod.report(envoys=1)
    report(pod, 7)
    assert counted(world) == Counts(12)


def test_only_claims_that_reach_the_pod_are_counted(world: World) -> None:
    world.claim(A, "b-1")
    world.claim(B, "b-2", first=20010)
    pod = joined(world)
    report(pod, 5)
    pod.report(intercepts=((A.id, Counts(5)), (B.id, Counts(9)), ("f" * 32, Counts(9))), envoys=1)
    assert (counted(world), counted(world, B)) == (Counts(5), Counts())


def test_bytes_are_counted_by_port(world: World) -> None:
    world.claim(BYTES, "b-1")
    pod = joined(world)
    pod.report(flows=((PodPort(7000), Counts(2, 1)), (PodPort(7001), Counts(9))), envoys=1)
    assert counted(world, BYTES) == Counts(2, 1)


def test_what_ended_can_be_scraped_for_a_while(world: World) -> None:
    world.claim(A, "b-1")
    report(joined(world), 5)
    world.hear(Withdrawn(alias(A)))
    world.settle()
    assert counted(world) == Counts(5)
    world.clock.now += KEPT_SECONDS + 1
    assert world.core.totals.requests() == {}


def test_what_was_on_its_way_when_an_intercept_ended_is_counted(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world)
    report(pod, 5)
    world.hear(Withdrawn(alias(A)))
    report(pod, 6)
    assert world.core.totals.requests()[labels(A)] == Counts(6)
    report(pod, 7)
    assert world.core.totals.requests()[labels(A)] == Counts(6), "now it is over"


def test_bytes_are_counted_for_one_holder_when_another_one_follows() -> None:
    totals, port = Totals(Clock(), ()), PodPort(7000)
    other = spec("d", Port(7000, "tcp", 7000), mode=PROXY)
    first, second = ((HeldClaim("x", LiveClaim(one, "ann", (), frozenset()), False, 1),) for one in (BYTES, other))
    totals.report(1, State(), first)
    totals.report(1, State(flows=((port, Counts(3)),)), first)
    totals.report(1, State(flows=((port, Counts(5)),)), second)
    assert totals.requests() == {labels(BYTES): Counts(3), labels(other): Counts(2)}


def test_an_intercept_without_requests_keeps_its_counts(world: World) -> None:
    world.claim(A, "b-1")
    report(joined(world), 5)
    for _ in range(5):
        world.clock.now += KEPT_SECONDS / 2
        assert counted(world) == Counts(5)


def test_of_too_many_the_one_that_changed_first_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(totals_module, "MAX_INTERCEPTS", 2)
    totals = Totals(Clock(), ())
    for one in (A, B, BYTES):
        held = (HeldClaim("alias", LiveClaim(one, "ann", (), frozenset()), False, 1),)
        totals.report(one.id, State(), held)
        totals.report(one.id, State(intercepts=((one.id, Counts(1)),)), held)
    assert totals.requests().keys() == {labels(B), labels(BYTES)}


def passed(*reasons: tuple[str, int], accepted: int = 0, claimed: int = 0) -> PassthroughTotals:
    return PassthroughTotals(accepted, claimed, raw=reasons)


def test_what_passthrough_proxies_count_is_added_up_by_workload(world: World) -> None:
    world.claim(A, "b-1", "b-2")
    one, other = joined(world), joined(world, "b-2")
    one.report(passthrough=passed(("upgraded", 1), accepted=3, claimed=1))
    one.report(passthrough=passed(("upgraded", 3), accepted=7, claimed=2))
    other.report(passthrough=PassthroughTotals(1, 1, 1, 1, (("lost", 1),)))
    found = world.core.totals.workloads()[WORKLOAD]
    assert (found.accepted, found.claimed, found.without_envoy, found.errors) == (8, 3, 1, 1)
    assert (found.raw, found.pod_address) == ({"upgraded": 3}, {"lost": 1})


def test_reasons_that_are_not_known_are_one(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world)
    for number in range(200):
        pod.report(passthrough=PassthroughTotals(raw=((f"x-{number}", 1),), pod_address=((f"y-{number}", 1),)))
    found = world.core.totals.workloads()[WORKLOAD]
    assert (found.raw, found.pod_address) == ({OTHER: 200}, {OTHER: 200})
    assert OTHER in REASONS


def test_what_was_handed_out_does_not_change(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world)
    pod.report(passthrough=passed(("upgraded", 1)))
    found = world.core.totals.workloads()[WORKLOAD]
    pod.report(passthrough=passed(("upgraded", 2)))
    assert found.raw == {"upgraded": 1}


STEPS = st.lists(st.sampled_from(["request", "report", "envoy", "agent", "stream"]), max_size=40)


@given(STEPS)
def test_whatever_begins_anew_each_request_that_was_reported_is_counted_once(steps: list[str]) -> None:
    """Against a model: an agent, its Envoy and its stream, each of which may begin anew."""
    totals, held = Totals(Clock(), ()), (HeldClaim("alias", LiveClaim(A, "ann", (), frozenset()), False, 1),)
    agent = envoys = counts = unreported = expected = 0
    totals.report(agent, State(), held)
    for step in [*steps, "report"]:
        match step:
            case "request":
                counts, unreported = counts + 1, unreported + 1
            case "envoy":
                envoys, counts, unreported = envoys + 1, 0, 0
            case "agent":
                agent, envoys, counts, unreported = agent + 1, 0, 0, 0
                totals.report(agent, State(), held)
            case "report" | "stream":  # the first report on another stream is like any other
                expected, unreported = expected + unreported, 0
                intercepts = ((A.id, Counts(counts)),) if counts else ()
                totals.report(agent, State(intercepts=intercepts, envoys=envoys), held)
    assert totals.requests().get(labels(A), Counts()) == Counts(expected)
