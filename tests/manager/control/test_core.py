"""Control's core: who reaches whom, in whatever order claims and sidecars come. No gRPC, no socket, no clock."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from meshdev.intercept.spec import Port
from meshdev.manager.control.budget import Refused
from meshdev.manager.control.core import EDGE_SECONDS, PRUNE_SECONDS, REJOIN_SECONDS, SETTLE_SECONDS
from meshdev.sidecar.envoy.protos import LISTENERS
from meshdev.wire.agent import AgentHello, PodPort
from meshdev.wire.counts import Counts
from meshdev.wire.intercepts import Agents, AttestedAgent
from meshdev.wire.manager import Allow, PodReport, Withdrawn
from meshdev.wire.modes import PROXY
from meshdev.wire.relay import RelayRemoved
from tests.manager.claims import HTTP, spec
from tests.manager.control.identities import identity
from tests.manager.control.sidecar_pod import SidecarPod
from tests.manager.control.world import MANAGER, World, alias, attested, claimed, key, unreadable

A, B = spec("a"), spec("b", value="2")


def joined(world: World, name: str = "b-1") -> SidecarPod:
    pod = world.pod(name)
    pod.connect_agent()
    pod.connect_envoy()
    world.settle()
    return pod


# A claim and a sidecar


def test_a_claim_goes_from_wanted_to_acked_step_by_step(world: World) -> None:
    world.claim(A, "b-1")
    pod = world.pod("b-1")
    pod.connect_agent()
    assert world.states(A) == {"b-1": "joined"}
    world.settle()
    assert (pod.wants(), pod.redirects()) == (["8080"], []), "without Envoy nothing is redirected"
    pod.connect_envoy()
    world.settle()
    assert (pod.redirects(), pod.serves(A), world.states(A)) == (["8080"], True, {"b-1": "acked"})
    assert world.permitted(20000) == {"b-1"}
    assert pod.probes is not None
    assert (pod.probes.relays, pod.probes.address) == ((20000,), MANAGER)


@pytest.mark.parametrize("trace_all", [False, True])
def test_claims_are_traced_where_they_ask_for_it_or_control_traces_all(world: World, *, trace_all: bool) -> None:
    world.trace_all = trace_all
    world.restart_control()
    world.connect_tunnel()
    world.claim(A, "b-1")
    world.claim(replace(B, trace=True), "b-1", first=20001)
    joined(world)
    traced = {each.claim.spec.id: each.claim.spec.trace for each in world.core.held_by(key("b-1"))}
    assert traced == {A.id: trace_all, B.id: True}


def test_a_withdrawn_claim_leaves_nothing_but_a_listener(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world)
    world.hear(Withdrawn(alias(A)))
    world.settle()
    assert (pod.wants(), pod.redirects(), pod.serves(A)) == ([], [], False)
    assert world.states(A) == {"b-1": "gone"}
    assert pod.knows(A), "requests may be on their way to its cluster"
    world.wait(PRUNE_SECONDS)
    assert not pod.knows(A)
    assert pod.has[LISTENERS], "its listener stays: kept-alive connections go on"


def test_what_one_claim_does_not_want_any_more_another_one_keeps(world: World) -> None:
    world.claim(A, "b-1")
    world.claim(B, "b-1", first=20010)
    pod = joined(world)
    world.hear(Withdrawn(alias(A)))
    world.wait(PRUNE_SECONDS)
    assert (pod.redirects(), pod.serves(A), pod.serves(B)) == (["8080"], False, True)
    assert (world.states(A), world.states(B)) == ({"b-1": "gone"}, {"b-1": "acked"})


def test_a_changed_claim_is_acked_again(world: World) -> None:
    world.claim(A, "b-1", up=False)
    joined(world)
    assert world.reports(A)["b-1"].up == 0
    world.hear(claimed(A))
    assert world.states(A) == {"b-1": "joined"}
    world.settle()
    report = world.reports(A)["b-1"]
    assert (report.state, report.up) == ("acked", 1)


def test_the_same_claim_again_changes_nothing(world: World) -> None:
    world.claim(A, "b-1")
    joined(world)
    world.wait(1)
    world.tunnel.clear()
    world.relay.clear()
    world.claim(A, "b-1")
    world.wait(1)
    assert (world.tunnel, world.relay) == ({}, {})


def test_a_claim_that_cannot_be_read_is_as_one_that_is_withdrawn(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world)
    world.hear(unreadable(A))
    world.settle()
    assert (pod.wants(), world.states(A)) == ([], {"b-1": "gone"})


def test_a_pod_that_is_left_out_serves_the_others_claims(world: World) -> None:
    world.claim(A, "b-1", excluded=("b-1",))
    world.claim(B, "b-1", first=20010)
    pod = joined(world)
    assert (pod.serves(A), pod.serves(B)) == (False, True)
    assert (world.states(A), world.states(B)) == ({}, {"b-1": "acked"})
    world.claim(A, "b-1")
    world.settle()
    assert world.states(A) == {"b-1": "acked"}


def test_an_id_that_two_sessions_claim_is_the_first_ones(world: World) -> None:
    world.claim(A, "b-1")
    other = claimed(spec("a", Port(9999, "tcp", 1)), 20010)
    second = "f" * 32
    claim = type(other)(second, other.spec, "eve", IPv4Address("198.18.0.3"), other.relays, other.up)
    world.hear(claim, Agents(second, 0, attested(A, "b-1").agents))
    pod = joined(world)
    assert pod.wants() == ["8080"]
    world.hear(Withdrawn(alias(A)))
    world.settle()
    assert pod.wants() == ["9999"]


def test_an_envoy_that_refuses_the_newest_claim_keeps_the_others(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world)
    pod.refuses = B.id.encode()
    world.claim(B, "b-1", first=20010)
    world.settle()
    assert (world.states(A), world.states(B)) == ({"b-1": "acked"}, {"b-1": "nacked"})
    assert world.reports(B)["b-1"].text == "refused"
    assert (pod.serves(A), pod.redirects()) == (True, ["8080"])
    pod.refuses = b""
    world.claim(B, "b-1", first=20010, up=False)
    world.settle()
    assert world.states(B) == {"b-1": "acked"}


# Who comes and goes


def test_an_agent_that_comes_again_is_told_all_again(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world)
    pod.disconnect_agent(ends=False)
    assert world.states(A) == {"b-1": "joined"}
    pod.connect_agent(again=True)
    world.settle()
    assert (pod.wants(), pod.redirects(), world.states(A)) == (["8080"], ["8080"], {"b-1": "acked"})


def test_an_envoy_that_comes_again_is_served_all_again(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world)
    pod.disconnect_envoy()
    pod.connect_envoy()
    world.settle()
    assert (pod.serves(A), world.states(A)) == (True, {"b-1": "acked"})


def test_a_pod_without_both_is_gone(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world)
    pod.disconnect_agent()
    pod.disconnect_envoy()
    assert world.states(A) == {"b-1": "gone"}
    assert list(world.core.pods()) == []
    assert world.permitted(20000) == {"b-1"}, "its routes may outlive its stream"
    world.wait(EDGE_SECONDS)
    assert world.permitted(20000) == set()


def test_relays_are_open_to_the_pods_that_a_claim_names_and_no_others(world: World) -> None:
    world.claim(A, "b-1", "b-2")
    world.claim(B, "b-2", first=20010)
    joined(world, "b-1"), joined(world, "b-2")
    assert (world.permitted(20000), world.permitted(20010)) == ({"b-1", "b-2"}, {"b-2"})
    world.hear(attested(A, "b-1"))
    assert world.permitted(20000) == {"b-1"}
    world.hear(attested(A, "b-2", part=3))
    assert world.permitted(20000) == {"b-1", "b-2"}, "in another part"


def test_names_of_a_claim_that_is_not_there_are_nothing(world: World) -> None:
    world.tunnel.clear()
    world.hear(attested(A, "b-1"))
    assert world.core.named() == set()
    world.hear(Withdrawn(alias(A)))
    assert world.tunnel == {}


def test_a_key_is_one_pods(world: World) -> None:
    pod = joined(world)
    hello = AgentHello("x", "uid-x", "default", pod.address)
    with pytest.raises(Refused, match="another pod"):
        world.core.agent_connected(key("b-1"), pod.address, hello, lambda _: None)
    with pytest.raises(Refused, match="another pod"):
        world.core.envoy_connected(key("b-1"), "uid-x", lambda _: None)


def test_a_sidecar_without_room_is_forgotten_whole(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshdev.manager.control.budget.MAX_TOTAL", 0)
    pod = world.pod("b-1")
    pod.connect_envoy()
    pod.disconnect_envoy()
    assert list(world.core.pods()) == []
    world.claim(A, "b-1")
    with pytest.raises(Refused):  # its consents, already
        pod.connect_agent()
    pod.disconnect_agent()
    assert list(world.core.pods()) == []


# The tunnel container


def test_nothing_is_decided_before_all_claims_are_known() -> None:
    world = World()
    pod = joined(world)
    world.wait(SETTLE_SECONDS)
    assert (pod.want, world.tunnel) == (None, {})


def test_no_sidecar_is_told_that_nobody_wants_it_while_claims_may_come() -> None:
    world = World()
    pod = joined(world)
    world.connect_tunnel()
    world.wait(SETTLE_SECONDS - 0.1)
    assert pod.want is None
    world.wait(0.2)
    assert (pod.want is not None, pod.wants()) == (True, [])


def test_who_was_allowed_stays_so_until_all_had_time_to_come_again() -> None:
    world = World()
    both = spec("a", HTTP, Port(9090, "udp", 1), mode=PROXY)
    world.pod("b-1"), world.pod("b-2")
    world.connect_tunnel(claimed(both), attested(both, "b-1", "b-2"))
    assert world.allowed(20001) == set()
    assert world.tunnel["allow 20001"] == Allow(20001, (), True)
    assert world.permitted(20000) == {"b-1", "b-2"}, "neither has spoken yet, and its session vouches for both"
    world.pod("b-1").connect_agent()
    world.pod("b-1").consent()
    assert world.permitted(20000) == {"b-2"}, "the other one knows nothing of that session"
    world.wait(REJOIN_SECONDS + 0.1)
    assert world.tunnel["allow 20001"] == Allow(20001, (), False)
    assert world.permitted(20000) == set()


def test_a_tunnel_container_that_begins_anew_gets_everything(world: World) -> None:
    world.claim(A, "b-1")
    joined(world)
    before = dict(world.tunnel)
    world.connect_tunnel(claimed(A), attested(A, "b-1"))
    assert {name for name in world.tunnel if name in before} == before.keys()
    assert {name: one for name, one in world.tunnel.items() if isinstance(one, PodReport)} == {
        name: one for name, one in before.items() if isinstance(one, PodReport)
    }


def test_claims_that_a_new_tunnel_container_does_not_have_are_over(world: World) -> None:
    world.claim(A, "b-1")
    world.claim(B, "b-1", first=20010)
    pod = joined(world)
    world.connect_tunnel(claimed(B, 20010), attested(B, "b-1"))
    world.wait(PRUNE_SECONDS)
    assert (pod.serves(A), pod.serves(B)) == (False, True)
    assert dict(world.core.for_relay()).keys() == {"relay 20010", "synced"}


def test_counts_of_requests_are_the_claims_and_of_bytes_whose_port_it_is(world: World) -> None:
    raw = spec("c", HTTP, Port(7000, "tcp", 1), mode=PROXY)
    world.claim(A, "b-1")
    world.claim(raw, "b-1", first=20010)
    pod = joined(world)
    port = PodPort(7000)
    pod.report(
        intercepts=((A.id, Counts(5)), (raw.id, Counts(1))), flows=((port, Counts(2, 0, 1)),), older=((port, 3),)
    )
    assert world.reports(A)["b-1"].counts.matched == 5
    found = world.reports(raw)["b-1"].counts
    assert (found.matched, found.errors, found.older) == (3, 1, 3)


# Edges


def test_a_claim_and_an_agent_meet_only_by_key_and_proof(world: World) -> None:
    world.claim(A, "b-1")
    stolen = identity("b-1").with_proof("f" * 64)
    world.hear(claimed(B, 20010), Agents(alias(B), 0, (stolen.attested,)))
    pod = joined(world)
    assert (pod.serves(A), pod.serves(B)) == (True, False)
    assert (world.states(A), world.states(B)) == ({"b-1": "acked"}, {})
    assert world.permitted(20010) == set()


def test_consent_that_is_withdrawn_ends_what_rests_on_it(world: World) -> None:
    world.claim(A, "b-1")
    world.hear(claimed(B, 20010), Agents(alias(B), 0, (identity("b-1").with_proof("f" * 64).attested,)))
    pod = joined(world)
    pod.consent(identity("b-1").proof, "f" * 64)
    world.settle()
    assert (world.states(A), world.states(B)) == ({"b-1": "acked"}, {"b-1": "acked"})
    pod.consent("f" * 64)
    world.settle()
    assert (pod.serves(A), pod.serves(B), pod.redirects()) == (False, True, ["8080"])
    assert (world.states(A), world.states(B)) == ({"b-1": "gone"}, {"b-1": "acked"})
    assert (world.permitted(20000), world.permitted(20010)) == (set(), {"b-1"})


def test_nothing_is_taken_from_an_agent_that_has_not_said_yet_what_it_consents_to(world: World) -> None:
    world.claim(A, "b-1")
    pod = joined(world)
    world.restart_control()
    world.connect_tunnel(claimed(A), attested(A, "b-1"))
    world.wait(REJOIN_SECONDS)
    hello = AgentHello("b-1", pod.uid, "default", pod.address)
    sent: list[object] = []
    world.core.agent_connected(key("b-1"), pod.address, hello, sent.append)
    world.wait(SETTLE_SECONDS)
    assert sent == []


def test_reports_have_the_words_of_the_session(world: World) -> None:
    agent = identity("b-1").attested
    world.hear(claimed(A), Agents(alias(A), 0, (AttestedAgent(agent.request, agent.proof, "my-name", "u-7"),)))
    pod = joined(world)
    assert world.states(A) == {"my-name": "acked"}
    assert pod.name == "b-1"


def test_datagrams_are_let_through_from_an_address_that_is_the_pods_own(world: World) -> None:
    udp = spec("u", Port(9090, "udp", 1), mode=PROXY)
    world.claim(udp, "b-1", "b-2", first=20010)
    world.claim(A, "b-2")
    hidden = world.pod("b-2")
    hidden.peer = IPv4Address("172.18.0.2")
    seen = joined(world)
    joined(world, "b-2")
    assert world.allowed(20010) == {seen.address}
    assert world.states(udp) == {"b-1": "acked", "b-2": "nacked"}
    assert world.reports(udp)["b-2"].text == (
        f"UDP ports cannot be intercepted here: the manager sees the pod as 172.18.0.2 and not as {hidden.address}, "
        "because something in the cluster replaces source addresses"
    )
    assert world.states(A) == {"b-2": "acked"}, "TCP does not depend on addresses"


def test_relays_that_a_claim_no_longer_has_are_removed(world: World) -> None:
    world.claim(A, "b-1")
    joined(world)
    assert world.permitted(20000) == {"b-1"}
    world.hear(claimed(A, 20100))
    assert world.permitted(20100) == {"b-1"}
    assert world.relay["relay 20000"] == RelayRemoved(20000)
    world.hear(claimed(B, 20000))
    world.hear(Withdrawn(alias(A)))
    assert world.permitted(20000) == set(), "it is another one's now"
    assert world.relay["relay 20100"] == RelayRemoved(20100)


def test_what_sessions_do_wrong_is_logged_but_not_without_end(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.claim(A, "b-1")
    for number in range(50):
        bad = AttestedAgent(b"DER %d" % number, "a" * 64, "b-9", "u")
        world.hear(Agents(alias(A), 0, (bad, *attested(A, "b-1").agents)))
    assert caplog.text.count("the agent of pod b-9 is not taken: ") == 10
    joined(world)
    assert world.states(A) == {"b-1": "acked"}, "the others are"
