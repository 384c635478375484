"""One pod and the claims on it, without streams: what is too much, what is kept, what is reported."""

from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.intercept.spec import Port
from meshdev.manager.control.pods import HeldClaim, Pod
from meshdev.manager.control.xds import AdsStream, DiscoveryAnswer
from meshdev.sidecar.envoy.claims import LiveClaim
from meshdev.sidecar.envoy.protos import CLUSTERS, LISTENERS
from meshdev.wire.agent import (
    MAX_CLAIMED_PORTS,
    MAX_PORTS,
    AgentHello,
    FromControl,
    Listen,
    PodPort,
    ProbeRelays,
    State,
    Want,
)
from meshdev.wire.intercepts import ProbeResult, Relay, Report, ReturnPath
from meshdev.wire.modes import PROXY
from tests.manager.claims import spec

MANAGER = IPv4Address("10.244.0.9")
FOLDER = "/tmp/meshdev-x"
HELLO = AgentHello("b-1", "u-1", "default", IPv4Address("10.244.0.7"))


def held(number: int, ports: range) -> HeldClaim:
    """The claim of developer *number* on these ports of the pod."""
    one = spec(f"{number:02x}", *(Port(port, "tcp", 3000) for port in ports))
    relays = tuple(Relay(port, "tcp", 20000 + 100 * number + at) for at, port in enumerate(ports))
    return HeldClaim(f"{number:032x}", LiveClaim(one, f"dev-{number}", relays, frozenset()), False, number, pod="b-1")


def joined(said: list[FromControl]) -> Pod:
    """A pod whose agent and Envoy are there."""
    pod = Pod()
    pod.agent_connected(HELLO, HELLO.address, said.append)
    pod.agent_reported(State())
    pod.envoy_connected(lambda _: None)
    return pod


def test_more_relays_than_256_lead_to_one_workload() -> None:
    """60 developers with 10 ports each: the last one's paths are tried as the first one's are."""
    said: list[FromControl] = []
    pod = joined(said)
    claims = [held(number, range(8000, 8010)) for number in range(60)]
    pod.follow(claims, MANAGER, settling=False)
    (tried,) = (message for message in said if isinstance(message, ProbeRelays))
    assert len(tried.relays) == 600
    pod.agent_reported(State(return_paths=tuple((relay, "open") for relay in tried.relays)))
    assert [report.return_path for _, report in pod.reports(claims)] == ["open"] * 60


def test_a_claim_with_one_port_too_many_is_refused_and_the_others_go_on() -> None:
    said: list[FromControl] = []
    pod = joined(said)
    claims = [held(number, range(1000 + 64 * number, 1064 + 64 * number)) for number in range(5)]
    pod.follow(claims, MANAGER, settling=False)
    (want,) = (message for message in said if isinstance(message, Want))
    assert {each.port for each in want.ports} == {PodPort(port) for port in range(1000, 1000 + MAX_CLAIMED_PORTS)}
    reports = [report for _, report in pod.reports(claims)]
    assert [report.state for report in reports] == ["joined"] * 4 + ["nacked"]
    assert "at most 256 ports" in reports[-1].text
    said.clear()
    pod.follow(claims[1:], MANAGER, settling=False)
    (want,) = (message for message in said if isinstance(message, Want))
    assert PodPort(1256) in {each.port for each in want.ports}, "there is room for it now"
    assert {alias: report.state for alias, report in pod.reports(claims[1:])}[claims[-1].alias] == "joined"


class Searched(tuple[tuple[int, ProbeResult], ...]):
    """Counts how often it was gone through."""

    __slots__ = ()
    times = 0

    def __iter__(self) -> Iterator[tuple[int, ProbeResult]]:
        Searched.times += 1
        return super().__iter__()


def test_a_large_state_is_gone_through_once_for_all_claims() -> None:
    pod = joined([])
    claims = [held(number, range(8000, 8002)) for number in range(60)]
    pod.follow(claims, MANAGER, settling=False)
    pod.agent_reported(State(return_paths=Searched((relay, "open") for relay in range(20000, 28000))))
    assert [report.return_path for _, report in pod.reports(claims)] == ["open"] * 60
    assert Searched.times == 1
    pod.agent_disconnected()
    assert [report.return_path for _, report in pod.reports(claims)] == ["untried"] * 60


