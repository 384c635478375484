"""What is redirected, as a table."""

from dataclasses import replace

import pytest

from meshdev.sidecar.agent.plan import Situation, claims, held_back, redirects
from meshdev.wire.agent import DecidedClaim, HoldReason, PodPort, Probe, Redirect, Wanted
from meshdev.wire.modes import PROXY
from meshdev.wire.passthrough import PortClaims

WEB, RAW, VOICE = PodPort(8080), PodPort(7000), PodPort(9090, "udp")
LISTENER_PORTS = {WEB: 15800, RAW: 15801, VOICE: 15802}
LISTENING = frozenset({WEB, RAW, VOICE, PodPort(15800), PodPort(15801), PodPort(15802, "udp")})
ALL = Situation(
    wanted={
        WEB: Wanted(WEB, "http", PROXY),
        RAW: Wanted(RAW, "tcp", PROXY),
        VOICE: Wanted(VOICE, "udp", PROXY),
    },
    listener_ports=LISTENER_PORTS,
    asked=Redirect(tuple(LISTENER_PORTS)),
    listening=LISTENING,
)

CASES: dict[str, tuple[Situation, dict[PodPort, HoldReason]]] = {
    "all is well": (ALL, {}),
    "the manager has not asked": (replace(ALL, asked=Redirect((WEB,))), {RAW: "waiting", VOICE: "waiting"}),
    "no listener port yet": (replace(ALL, listener_ports={WEB: 15800}), {RAW: "waiting", VOICE: "waiting"}),
    "no Envoy": (replace(ALL, envoy=False), {VOICE: "no-envoy"}),
    "Envoy has not opened a listener": (
        replace(ALL, listening=LISTENING - {PodPort(15802, "udp")}),
        {VOICE: "no-envoy"},
    ),
    "a listener of the other kind": (
        replace(ALL, listening=LISTENING - {PodPort(15802, "udp")} | {PodPort(15802)}),
        {VOICE: "no-envoy"},
    ),
    "the app does not listen": (replace(ALL, listening=LISTENING - {WEB}), {WEB: "no-listener"}),
    "the kernel does not tell": (replace(ALL, listening=None), {}),
    "the manager is lost": (replace(ALL, cut_off=True), {VOICE: "waiting"}),
    "the proxy fails": (replace(ALL, failing=True), {WEB: "waiting", RAW: "waiting"}),
    "nothing is wanted": (replace(ALL, wanted={}), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_held_back(name: str) -> None:
    situation, expected = CASES[name]
    assert held_back(situation) == expected
    assert redirects(situation) == {port: LISTENER_PORTS[port] for port in situation.wanted if port not in expected}


def test_where_the_kernel_looks_for_listeners_a_redirect_may_stay_without_one() -> None:
    situation = replace(ALL, listening=LISTENING - {WEB, VOICE}, looks=True)
    assert held_back(situation) == {WEB: "no-listener", VOICE: "no-listener"}
    assert redirects(situation).keys() == {WEB, RAW}, "it looks for those of TCP"


MINE, YOURS = DecidedClaim((WEB, RAW), '{"header": 1}'), DecidedClaim((WEB,), "null")
ALL_OF_IT = DecidedClaim((WEB, RAW), "null", whole=True)
PROBES = (Probe(8080, "/healthz", "kube-probe/"), Probe(7000, "/healthz", "kube-probe/"))


def asked(*decided: DecidedClaim) -> Situation:
    return replace(ALL, asked=Redirect(tuple(LISTENER_PORTS), decided), folder="/run/envoy", probes=PROBES)


def test_matches_are_decided_in_the_order_of_their_claims() -> None:
    found = claims(asked(YOURS, MINE))
    assert found[WEB] == PortClaims(
        matches=("null", '{"header": 1}'), envoy="/run/envoy/8080", http2=True, probes=PROBES[:1]
    )
    assert found[RAW].matches == ('{"header": 1}',)
    assert VOICE not in found, "that is Envoy's"


def test_who_claims_everything_needs_no_match() -> None:
    assert claims(asked(MINE, ALL_OF_IT))[WEB] == PortClaims(
        whole=True, envoy="/run/envoy/8080", http2=True, probes=PROBES[:1]
    )


def test_without_the_manager_whole_ports_of_bytes_are_nobodys() -> None:
    found = claims(replace(asked(ALL_OF_IT), cut_off=True))
    assert found[RAW] == PortClaims()
    assert found[WEB].whole, "what of it is a request falls back"


def test_a_port_that_the_manager_has_not_asked_for_is_not_claimed() -> None:
    situation = asked(ALL_OF_IT)
    assert claims(replace(situation, asked=Redirect((WEB,), (ALL_OF_IT,)))).keys() == {WEB}
