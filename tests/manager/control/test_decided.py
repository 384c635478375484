"""Which claims the passthrough proxy may decide by, and when: on after Envoy's routes, off before them."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from meshdev.intercept import spec as specs
from meshdev.intercept.match import HeaderMatch, Match
from meshdev.intercept.spec import Port
from meshdev.manager.control import decided
from meshdev.manager.control.pods import HeldClaim, Pod
from meshdev.sidecar.envoy.claims import LiveClaim
from meshdev.sidecar.envoy.protos import LISTENERS
from meshdev.wire import agent
from meshdev.wire.agent import MAX_CLAIMS, AgentHello, FromControl, Listen, PodPort, Redirect, State
from meshdev.wire.intercepts import Relay
from meshdev.wire.manager import Withdrawn
from meshdev.wire.modes import PROXY
from tests.manager.claims import HTTP, spec
from tests.manager.control.sidecar_pod import SidecarPod
from tests.manager.control.world import World, alias

FOLDER = "/tmp/meshdev-x"
A, B = spec("a"), spec("b", value="2")
BYTES = spec("c", HTTP, Port(7000, "tcp", 1), Port(9090, "udp", 2), mode=PROXY)


def joined(world: World, *, settle: bool = True) -> SidecarPod:
    pod = world.pod("b-1")
    pod.connect_agent()
    pod.connect_envoy()
    if settle:
        world.settle()
    return pod


def test_envoy_listens_on_sockets_and_udp_ports_stay_numbers(world: World) -> None:
    world.claim(BYTES, "b-1")
    pod = joined(world)
    addresses = {name: one.address for name, one in pod.has[LISTENERS].items()}
    assert addresses["listener_8080"].pipe.path == f"{pod.folder}/8080"
    assert addresses["listener_7000"].pipe.path == f"{pod.folder}/7000"
    assert addresses["listener_9090_udp"].socket_address.port_value in range(15800, 15803)
    assert pod.redirect is not None
    (claim,) = pod.redirect.claims
    assert (claim.ports, claim.match, claim.whole) == ((PodPort(7000), PodPort(8080)), "null", True)


def test_a_claim_is_on_once_envoy_has_acknowledged_it_and_not_earlier(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world, settle=False)
    served = False
    while pod.step():
        assert not pod.decides(A)[0] or pod.serves(A)
        served |= pod.serves(A) and not pod.decides(A)[0]
    assert served, "the routes come first"
    assert pod.decides(A) == [True]
    assert pod.redirect is not None
    assert pod.redirect.claims[0].match == specs.canonical_json(A.match)


def test_a_withdrawn_claim_is_off_before_its_routes_are_removed(world: World) -> None:
    world.claim(A, "b-1")
    world.claim(B, "b-1", first=20010)
    pod = joined(world)
    assert pod.decides(A, B) == [True, True]
    pod.sent.clear()
    world.hear(Withdrawn(alias(A)))
    assert pod.sent == ["ProbeRelays", "Redirect", "answer"]
    world.settle()
    assert pod.decides(A, B) == [False, True]
    assert (pod.serves(A), pod.serves(B)) == (False, True)


def test_claims_without_envoy_go_off_and_new_ones_do_not_come_on(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world)
    pod.disconnect_envoy(ends=False)
    world.claim(B, "b-1", first=20010)
    world.settle()
    assert pod.decides(A, B) == [True, False], "it lost its stream, and has its routes"
    world.hear(Withdrawn(alias(A)))
    world.settle()
    assert pod.decides(A, B) == [False, False]
    pod.connect_envoy(again=True)
    world.settle()
    assert pod.decides(A, B) == [False, True]


def test_envoy_that_comes_again_keeps_what_is_on(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world)
    pod.disconnect_envoy(ends=False)
    pod.connect_envoy(again=True)
    while pod.step():
        assert pod.decides(A) == [True]


def test_another_envoy_has_acknowledged_nothing(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world)
    pod.disconnect_envoy()
    world.settle()
    assert pod.decides(A) == [True], "it may come again"
    pod.connect_envoy()
    assert pod.step()
    assert pod.decides(A) == [False]
    world.settle()
    assert pod.decides(A) == [True]
    assert pod.redirects() == ["8080"]


def test_a_program_that_goes_and_comes_changes_no_decision(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world)
    for up in (False, True):
        world.claim(A, "b-1", up=up)
        while pod.step():
            assert pod.decides(A) == [True]


def test_a_claim_that_envoy_refuses_is_never_on(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world)
    pod.refuses = B.id.encode()
    world.claim(B, "b-1", first=20010)
    while pod.step():
        assert pod.decides(A, B) == [True, False]
    assert world.states(B) == {"b-1": "nacked"}


def test_one_that_ends_and_comes_again_waits_for_envoy_again(world: World) -> None:
    """Envoy may be between the two."""
    world.claim(A, "b-1")
    world.claim(B, "b-1", first=20010)
    pod = joined(world)
    world.hear(Withdrawn(alias(A)))
    world.claim(A, "b-1")
    while pod.step():
        assert not pod.decides(A)[0] or pod.serves(A)
    assert pod.decides(A, B) == [True, True]


def test_an_agent_that_comes_again_is_told(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world)
    pod.disconnect_agent(ends=False)
    pod.redirect = None
    pod.connect_agent(again=True)
    world.settle()
    assert pod.decides(A) == [True]


# What the proxy has applied


def test_a_claim_is_acked_once_the_passthrough_proxy_has_applied_it(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world, settle=False)
    pod.applies = False
    world.settle()
    assert (pod.serves(A), pod.decides(A), pod.redirects()) == (True, [True], ["8080"])
    assert world.states(A) == {"b-1": "joined"}, "what fits it may go to the app still"
    pod.applies = True
    pod.report()
    assert world.states(A) == {"b-1": "acked"}


def test_what_comes_with_other_claims_stays_acked(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world)
    pod.applies = False
    world.claim(B, "b-1", first=20010)
    world.settle()
    assert (world.states(A), world.states(B)) == ({"b-1": "acked"}, {"b-1": "joined"})
    world.hear(Withdrawn(alias(A)))
    world.settle()
    assert world.states(A) == {"b-1": "acked"}, "it is applied still"
    pod.applies = True
    pod.report()
    assert (world.states(A), world.states(B)) == ({"b-1": "gone"}, {"b-1": "acked"})


def test_a_claim_on_more_ports_is_acked_anew(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world)
    pod.applies = False
    world.claim(replace(A, ports=(*A.ports, Port(8081, "http", 8081))), "b-1")
    world.settle()
    assert pod.redirects() == ["8080", "8081"]
    assert world.states(A) == {"b-1": "joined"}
    pod.applies = True
    pod.report()
    assert world.states(A) == {"b-1": "acked"}


def test_a_stream_begins_with_nothing_applied_and_numbers_go_on(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world)
    assert pod.redirect is not None
    before = pod.redirect.number
    pod.disconnect_agent(ends=False)
    pod.applies = False
    pod.connect_agent(again=True)
    world.settle()
    assert pod.redirect.number > before
    assert (pod.decides(A), world.states(A)) == ([True], {"b-1": "joined"})
    pod.applies = True
    pod.report()
    assert world.states(A) == {"b-1": "acked"}


def test_datagrams_do_not_wait_for_the_passthrough_proxy(world: World) -> None:
    one = spec("d", Port(9090, "udp", 9090), mode=PROXY)
    world.claim(one, "b-1")
    pod = joined(world, settle=False)
    pod.applies = False
    world.settle()
    assert world.states(one) == {"b-1": "acked"}


# Limits


def _held(number: int, *values: str) -> HeldClaim:
    match = Match(tuple(HeaderMatch(f"x-{at}", "exact", value) for at, value in enumerate(values)))
    one = replace(spec(f"{number:06x}"), match=match)
    claim = LiveClaim(one, "ann", (Relay(8080, "tcp", 20000),), frozenset({PodPort(8080)}))
    return HeldClaim(one.id, claim, False, number)


def test_a_match_takes_its_size_for_each_port() -> None:
    """The agent's worker gets it with each of them."""
    one = _held(1, "x" * 1000).claim
    ports = tuple(replace(one.spec.ports[0], remote=number) for number in range(1, 65))
    assert decided.size(LiveClaim(replace(one.spec, ports=ports), "ann", (), frozenset())) > 64 * 1000