# An agent that comes again while Envoy serves


def served(said: list[FromControl], claims: list[HeldClaim]) -> tuple[Pod, AdsStream, list[DiscoveryAnswer]]:
    """A pod that has redirected the ports of *claims*; its Envoy has asked for nothing yet."""
    pod, answers = Pod(), list[DiscoveryAnswer]()
    pod.agent_connected(HELLO, HELLO.address, said.append)
    stream = pod.envoy_connected(answers.extend)
    pod.follow(claims, MANAGER, settling=False)
    (want,) = (each for each in said if isinstance(each, Want))
    pod.agent_reported(Listen({each.port: 15800 + at for at, each in enumerate(want.ports)}, FOLDER))
    pod.agent_reported(State(tuple(each.port for each in want.ports)))
    stream.on_request(CLUSTERS, frozenset(), "", None)
    pod.follow(claims, MANAGER, settling=False)
    return pod, stream, answers


def test_envoy_is_served_nothing_new_before_the_agent_says_where_it_listens() -> None:
    """Else what is redirected still would lead to listeners that are taken away."""
    said: list[FromControl] = []
    claims = [held(1, range(8000, 8002))]
    pod, _, answers = served(said, claims)
    assert answers
    answers.clear()
    pod.agent_disconnected()
    pod.agent_connected(HELLO, HELLO.address, said.append)
    pod.follow([*claims, held(2, range(9000, 9001))], MANAGER, settling=False)
    assert answers == []
    pod.agent_reported(Listen({PodPort(9000): 15900}, FOLDER))
    pod.follow([*claims, held(2, range(9000, 9001))], MANAGER, settling=False)
    assert answers == [], "what it redirects still comes in a moment"
    pod.agent_reported(State((PodPort(8000), PodPort(7777))))
    pod.follow([*claims, held(2, range(9000, 9001))], MANAGER, settling=False)
    assert answers == [], "7777 is redirected, and nobody knows where to"
    pod.agent_reported(State((PodPort(8000),)))
    pod.follow([*claims, held(2, range(9000, 9001))], MANAGER, settling=False)
    assert pod.listens_after(Listen({}, FOLDER)).ports == {
        PodPort(9000): 15900,
        PodPort(8000): 15800,
        PodPort(8001): 15801,
    }


def test_another_process_of_the_agent_begins_with_what_it_reports() -> None:
    said: list[FromControl] = []
    claims = [held(1, range(8000, 8002))]
    pod, _, _ = served(said, claims)
    pod.agent_connected(HELLO, HELLO.address, said.append)
    pod.agent_reported(Listen({PodPort(8001): 15800}, "/tmp/meshdev-y"))
    assert pod.listens_after(Listen({}, "/tmp/meshdev-y")).ports == {PodPort(8001): 15800}
    pod.agent_connected(HELLO, HELLO.address, said.append)
    pod.agent_reported(State())
    assert not pod.listens


def test_another_agent_is_asked_for_nothing_before_it_reports() -> None:
    """Its Envoy may be there before, and has nothing of what the former one had."""
    said: list[FromControl] = []
    claims = [held(1, range(8000, 8002))]
    pod, _, _ = served(said, claims)
    said.clear()
    answers: list[DiscoveryAnswer] = []
    pod.agent_connected(HELLO, HELLO.address, said.append)
    stream = pod.envoy_connected(answers.extend)
    for kind in (CLUSTERS, LISTENERS):
        answers += stream.on_request(kind, frozenset(), "", None)
    pod.follow(claims, MANAGER, settling=False)
    assert answers == []
    assert [type(message) for message in said] == [Want, ProbeRelays]
    pod.agent_reported(State())
    pod.agent_reported(Listen({PodPort(8000): 15800, PodPort(8001): 15801}, "/tmp/meshdev-y"))
    pod.follow(claims, MANAGER, settling=False)
    (clusters,) = answers
    assert clusters.kind == CLUSTERS
    answers = stream.on_request(CLUSTERS, frozenset(), clusters.nonce, None)
    (listeners,) = answers
    assert [b"/tmp/meshdev-y/" in one.value for one in listeners.resources] == [True, True]


PORTS = st.integers(1, 12).map(PodPort)
LISTENS = st.dictionaries(PORTS, st.integers(15800, 15806), max_size=6)


