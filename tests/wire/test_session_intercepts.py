"""Requests, streams and states of intercepts as lines: literal forms, both directions, and what may not be sent."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.errors import ProtocolError
from meshdev.wire.counts import InterceptCounts
from meshdev.wire.message import dump
from meshdev.wire.modes import MESH, PROXY
from meshdev.wire.session_api import (
    Event,
    Request,
    encode_answer,
    encode_event,
    encode_request,
    parse_answer,
    parse_event,
    parse_request,
)
from meshdev.wire.session_intercepts import (
    InterceptRequest,
    InterceptStatus,
    LeaveRequest,
    Left,
    Live,
    LocalPort,
    PendingListener,
    PodIdentity,
    Up,
)

INTERCEPT = InterceptStatus(
    id="0123456789abcdef0123456789abcdef",
    target="deployment/b",
    namespace="default",
    mode=MESH,
    match="a=1",
    ports=("8080:80/http", "9090:9090/udp"),
    strategy="ephemeral",
    state="active",
    fallback=True,
    detached=False,
    acked=1,
    total=2,
    counts=InterceptCounts(matched=3, fell_back=2, errors=1, older=4),
    local=(LocalPort(8080, "tcp", up=True), LocalPort(9090, "udp", up=False)),
    notes=("4 older connections still go to the original",),
    age_s=1.5,
    url="http://b.default/",
    pending_listeners=(PendingListener(9999, "tcp", 1),),
    identities=(PodIdentity("b-1", "spiffe://uid-1/ns/default/deployment/b/pod/uid-b-1"),),
)

AS_JSON = {
    "id": "0123456789abcdef0123456789abcdef",
    "target": "deployment/b",
    "namespace": "default",
    "mode": "mesh",
    "match": "a=1",
    "ports": ["8080:80/http", "9090:9090/udp"],
    "strategy": "ephemeral",
    "state": "active",
    "fallback": True,
    "detached": False,
    "pods": {"acked": 1, "total": 2},
    "counts": {"matched": 3, "fell_back": 2, "errors": 1, "older": 4},
    "local": [
        {"port": 8080, "transport": "tcp", "up": True},
        {"port": 9090, "transport": "udp", "up": False},
    ],
    "notes": ["4 older connections still go to the original"],
    "age_s": 1.5,
    "url": "http://b.default/",
    "pending_listeners": [{"port": 9999, "transport": "tcp", "pods": 1}],
    "identities": [{"pod": "b-1", "identity": "spiffe://uid-1/ns/default/deployment/b/pod/uid-b-1"}],
}

FULL = InterceptRequest(
    target="deploy/b",
    namespace="team-1",
    mode=MESH,
    headers=("a=1", "x~[0-9]+"),
    path_prefix="/v1",
    method="get",
    baggage=("user=me",),
    tracestate=("t=1",),
    ports=("8080:http",),
    strategy="patch",
    takeover=True,
    reset_existing=True,
    fallback=False,
    detach=True,
)


def test_a_status_has_the_keys_scripts_rely_on() -> None:
    assert json.loads(json.dumps(dump(INTERCEPT))) == AS_JSON


@pytest.mark.parametrize(
    ("event", "value"),
    [
        (Up(INTERCEPT), {"event": "up", "intercept": AS_JSON}),
        (Live(INTERCEPT), {"event": "live", "intercept": AS_JSON}),
        (Left(), {"event": "left"}),
    ],
)
def test_events_travel(event: Event, value: dict[str, object]) -> None:
    encoded = encode_event(event)
    assert json.loads(encoded) == value
    assert parse_event(encoded[:-1]) == event


@pytest.mark.parametrize(
    ("request_", "value"),
    [
        (
            InterceptRequest(target="svc/b", mode=PROXY),
            {
                "op": "intercept",
                "target": "svc/b",
                "namespace": None,
                "mode": "proxy",
                "headers": [],
                "path_prefix": None,
                "method": None,
                "baggage": [],
                "tracestate": [],
                "ports": [],
                "strategy": "auto",
                "takeover": False,
                "reset_existing": False,
                "fallback": True,
                "detach": False,
            },
        ),
        (
            FULL,
            {
                "op": "intercept",
                "target": "deploy/b",
                "namespace": "team-1",
                "mode": "mesh",
                "headers": ["a=1", "x~[0-9]+"],
                "path_prefix": "/v1",
                "method": "get",
                "baggage": ["user=me"],
                "tracestate": ["t=1"],
                "ports": ["8080:http"],
                "strategy": "patch",
                "takeover": True,
                "reset_existing": True,
                "fallback": False,
                "detach": True,
            },
        ),
        (LeaveRequest(), {"op": "leave", "target": None, "namespace": None}),
        (LeaveRequest("svc/b", "team-1"), {"op": "leave", "target": "svc/b", "namespace": "team-1"}),
    ],
)
def test_requests_travel(request_: Request, value: dict[str, object]) -> None:
    encoded = encode_request(request_)
    assert json.loads(encoded) == value
    assert parse_request(encoded) == request_


def test_what_was_left_travels() -> None:
    left = ("deployment/b in namespace default", "statefulset/db in namespace team-1")
    assert encode_answer(()) == b'{"ok":{"left":[]}}\n'
    assert parse_answer(LeaveRequest(), encode_answer(left)) == left
    with pytest.raises(ProtocolError):
        parse_answer(LeaveRequest(), encode_answer(None))


def test_odd_bytes_of_a_command_line_arrive_so_that_the_session_can_name_them() -> None:
    odd = InterceptRequest(target="deploy/b", mode=MESH, headers=(b"a=\xff".decode(errors="surrogateescape"),))
    assert parse_request(encode_request(odd)) == odd


def test_a_newer_sessions_intercept_is_read() -> None:
    line = json.dumps({"event": "live", "intercept": {**AS_JSON, "weather": "fine"}}).encode()
    assert parse_event(line) == Live(INTERCEPT)


def _request(**changes: Any) -> bytes:
    return json.dumps({"op": "intercept", **dump(FULL), **changes}).encode()


@pytest.mark.parametrize(
    "line",
    [
        _request(target=None),
        _request(target="x" * 4097),
        _request(target="\0"),
        _request(namespace=1),
        _request(mode="link"),
        _request(headers="a=1"),
        _request(headers=[1]),
        _request(headers=["a"] * 8193),
        _request(strategy="best"),
        _request(detach="no"),
        _request(surprise=1),
        b'{"op":"intercept","target":"deploy/b","mode":"proxy"}',
        b'{"op":"leave"}',
        b'{"op":"leave","target":[],"namespace":null}',
        b'{"op":"leave","target":null,"namespace":null,"all":true}',
    ],
)
def test_wrong_requests_are_refused(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_request(line)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted(AS_JSON)), JSON)
def test_an_intercept_with_one_wrong_value_is_read_or_refused(key: str, value: object) -> None:
    line = json.dumps({"event": "up", "intercept": {**AS_JSON, key: value}}).encode()
    try:
        event = parse_event(line)
    except ProtocolError:
        return
    assert parse_event(encode_event(event)) == event
