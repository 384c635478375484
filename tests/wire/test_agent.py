"""The protocol between agent and manager, both directions against literal JSON."""

import json
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.errors import ProtocolError
from meshdev.wire import agent
from meshdev.wire.agent import Counts, Hello, Listen, PodPort, Probe, Redirect, State, Want, Wanted

WEB = PodPort(8080)
VOICE = PodPort(9090, "udp")
IDENTITY = "ab" * 16

FROM_AGENT: list[tuple[agent.FromAgent, object]] = [
    (
        Hello("b-1", "u-1", "default", IPv4Address("10.244.0.7"), (Probe(8080, "/healthz"),)),
        {
            "hello": {
                "pod": "b-1",
                "uid": "u-1",
                "namespace": "default",
                "address": "10.244.0.7",
                "probes": [{"port": 8080, "path": "/healthz", "agent": "kube-probe/"}],
            }
        },
    ),
    (Listen({WEB: 15801, VOICE: 15802}), {"listen": {"8080": 15801, "9090/udp": 15802}}),
    (
        State((WEB,), ((VOICE, "waiting"),), ((WEB, 3),), ((IDENTITY, Counts(5, 1, 0)),), ((VOICE, Counts(2, 0, 1)),)),
        {
            "state": {
                "redirected": ["8080"],
                "apart": {"9090/udp": "waiting"},
                "older": {"8080": 3},
                "intercepts": {IDENTITY: {"matched": 5, "fell_back": 1, "errors": 0}},
                "flows": {"9090/udp": {"matched": 2, "fell_back": 0, "errors": 1}},
            }
        },
    ),
]
FROM_CONTROL: list[tuple[agent.FromControl, object]] = [
    (
        Want((Wanted(WEB, "http", "mesh"), Wanted(VOICE, "udp", "proxy", reset_older=True))),
        {
            "want": [
                {"port": "8080", "protocol": "http", "mode": "mesh", "reset_older": False},
                {"port": "9090/udp", "protocol": "udp", "mode": "proxy", "reset_older": True},
            ]
        },
    ),
    (Want(()), {"want": []}),
    (Redirect((WEB, VOICE)), {"redirect": ["8080", "9090/udp"]}),
]


@pytest.mark.parametrize(("message", "value"), FROM_AGENT)
def test_what_an_agent_says(message: agent.FromAgent, value: object) -> None:
    assert json.loads(agent.encode(message)) == value
    assert agent.decode_from_agent(json.dumps(value).encode()) == message


@pytest.mark.parametrize(("message", "value"), FROM_CONTROL)
def test_what_the_manager_says(message: agent.FromControl, value: object) -> None:
    assert json.loads(agent.encode(message)) == value
    assert agent.decode_from_control(json.dumps(value).encode()) == message


@pytest.mark.parametrize(
    "text",
    [
        '{"listen": {"8080": 0}}',
        '{"listen": {"08080": 1}}',
        '{"listen": {"65536": 1}}',
        '{"listen": {"8080/tcp": 1}}',
        '{"listen": []}',
        '{"listen": {' + ",".join(f'"{port}": 1' for port in range(1, 300)) + "}}",
        '{"state": {"redirected": ["8080", "8080"], "apart": {}, "older": {}, "intercepts": {}}}',
        '{"state": {"redirected": [], "apart": {"1": "because"}, "older": {}, "intercepts": {}}}',
        '{"state": {"redirected": [], "apart": {}, "older": {"1": -1}, "intercepts": {}}}',
        '{"state": {"redirected": [], "apart": {}, "older": {}}}',
        '{"hello": {"pod": "b\\n", "uid": "", "namespace": "", "address": "10.0.0.1", "probes": []}}',
        '{"redirect": ["8080"]}',
        "{}",
        "[]",
        "",
        '"' + "x" * agent.MAX_MESSAGE + '"',
    ],
)
def test_what_an_agent_must_not_say(text: str) -> None:
    with pytest.raises(ProtocolError):
        agent.decode_from_agent(text.encode())


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    for decode in (agent.decode_from_agent, agent.decode_from_control):
        with pytest.raises(ProtocolError):
            decode(data)
