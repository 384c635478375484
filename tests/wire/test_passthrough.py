"""Agent and passthrough worker, both directions against literal JSON."""

import json
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.errors import ProtocolError
from meshdev.sidecar.passthrough.heads import REASONS
from meshdev.wire import agent, jsonlines, passthrough
from meshdev.wire.access import AccessRecord, AccessRecords, Watch
from meshdev.wire.agent import PodPort, Probe
from meshdev.wire.message import dump
from meshdev.wire.passthrough import AddListener, AppAddress, AskCounts, PassthroughCounts, PortClaims, SetClaims

WEB = PodPort(8080)
RAW = PodPort(5432)

TO_WORKER: list[tuple[passthrough.ToWorker, object]] = [
    (AppAddress(IPv4Address("10.244.0.7")), {"app": "10.244.0.7"}),
    (AddListener(WEB), {"listen": "8080"}),
    (
        SetClaims(
            (
                (WEB, PortClaims(False, ('{"method":"GET"}', "null"), "/tmp/x", True, (Probe(8080, "/healthz"),))),
                (RAW, PortClaims(whole=True, envoy="/tmp/y", draining=True)),
            )
        ),
        {
            "ports": {
                "8080": {
                    "whole": False,
                    "matches": ['{"method":"GET"}', "null"],
                    "envoy": "/tmp/x",
                    "http2": True,
                    "probes": [{"port": 8080, "path": "/healthz", "agent": "kube-probe/"}],
                    "draining": False,
                },
                "5432": {
                    "whole": True,
                    "matches": [],
                    "envoy": "/tmp/y",
                    "http2": False,
                    "probes": [],
                    "draining": True,
                },
            }
        },
    ),
    (SetClaims(()), {"ports": {}}),
    (AskCounts(7), {"ask": 7}),
    (Watch(on=True, all=True), {"watch": {"on": True, "all": True}}),
    (Watch(), {"watch": {"on": False}}),
]
COUNTS = PassthroughCounts(7, ((WEB, 3), (RAW, 1)), 12, 5, 1, 2, (("in-use", 4),), (("chunk", 1), ("other", 2)))


@pytest.mark.parametrize(("message", "value"), TO_WORKER)
def test_what_the_agent_says(message: passthrough.ToWorker, value: object) -> None:
    line = passthrough.encode(message)
    assert line.endswith(b"\n")
    assert json.loads(line) == value
    assert passthrough.decode_to_worker(line) == message


def test_what_the_worker_says() -> None:
    line = passthrough.encode(COUNTS)
    counted = {
        "accepted": 12,
        "claimed": 5,
        "without_envoy": 1,
        "errors": 2,
        "pod_address": {"in-use": 4},
        "raw": {"chunk": 1, "other": 2},
    }
    assert json.loads(line) == {"counts": {"answers": 7, "open": {"8080": 3, "5432": 1}, **counted}}
    assert passthrough.decode_from_worker(line) == COUNTS


def test_what_the_worker_saw() -> None:
    record = AccessRecord(1, IPv4Address("10.244.0.9"), 8080, "tcp", "original", 2)
    line = passthrough.encode(AccessRecords((record,), 3))
    assert json.loads(line) == {"records": json.loads(json.dumps(dump(AccessRecords((record,), 3))))}
    assert passthrough.decode_from_worker(line) == AccessRecords((record,), 3)


def test_every_reason_can_be_counted() -> None:
    counts = PassthroughCounts(raw=tuple((reason, 1) for reason in REASONS))
    assert passthrough.decode_from_worker(passthrough.encode(counts)) == counts


def test_what_another_worker_counted_before_is_added_but_its_connections_are_over() -> None:
    earlier = PassthroughCounts(90, ((WEB, 9),), 100, 50, 10, 20, (("lost", 1),), (("other", 5), ("until-close", 1)))
    both = COUNTS.following(earlier)
    raw = (("chunk", 1), ("other", 7), ("until-close", 1))
    assert both == PassthroughCounts(7, ((WEB, 3), (RAW, 1)), 112, 55, 11, 22, (("in-use", 4), ("lost", 1)), raw)
    assert both.all_open == 4


@pytest.mark.parametrize(
    "text",
    [
        '{"app": "example.test"}',
        '{"app": "fd00::1"}',
        '{"listen": "8080/udp"}',
        '{"listen": 8080}',
        '{"listen": "0"}',
        '{"ports": []}',
        '{"ports": {"9090/udp": {"whole": false, "matches": [], "envoy": "", "http2": false, "probes": []}}}',
        '{"ports": {"8080": {"whole": 1, "matches": [], "envoy": "", "http2": false, "probes": []}}}',
        '{"ports": {"8080": {"whole": true, "matches": [null], "envoy": "", "http2": false, "probes": []}}}',
        '{"ports": {"8080": {"whole": true, "matches": [], "envoy": "/%s", "http2": true, "probes": []}}}'
        % ("x" * 107),
        '{"ports": {"8080": {"whole": true, "matches": [], "envoy": "", "http2": true, "probes": [], "new": 1}}}',
        '{"ports": {"8080": {}}}',
        '{"ask": -1}',
        '{"ask": 1, "and": 2}',
        '{"watch": true}',
        '{"records": {"records": []}}',
        '{"counts": {}}',
        "{}",
        "[]",
        "",
    ],
)
def test_what_the_agent_must_not_say(text: str) -> None:
    with pytest.raises(ProtocolError):
        passthrough.decode_to_worker(text.encode())


@pytest.mark.parametrize(
    "change",
    [
        {"answers": None},
        {"open": {"8080": -1}},
        {"open": {"8080/udp": 1}},
        {"raw": {"Other": 1}},
        {"raw": []},
        {"n": 1},
    ],
)
def test_counts_that_cannot_be(change: dict[str, object]) -> None:
    value = json.loads(passthrough.encode(COUNTS))["counts"]
    with pytest.raises(ProtocolError, match=next(iter(change))):
        passthrough.decode_from_worker(json.dumps({"counts": {**value, **change}}).encode())


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    for decode in (passthrough.decode_to_worker, passthrough.decode_from_worker):
        with pytest.raises(ProtocolError):
            decode(data)


def test_all_claims_of_a_manager_s_message_fit_one_line() -> None:
    """Within JSON, quotes and backslashes of a text take two bytes."""
    match = '"' * (8 << 10)
    claims = PortClaims(matches=(match,) * (agent.MAX_MESSAGE // len(match)))
    probes = tuple(Probe(8080, "/" + "x" * 1023, "é" * 1024) for _ in range(agent.MAX_PROBES))
    message = SetClaims(((WEB, claims), (RAW, PortClaims(probes=probes))))
    line = passthrough.encode(message)
    assert jsonlines.LineSplitter(passthrough.MAX_LINE).feed(line) == [line[:-1]]
    with pytest.raises(ProtocolError, match="is longer than"):
        passthrough.encode(SetClaims(tuple((PodPort(number), claims) for number in range(1, 4))))
