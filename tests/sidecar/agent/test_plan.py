"""What is redirected, as a table."""

from dataclasses import replace

import pytest

from meshdev.sidecar.agent.plan import Situation, held_back, redirects
from meshdev.wire.agent import HoldReason, PodPort, Wanted
from meshdev.wire.modes import MESH, PROXY

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
    asked=frozenset(LISTENER_PORTS),
    listening=LISTENING,
)
REQUESTS = replace(ALL, wanted={RAW: Wanted(RAW, "tcp", MESH)})

CASES: dict[str, tuple[Situation, dict[PodPort, HoldReason]]] = {
    "all is well": (ALL, {}),
    "the manager has not asked": (replace(ALL, asked=frozenset({WEB})), {RAW: "waiting", VOICE: "waiting"}),
    "no listener port yet": (replace(ALL, listener_ports={WEB: 15800}), {RAW: "waiting", VOICE: "waiting"}),
    "no Envoy": (replace(ALL, envoy=False), dict.fromkeys(LISTENER_PORTS, "no-envoy")),
    "Envoy has not opened a listener": (replace(ALL, listening=LISTENING - {PodPort(15800)}), {WEB: "no-envoy"}),
    "a listener of the other kind": (
        replace(ALL, listening=LISTENING - {PodPort(15802, "udp")} | {PodPort(15802)}),
        {VOICE: "no-envoy"},
    ),
    "the app does not listen": (replace(ALL, listening=LISTENING - {WEB}), {WEB: "no-listener"}),
    "the kernel does not tell": (replace(ALL, listening=None), {}),
    "the server speaks first": (replace(REQUESTS, speaks_first=frozenset({RAW})), {RAW: "speaks-first"}),
    "but all of it is wanted": (replace(ALL, speaks_first=frozenset({RAW})), {}),
    "the manager is lost": (replace(ALL, cut_off=True), {RAW: "waiting", VOICE: "waiting"}),
    "nothing is wanted": (replace(ALL, wanted={}), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_held_back(name: str) -> None:
    situation, expected = CASES[name]
    assert held_back(situation) == expected
    assert redirects(situation) == {port: LISTENER_PORTS[port] for port in situation.wanted if port not in expected}
