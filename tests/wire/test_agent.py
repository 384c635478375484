"""The protocol between agent and manager, both directions against literal JSON."""

import json
import os
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.config import RELAY_PORTS
from meshdev.errors import ProtocolError
from meshdev.intercept import spec
from meshdev.manager.tunnel import claims
from meshdev.manager.tunnel.server import MAX_SESSIONS
from meshdev.sidecar.envoy import names
from meshdev.wire import agent
from meshdev.wire.access import AccessRecord, AccessRecords, Watch
from meshdev.wire.agent import (
    AgentHello,
    DecidedClaim,
    Listen,
    PodPort,
    Probe,
    ProbeRelays,
    Redirect,
    State,
    Want,
    Wanted,
)
from meshdev.wire.counts import DURATIONS, Counts, Traffic
from meshdev.wire.modes import MESH, PROXY

WEB = PodPort(8080)
VOICE = PodPort(9090, "udp")
IDENTITY = "ab" * 16

FROM_AGENT: list[tuple[agent.FromAgent, object]] = [
    (
        AgentHello("b-1", "u-1", "default", IPv4Address("10.244.0.7"), (Probe(8080, "/healthz"),)),
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
    (Listen({WEB: 15801, VOICE: 15802}, "/tmp/x"), {"listen": {"8080": 15801, "9090/udp": 15802}, "folder": "/tmp/x"}),
    (
        State(
            redirected=(WEB,),
            held_back=((VOICE, "waiting"),),
            older=((WEB, 3),),
            intercepts=((IDENTITY, Counts(5, 1, 0)),),
            flows=((VOICE, Counts(2, 0, 1)),),
            return_paths=((20001, "open"), (20002, "silent")),
        ),
        {
            "state": {
                "redirected": ["8080"],
                "apart": {"9090/udp": "waiting"},
                "older": {"8080": 3},
                "intercepts": {IDENTITY: {"matched": 5, "fell_back": 1, "errors": 0}},
                "flows": {"9090/udp": {"matched": 2, "fell_back": 0, "errors": 1}},
                "ways": {"20001": "open", "20002": "silent"},
            }
        },
    ),
]
FROM_AGENT += [
    (
        State(traffic=((IDENTITY, Traffic(10, 20, 7, (0, 2))), ("ab", Traffic())), flow_traffic=((VOICE, Traffic(3)),)),
        {
            "state": {
                "redirected": [],
                "apart": {},
                "older": {},
                "intercepts": {},
                "flows": {},
                "ways": {},
                "traffic": {
                    IDENTITY: {"request_bytes": 10, "response_bytes": 20, "milliseconds": 7, "durations": [0, 2]},
                    "ab": {},
                },
                "flow_traffic": {"9090/udp": {"request_bytes": 3}},
            }
        },
    ),
    (
        AgentHello("b-1", "u-1", "default", IPv4Address("10.244.0.7"), records=True),
        {
            "hello": {
                "pod": "b-1",
                "uid": "u-1",
                "namespace": "default",
                "address": "10.244.0.7",
                "probes": [],
                "records": True,
            }
        },
    ),
    (AccessRecords((), 3), {"records": {"records": [], "dropped": 3}}),
    (
        AccessRecords((AccessRecord(1, IPv4Address("10.244.0.9"), 8080, "tcp", "original", 2),)),
        {
            "records": {
                "records": [
                    {
                        "time": 1,
                        "source": "10.244.0.9",
                        "port": 8080,
                        "protocol": "tcp",
                        "served_by": "original",
                        "duration": 2,
                    }
                ]
            }
        },
    ),
]
FROM_CONTROL: list[tuple[agent.FromControl, object]] = [
    (
        Want((Wanted(WEB, "http", MESH), Wanted(VOICE, "udp", PROXY, reset_older=True))),
        {
            "want": [
                {"port": "8080", "protocol": "http", "mode": "mesh", "reset_older": False},
                {"port": "9090/udp", "protocol": "udp", "mode": "proxy", "reset_older": True},
            ]
        },
    ),
    (Want(()), {"want": []}),
    (Redirect((WEB, VOICE)), {"redirect": ["8080", "9090/udp"]}),
    (ProbeRelays((20001, 29999), IPv4Address("10.244.0.9")), {"try": ["20001", "29999"], "address": "10.244.0.9"}),
    (ProbeRelays((), IPv4Address("10.244.0.9")), {"try": [], "address": "10.244.0.9"}),
    (Watch(on=True, all=True), {"watch": {"on": True, "all": True}}),
    (Watch(), {"watch": {"on": False}}),
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
        '{"listen": {"8080": 0}, "folder": "/tmp/x"}',
        '{"listen": {"08080": 1}, "folder": "/tmp/x"}',
        '{"listen": {"65536": 1}, "folder": "/tmp/x"}',
        '{"listen": {"8080/tcp": 1}, "folder": "/tmp/x"}',
        '{"listen": [], "folder": "/tmp/x"}',
        '{"listen": {}}',
        '{"listen": {}, "folder": ""}',
        '{"listen": {}, "folder": null}',
        '{"listen": {}, "folder": "tmp"}',
        '{"listen": {}, "folder": "/"}',
        '{"listen": {}, "folder": "/tmp/../etc"}',
        '{"listen": {}, "folder": "/tmp/a b"}',
        '{"listen": {}, "folder": "/tmp/"}',
        '{"listen": {}, "folder": "/' + "x" * agent.MAX_FOLDER + '"}',
        '{"listen": {' + ",".join(f'"{port}": 1' for port in range(1, 1100)) + '}, "folder": "/tmp/x"}',
        '{"hello": {"pod": "b\\n", "uid": "", "namespace": "", "address": "10.0.0.1", "probes": []}}',
        '{"redirect": ["8080"]}',
        '{"watch": {"on": true}}',
        '{"records": []}',
        '{"records": {"records": [{}]}}',
        "{}",
        "[]",
        "",
        '"' + "x" * agent.MAX_MESSAGE + '"',
    ],
)
def test_what_an_agent_must_not_say(text: str) -> None:
    with pytest.raises(ProtocolError):
        agent.decode_from_agent(text.encode())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("redirected", ["8080", "8080"]),
        ("apart", {"1": "because"}),
        ("older", {"1": -1}),
        ("intercepts", None),
        ("intercepts", {"a" * 33: {"matched": 0, "fell_back": 0, "errors": 0}}),
        ("flows", []),
        ("ways", {"20001": "untried"}),
        ("ways", {"19999": "open"}),
        ("ways", {"020001": "open"}),
        ("ways", {"²0001": "open"}),
        ("ways", {str(relay): "open" for relay in range(20000, 20001 + agent.MAX_RETURN_PATHS)}),
    ],
)
def test_states_that_cannot_be(key: str, value: object) -> None:
    whole: dict[str, object] = {"redirected": [], "apart": {}, "older": {}, "intercepts": {}, "flows": {}, "ways": {}}
    assert agent.decode_from_agent(json.dumps({"state": whole}).encode()) == State()
    with pytest.raises(ProtocolError, match=key):
        agent.decode_from_agent(json.dumps({"state": {**whole, key: value}}).encode())
    del whole[key]
    with pytest.raises(ProtocolError, match=key):
        agent.decode_from_agent(json.dumps({"state": whole}).encode())


