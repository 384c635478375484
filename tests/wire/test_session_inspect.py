"""Requests that are inspected, as lines between session and command."""

import json
from ipaddress import IPv4Address
from typing import Any

import pytest
from hypothesis import given

from meshdev.errors import ProtocolError
from meshdev.wire.access import AccessRecord
from meshdev.wire.jsonlines import MAX_LINE
from meshdev.wire.message import SCHEMAS
from meshdev.wire.session_api import encode_event, encode_request, parse_event, parse_request
from meshdev.wire.session_inspect import MAX_REQUESTS, InspectedRequest, InspectRequest, Requests, parse_statuses
from tests.wire.strategies import messages
from tests.wire.test_access import largest

RECORD = AccessRecord(
    time=1_795_000_000_123_456,
    source=IPv4Address("10.244.0.7"),
    port=8080,
    protocol="HTTP/1.1",
    served_by="fallback",
    duration=3_400,
    method="GET",
    authority="b",
    path="/api",
    status=200,
    request_bytes=1,
    response_bytes=12,
    intercept="0123456789abcdef0123456789abcdef",
    reason="fell back: nothing listens on 8080",
    trace_id="f" * 32,
    holder="ann@laptop",
)
INSPECTED = InspectedRequest("default", "deployment/b", "b-1", RECORD, "deployment/a")


def test_what_scripts_read() -> None:
    assert INSPECTED.as_json() == {
        "time": 1_795_000_000.123456,
        "namespace": "default",
        "target": "deployment/b",
        "pod": "b-1",
        "source": {"address": "10.244.0.7", "workload": "deployment/a"},
        "protocol": "HTTP/1.1",
        "method": "GET",
        "authority": "b",
        "path": "/api",
        "status": 200,
        "duration_ms": 3.4,
        "request_bytes": 1,
        "response_bytes": 12,
        "intercept": "0123456789abcdef0123456789abcdef",
        "holder": "ann@laptop",
        "served_by": "fallback",
        "reason": "fell back: nothing listens on 8080",
        "trace_id": "f" * 32,
    }


def test_what_does_not_exist_is_null() -> None:
    record = AccessRecord(1_000_000, IPv4Address("10.0.0.1"), 5432, "tcp", "original", 0)
    found = InspectedRequest("default", "deployment/b", "b-1", record).as_json()
    absent = {"method", "authority", "path", "status", "intercept", "holder", "reason", "trace_id"}
    assert {key for key, value in found.items() if value is None} == absent
    assert found["source"] == {"address": "10.0.0.1", "workload": None}


@given(messages(SCHEMAS[InspectRequest]))
def test_requests_come_as_they_were_sent(request: InspectRequest) -> None:
    assert parse_request(encode_request(request)) == request


@given(messages(SCHEMAS[InspectedRequest]))
def test_events_come_as_they_were_sent(found: InspectedRequest) -> None:
    line = encode_event(Requests((found,), 3))
    assert encode_event(parse_event(line)) == line


@pytest.mark.parametrize("letter", ['"', "\\", "x"])
def test_the_largest_event_is_a_line(letter: str) -> None:
    found = InspectedRequest("n" * 253, letter * 300, "p" * 253, largest(letter), letter * 300)
    assert len(encode_event(Requests((found,) * MAX_REQUESTS, 1 << 53))) < MAX_LINE


@pytest.mark.parametrize(
    "value", [{"target": 7}, {"namespace": "n" * 254}, {"follow": 1}, {"all": None}, {"color": "blue"}]
)
def test_what_is_none_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        parse_request(json.dumps({"op": "inspect", **value}).encode())


@pytest.mark.parametrize(("text", "expected"), [("404", (404, 404)), ("5xx", (500, 599)), ("100", (100, 100))])
def test_statuses(text: str, expected: tuple[int, int]) -> None:
    assert parse_statuses(text) == expected
    assert str(parse_statuses(text)) == text


@pytest.mark.parametrize("text", ["", "5", "5XX", "0xx", "099", "1000", "5xx ", "٥xx", "-1"])
def test_what_is_no_status(text: str) -> None:
    with pytest.raises(ValueError, match="not a status code"):
        parse_statuses(text)
