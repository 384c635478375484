"""A request of a traced intercept as an OpenTelemetry span: the way from its pod to whoever served it. Pure.

The record has the ids, which the sidecar made or continued (W3C Trace Context), so nothing is drawn here. Names and
attributes are those of the semantic conventions for HTTP server spans; what is only ours begins with ``meshdev.``.
"""

import re
from typing import Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.semconv.attributes import (
    client_attributes,
    error_attributes,
    http_attributes,
    k8s_attributes,
    network_attributes,
    server_attributes,
    url_attributes,
)
from opentelemetry.semconv.schemas import Schemas
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from meshdev.config import VERSION
from meshdev.observe.records import masked
from meshdev.wire.access import AccessProtocol, AccessRecord
from meshdev.wire.session_inspect import InspectedRequest

SCOPE: Final = InstrumentationScope("meshdev", VERSION, schema_url=Schemas.V1_44_0.value)
INTERCEPT: Final = "meshdev.intercept"
HOLDER: Final = "meshdev.holder"
SERVED_BY: Final = "meshdev.served_by"
WORKLOAD: Final = "meshdev.workload"
REASON: Final = "meshdev.reason"

#: Others are told apart by http.request.method_original, so that clients cannot make up names of spans.
_METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}  # RFC 9110, 5789, …
)
_VERSIONS: Final[dict[AccessProtocol, str]] = {"HTTP/1.0": "1.0", "HTTP/1.1": "1.1", "HTTP/2": "2", "gRPC": "2"}
_AUTHORITY: Final = re.compile(r"(?:.*@)?(\[[0-9A-Fa-f:.]+\]|[^:@\s]+)(?::([0-9]{1,5}))?")
#: Where a request's authority names no port: what is claimed is HTTP without TLS.
_HTTP_PORT: Final = 80
_OTHER: Final = "_OTHER"

Attributes = dict[str, str | int]


def span(found: InspectedRequest, resource: Resource) -> ReadableSpan | None:
    """The span of a request; None where it is none, or its client does not want it sampled."""
    record = found.record
    own = own_context(record)
    if own is None or not record.sampled:
        return None
    return ReadableSpan(
        name=_name(record),
        context=own,
        parent=_parent(record, own),
        resource=resource,
        attributes=attributes(found),
        kind=SpanKind.SERVER,
        status=_status(record),
        start_time=record.time * 1000,
        end_time=(record.time + record.duration) * 1000,
        instrumentation_scope=SCOPE,
    )


def own_context(record: AccessRecord) -> SpanContext | None:
    """The ids of its span; None where its intercept is not traced."""
    if record.span_id is None or record.trace_id is None:
        return None
    flags = TraceFlags(TraceFlags.SAMPLED if record.sampled else TraceFlags.DEFAULT)
    return SpanContext(int(record.trace_id, 16), int(record.span_id, 16), is_remote=False, trace_flags=flags)


def attributes(found: InspectedRequest) -> Attributes:
    """Of a request, without values of credentials."""
    record = masked(found.record)
    path, _, query = record.path.partition("?")
    host, port = _server(record.authority)
    wanted: dict[str, str | int | None] = {
        http_attributes.HTTP_REQUEST_METHOD: (record.method if record.method in _METHODS else _OTHER)
        if record.method
        else None,
        http_attributes.HTTP_REQUEST_METHOD_ORIGINAL: None if record.method in _METHODS else record.method,
        http_attributes.HTTP_RESPONSE_STATUS_CODE: record.status,
        url_attributes.URL_SCHEME: "http" if record.protocol != "tcp" else None,
        url_attributes.URL_PATH: path,
        url_attributes.URL_QUERY: query,
        server_attributes.SERVER_ADDRESS: host,
        server_attributes.SERVER_PORT: port,
        client_attributes.CLIENT_ADDRESS: str(record.source),
        network_attributes.NETWORK_PROTOCOL_NAME: "http" if record.protocol in _VERSIONS else None,
        network_attributes.NETWORK_PROTOCOL_VERSION: _VERSIONS.get(record.protocol),
        network_attributes.NETWORK_LOCAL_PORT: record.port,
        error_attributes.ERROR_TYPE: _error_type(record),
        k8s_attributes.K8S_NAMESPACE_NAME: found.namespace,
        k8s_attributes.K8S_POD_NAME: found.pod,
        WORKLOAD: found.target,
        INTERCEPT: record.intercept,
        HOLDER: record.holder,
        SERVED_BY: record.served_by,
        REASON: record.reason,
    }
    return {name: value for name, value in wanted.items() if value not in (None, "", 0)}


def failed(record: AccessRecord) -> bool:
    """Whether it is an error of who served it: no answer, one of 5xx, or the sidecar's own."""
    return record.protocol != "tcp" and (record.served_by == "meshdev" or record.status >= 500 or record.status == 0)


def _name(record: AccessRecord) -> str:
    """Of low cardinality: paths are what clients make up."""
    return record.method if record.method in _METHODS else "HTTP"


def _parent(record: AccessRecord, own: SpanContext) -> SpanContext | None:
    if record.parent_span_id is None:
        return None
    return SpanContext(own.trace_id, int(record.parent_span_id, 16), is_remote=True, trace_flags=own.trace_flags)


def _status(record: AccessRecord) -> Status:
    if not failed(record):
        return Status(StatusCode.UNSET)  # an answer of 4xx is the client's error
    return Status(StatusCode.ERROR, record.reason or None)


def _error_type(record: AccessRecord) -> str | None:
    if not failed(record):
        return None
    return str(record.status) if record.status >= 500 else _OTHER


def _server(authority: str) -> tuple[str | None, int | None]:
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        return None, None
    port = int(found[2]) if found[2] else _HTTP_PORT
    return found[1], port if port < 1 << 16 else None