@pytest.mark.parametrize(("values", "fit"), [(("1",), MAX_CLAIMS), (('"' * 200,) * 4, decided.MAX_BYTES // 2100)])
def test_what_is_too_much_for_one_message_is_refused(values: tuple[str, ...], fit: int) -> None:
    sent: list[FromControl] = []
    pod = Pod()
    pod.agent_connected(
        AgentHello("b-1", "u-1", "default", IPv4Address("10.244.0.7")), IPv4Address("10.244.0.7"), sent.append
    )
    pod.agent_reported(Listen({PodPort(8080): 15800}, FOLDER))
    pod.agent_reported(State())
    claims = [_held(number, *values) for number in range(MAX_CLAIMS + 10)]
    pod.follow(claims, IPv4Address("10.244.0.9"), settling=False)
    states = [report.state for _, report in pod.reports(claims)]
    fitting = states.index("nacked")
    assert fitting <= fit
    assert set(states[fitting:]) == {"nacked"}
    assert {report.text for _, report in pod.reported() if report.state == "nacked"} == {
        "at most 1,024 intercepts of a pod's requests are possible at a time"
    }
    fit_in = tuple(
        agent.DecidedClaim((PodPort(8080),), specs.canonical_json(each.claim.spec.match)) for each in claims[:fitting]
    )
    data = agent.encode(Redirect((PodPort(8080),), fit_in))
    assert len(data) <= decided.MAX_BYTES + 100
    assert agent.decode_from_control(data) == Redirect((PodPort(8080),), fit_in)
