"""Spans of requests: ids, names and attributes of the semantic conventions."""

from typing import Any

import pytest
from hypothesis import given
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import SpanKind
from opentelemetry.trace.status import StatusCode

from meshdev.telemetry.spans import attributes, span
from meshdev.wire.access import AccessRecord
from meshdev.wire.message import SCHEMAS
from meshdev.wire.session_inspect import InspectedRequest
from tests.telemetry.values import INTERCEPT, PARENT, SPAN, TRACE, request
from tests.wire.strategies import messages

RESOURCE = Resource({"service.name": "meshdev"})


def test_a_request_is_a_span() -> None:
    asked = request()
    found = span(asked, RESOURCE)
    assert found is not None
    assert found.context is not None
    assert (f"{found.context.trace_id:032x}", f"{found.context.span_id:016x}") == (TRACE, SPAN)
    assert found.parent is not None
    assert (f"{found.parent.trace_id:032x}", f"{found.parent.span_id:016x}") == (TRACE, PARENT)
    assert found.parent.is_remote
    assert (found.name, found.kind) == ("GET", SpanKind.SERVER)
    assert found.start_time == asked.record.time * 1000
    assert found.end_time == found.start_time + 3_400_000
    assert found.status.status_code is StatusCode.UNSET
    assert dict(found.attributes or {}) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "url.path": "/api/orders",
        "url.query": "a=1",
        "server.address": "b.shop",
        "server.port": 8000,
        "client.address": "10.244.0.7",
        "network.protocol.name": "http",
        "network.protocol.version": "1.1",
        "network.local.port": 8080,
        "k8s.namespace.name": "shop",
        "k8s.pod.name": "b-1",
        "meshdev.workload": "deployment/b",
        "meshdev.intercept": INTERCEPT,
        "meshdev.holder": "ann@laptop",
        "meshdev.served_by": "laptop",
    }


def test_a_trace_that_begins_here_has_no_parent() -> None:
    found = span(request(parent_span_id=None), RESOURCE)
    assert found is not None
    assert found.parent is None


@pytest.mark.parametrize("changes", [{"sampled": False}, {"span_id": None}, {"trace_id": None}])
def test_what_is_not_traced_is_no_span(changes: dict[str, Any]) -> None:
    assert span(request(**changes), RESOURCE) is None


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"status": 200}, StatusCode.UNSET, None),
        ({"status": 404}, StatusCode.UNSET, None),
        ({"status": 500}, StatusCode.ERROR, "500"),
        ({"status": 503, "served_by": "meshdev", "reason": "not-reached"}, StatusCode.ERROR, "503"),
        ({"status": 404, "served_by": "meshdev", "reason": "x"}, StatusCode.ERROR, "_OTHER"),
        ({"status": 0, "reason": "the client ended the connection"}, StatusCode.ERROR, "_OTHER"),
        ({"served_by": "fallback", "reason": "fell back: nothing listens on 8080"}, StatusCode.UNSET, None),
    ],
)
def test_errors_are_those_of_who_served_it(changes: dict[str, Any], status: StatusCode, error: str | None) -> None:
    found = span(request(**changes), RESOURCE)
    assert found is not None
    assert found.status.status_code is status
    assert (found.attributes or {}).get("error.type") == error
    assert (found.attributes or {}).get("meshdev.reason") == changes.get("reason")
    if status is StatusCode.ERROR:
        assert found.status.description == changes.get("reason")


@pytest.mark.parametrize(
    ("changes", "name", "wanted"),
    [
        ({"method": "QUERY"}, "QUERY", {"http.request.method": "QUERY"}),
        ({"method": "get"}, "HTTP", {"http.request.method": "_OTHER", "http.request.method_original": "get"}),
        ({"method": "MADE-UP"}, "HTTP", {"http.request.method": "_OTHER", "http.request.method_original": "MADE-UP"}),
        ({"protocol": "gRPC", "method": "POST"}, "POST", {"network.protocol.version": "2"}),
        ({"authority": "[fd00::1]:80"}, "GET", {"server.address": "[fd00::1]", "server.port": 80}),
        ({"authority": "b"}, "GET", {"server.address": "b", "server.port": 80}),
        ({"authority": "ann:secret@b:81"}, "GET", {"server.address": "b", "server.port": 81}),
    ],
)
def test_names_and_attributes(changes: dict[str, Any], name: str, wanted: dict[str, Any]) -> None:
    found = span(request(**changes), RESOURCE)
    assert found is not None
    assert found.name == name
    assert wanted.items() <= dict(found.attributes or {}).items()


def test_credentials_are_masked_whoever_made_the_record() -> None:
    found = attributes(request(path="/login?token=hunter2&a=1", authority="ann:hunter2@b"))
    assert found["url.query"] == "token=***&a=1"
    assert "hunter2" not in repr(found)


@given(messages(SCHEMAS[AccessRecord]))
def test_every_record_can_be_encoded(record: AccessRecord) -> None:
    found = span(InspectedRequest("shop", "deployment/b", "b-1", record), RESOURCE)
    assert (found is not None) == (record.sampled and record.span_id is not None and record.trace_id is not None)
    if found is not None and found.context is not None:
        (sent,) = encode_spans([found]).resource_spans[0].scope_spans[0].spans
        assert sent.span_id.hex() == record.span_id
        assert len(sent.attributes) == len(found.attributes or {})
