"""One pod and the claims on it, without streams: how many are too many."""

from collections.abc import Iterator
from ipaddress import IPv4Address

from meshdev.intercept.spec import Port
from meshdev.manager.control.pods import HeldClaim, Pod
from meshdev.sidecar.envoy.claims import LiveClaim
from meshdev.wire.agent import MAX_CLAIMED_PORTS, AgentHello, FromControl, PodPort, ProbeRelays, State, Want
from meshdev.wire.intercepts import ProbeResult, Relay
from tests.manager.claims import spec

MANAGER = IPv4Address("10.244.0.9")


def held(number: int, ports: range) -> HeldClaim:
    """The claim of developer *number* on these ports of the pod."""
    one = spec(f"{number:02x}", *(Port(port, "tcp", 3000) for port in ports))
    relays = tuple(Relay(port, "tcp", 20000 + 100 * number + at) for at, port in enumerate(ports))
    return HeldClaim(f"{number:032x}", LiveClaim(one, f"dev-{number}", relays, frozenset()), False, number)


def joined(said: list[FromControl]) -> Pod:
    """A pod whose agent and Envoy are there."""
    pod = Pod()
    pod.agent_connected(AgentHello("b-1", "u-1", "default", IPv4Address("10.244.0.7")), said.append)
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