@given(st.lists(LISTENS, max_size=6))
def test_listeners_are_kept_unless_their_number_is_anothers_now(messages: list[dict[PodPort, int]]) -> None:
    pod = Pod()
    pod.agent_connected(HELLO, HELLO.address, lambda _: None)
    expected: dict[PodPort, int] = {}
    for ports in messages:
        pod.agent_reported(Listen(ports, FOLDER))
        kept = {port: number for port, number in expected.items() if number not in ports.values()}
        expected = kept | ports
        assert pod.listens_after(Listen({}, FOLDER)).ports == expected


def test_listeners_are_bounded_and_the_newest_count() -> None:
    pod = joined([])
    pod.agent_reported(Listen({PodPort(port): port for port in range(1, MAX_PORTS + 1)}, FOLDER))
    newer = {PodPort(port): port for port in range(10_000, 10_010)}
    ports = pod.listens_after(Listen(newer, FOLDER)).ports
    assert len(ports) == MAX_PORTS
    assert ports.items() >= newer.items()


# What is reported


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ((), "untried"),
        (("open",), "untried"),
        (("open", "open"), "open"),
        (("open", "refused"), "refused"),
        (("open", "silent"), "silent"),
        (("silent",), "silent"),
        (("refused", "silent"), "silent"),
    ],
)
def test_the_worst_return_path_is_reported(results: tuple[ProbeResult, ...], expected: ReturnPath) -> None:
    pod = joined([])
    claim = held(1, range(8000, 8002))
    pod.follow([claim], MANAGER, settling=False)
    pod.agent_reported(State(return_paths=tuple(zip((20100, 20101), results, strict=False))))
    assert [report.return_path for _, report in pod.reports([claim])] == [expected]


def test_without_a_tcp_port_there_is_no_return_path_to_report() -> None:
    pod = joined([])
    one = spec("v", Port(9090, "udp", 1), mode=PROXY)
    claim = HeldClaim("1" * 32, LiveClaim(one, "ann", (Relay(9090, "udp", 20001),), frozenset()), False, 1)
    pod.follow([claim], MANAGER, settling=False)
    pod.agent_reported(State(return_paths=((20001, "open"),)))
    assert [report.return_path for _, report in pod.reports([claim])] == ["untried"]


def test_a_report_is_made_once_until_something_changes() -> None:
    pod = joined([])
    claim = held(1, range(8000, 8001))
    pod.follow([claim], MANAGER, settling=False)
    assert [alias for alias, _ in pod.reports([claim])] == [claim.alias]
    assert list(pod.reports([claim])) == []
    pod.agent_reported(State(older=((PodPort(8000), 2), (PodPort(9), 5))))
    ((_, report),) = pod.reports([claim])
    assert report.counts.older == 2
    assert list(pod.reported()) == [(claim.alias, report)]


def test_ports_without_a_listener_are_named_and_count_as_done() -> None:
    said: list[FromControl] = []
    claims = [held(1, range(8000, 8002))]
    pod, _, _ = served(said, claims)
    pod.agent_reported(State((PodPort(8000),), held_back=((PodPort(8001), "no-listener"),)))
    ((_, report),) = pod.reports(claims)
    assert (report.pending, report.text) == (("8001",), "8001: no-listener")


def test_without_an_agent_that_came_there_is_nothing_to_report() -> None:
    pod = Pod()
    pod.envoy_connected(lambda _: None)
    claim = held(1, range(8000, 8001))
    pod.follow([claim], MANAGER, settling=False)
    assert list(pod.reports([claim])) == []
    assert list(pod.last_reports()) == []


def test_last_reports_are_made_once() -> None:
    pod = joined([])
    claim = held(1, range(8000, 8001))
    pod.follow([claim], MANAGER, settling=False)
    assert len(list(pod.reports([claim]))) == 1
    assert list(pod.last_reports()) == [(claim.alias, Report(claim.claim.spec.id, "b-1", "gone"))]
    assert list(pod.last_reports()) == []


def test_an_envoy_that_another_one_has_replaced_may_go() -> None:
    pod = joined([])
    first = pod.envoy_connected(lambda _: None)
    second = pod.envoy_connected(lambda _: None)
    pod.envoy_disconnected(first)
    pod.agent_disconnected()
    assert not pod.disconnected
    pod.envoy_disconnected(second)
    assert pod.disconnected