@pytest.mark.parametrize(
    "text",
    [
        '{"redirect": [], "claims": {}}',
        '{"watch": true}',
        '{"watch": {}}',
        '{"watch": {"on": 1}}',
        '{"records": {"records": []}}',
        '{"redirect": [], "claims": [{"match": "null"}]}',
        '{"redirect": [], "claims": [{"ports": ["9090/udp"]}]}',
        '{"redirect": [], "claims": [{"ports": ["80", "80"]}]}',
        '{"redirect": [], "claims": [{"ports": ["80"], "match": null}]}',
        '{"redirect": [], "claims": [{"ports": ["80"], "match": "' + "x" * (13 << 10) + '"}]}',
        '{"redirect": [], "claims": [' + ",".join(['{"ports": []}'] * (agent.MAX_CLAIMS + 1)) + "]}",
        '{"try": ["20001", "20001"], "address": "10.244.0.9"}',
        '{"try": ["22"], "address": "10.244.0.9"}',
        '{"try": [20001], "address": "10.244.0.9"}',
        '{"try": ["20001"]}',
        '{"try": ["20001"], "address": "example.test"}',
    ],
)
def test_what_the_manager_must_not_say(text: str) -> None:
    with pytest.raises(ProtocolError):
        agent.decode_from_control(text.encode())


def test_the_socket_of_the_longest_folder_has_a_path_that_the_kernel_takes(tmp_path: Path) -> None:
    path = names.socket("/" + "x" * (agent.MAX_FOLDER - 1), PodPort(65535))
    assert len(os.fsencode(path)) < 108
    assert names.socket(str(tmp_path), PodPort(65535)) == str(tmp_path / "65535")


def test_what_is_claimed_of_a_port() -> None:
    every, whole = DecidedClaim((WEB, PodPort(9090))), DecidedClaim((PodPort(7000),), whole=True)
    redirect = Redirect((WEB,), (DecidedClaim((WEB,), '{"method":"PUT"}'), every, whole))
    assert redirect.matches(WEB) == ('{"method":"PUT"}', "null")
    assert [redirect.is_whole(PodPort(port)) for port in (8080, 9090, 7000)] == [False, False, True]
    assert redirect.matches(PodPort(1)) == ()


def test_limits_are_those_of_specs() -> None:
    assert (agent._MAX_MATCH, agent._MAX_CLAIM_PORTS) == (spec.MAX_SPEC, spec.MAX_PORTS)


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    for decode in (agent.decode_from_agent, agent.decode_from_control):
        with pytest.raises(ProtocolError):
            decode(data)


def test_the_largest_state_fits_one_message_and_a_manager_has_no_more_to_say() -> None:
    assert MAX_SESSIONS * claims.MAX_RELAYS <= agent.MAX_RETURN_PATHS <= len(RELAY_PORTS)
    assert MAX_SESSIONS * claims.MAX_INTERCEPTS <= agent.MAX_INTERCEPTS
    ports = [PodPort(60000 + number, "udp") for number in range(agent.MAX_PORTS)]
    counts = Counts(*[1 << 53] * 3)
    most = Traffic(1 << 53, 1 << 53, 1 << 53, (1 << 53,) * (len(DURATIONS) + 1))
    state = State(
        redirected=tuple(ports),
        held_back=tuple((port, "no-listener") for port in ports),
        older=tuple((port, 1 << 53) for port in ports),
        intercepts=tuple((f"{number:032x}", counts) for number in range(agent.MAX_INTERCEPTS)),
        flows=tuple((port, counts) for port in ports),
        return_paths=tuple((relay, "refused") for relay in RELAY_PORTS[: agent.MAX_RETURN_PATHS]),
        traffic=tuple((f"{number:032x}", most) for number in range(agent.MAX_TRAFFIC)),
        flow_traffic=tuple((port, most) for port in ports[: agent.MAX_CLAIMED_PORTS]),
    )
    assert len(agent.encode(state)) <= agent.MAX_MESSAGE * 0.8
    assert agent.decode_from_agent(agent.encode(state)) == state
