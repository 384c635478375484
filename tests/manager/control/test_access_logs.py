"""Entries of Envoy's access log: where a request went and why, and that no entry does harm."""

import json
from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any, Final

import pytest
from envoy.data.accesslog.v3 import accesslog_pb2
from envoy.service.accesslog.v3 import als_pb2
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from meshdev.intercept.spec import Port
from meshdev.manager.control.access_logs import MAX_ENTRIES, MAX_MESSAGE, EnvoyLogs, LoggedPod, parse
from meshdev.sidecar.envoy import answers
from meshdev.sidecar.envoy.claims import LiveClaim
from meshdev.wire.access import AccessRecord, AccessRecords
from meshdev.wire.agent import PodPort
from meshdev.wire.message import dump, load
from meshdev.wire.modes import PROXY
from tests.manager.claims import spec

CLAIM: Final = spec("a")
OTHER: Final = spec("b")
TRACED: Final = replace(spec("d"), trace=True)
BYTES: Final = spec("c", Port(7000, "tcp", 7001), mode=PROXY)
POD: Final = LoggedPod(
    (
        LiveClaim(CLAIM, "ann@laptop", (), frozenset({PodPort(8080)})),
        LiveClaim(OTHER, "bob@laptop", (), frozenset()),
        LiveClaim(TRACED, "ann@laptop", (), frozenset({PodPort(8080)})),
        LiveClaim(BYTES, "eve@laptop", (), frozenset({PodPort(7000)})),
    )
)
LOCAL: Final = {"socketAddress": {"address": "10.244.0.7", "portValue": 8080}}
COMMON: Final = {
    "downstreamRemoteAddress": {"socketAddress": {"address": "10.244.1.3", "portValue": 43210}},
    "downstreamLocalAddress": LOCAL,
    "startTime": "2026-01-01T00:00:00.000001Z",
    "duration": "0.002500s",
    "upstreamCluster": "original_8080",
}


def entry(common: dict[str, Any] | None = None, response: dict[str, Any] | None = None, **more: Any) -> Any:
    value = {
        "commonProperties": {**COMMON, **(common or {})},
        "protocolVersion": "HTTP11",
        "request": {"authority": "b", "path": "/x?y=1", "requestHeaders": {":method": "GET"}},
        "response": {"responseCode": 200, "responseCodeDetails": "via_upstream", **(response or {})},
        **more,
    }
    return json_format.ParseDict(value, accesslog_pb2.HTTPAccessLogEntry())


def record(*args: Any, **more: Any) -> AccessRecord:
    found = POD.request(entry(*args, **more))
    assert found is not None
    return found


def of(one: Any, cluster: str, **more: Any) -> dict[str, Any]:
    """What an entry has of an intercept's request."""
    return {"customTags": {"intercept": one.id}, "upstreamCluster": f"{cluster}_8080_{one.id}", **more}


def test_what_a_request_was() -> None:
    trace = "ab" * 16
    headers = {":method": "PURGE", "traceparent": f"00-{trace}-{'1' * 16}-01", "content-type": "application/grpc+proto"}
    request = {"authority": "b:80", "path": "/x", "requestHeaders": headers, "requestBodyBytes": "3"}
    response = {"responseCode": 418, "responseBodyBytes": "14"}
    found = record(of(CLAIM, "laptop"), response, request=request, protocolVersion="HTTP2")
    assert found == AccessRecord(
        1_767_225_600_000_001,
        IPv4Address("10.244.1.3"),
        8080,
        "gRPC",
        "laptop",
        2500,
        "PURGE",
        "b:80",
        "/x",
        418,
        3,
        14,
        CLAIM.id,
        "",
        trace,
    )


@pytest.mark.parametrize(
    ("version", "kind", "protocol"),
    [
        ("HTTP10", "", "HTTP/1.0"),
        ("HTTP11", "application/grpc", "HTTP/1.1"),
        ("HTTP2", "text/html", "HTTP/2"),
        ("HTTP2", "application/grpc", "gRPC"),
        ("HTTP3", "", "HTTP/1.1"),
    ],
)
def test_its_protocol(version: str, kind: str, protocol: str) -> None:
    assert record(protocolVersion=version, request={"requestHeaders": {"content-type": kind}}).protocol == protocol


SLOW: Final = {"timeToFirstUpstreamTxByte": "1.003s"}
ANSWER: Final = {"responseCode": 503, "responseCodeDetails": "x", "responseHeaders": {answers.HEADER: "not-reached"}}
LOST: Final = {**ANSWER, "responseHeaders": {answers.HEADER: "connection-lost"}}
ENDED: Final = {"responseFlags": {"downstreamConnectionTermination": True}}
TLS: Final = {"upstreamTransportFailureReason": "TLS_error: bad certificate"}


@pytest.mark.parametrize(
    ("common", "response", "served_by", "intercept", "reason"),
    [
        ({}, {}, "original", None, "header a does not match"),
        (of(CLAIM, "laptop"), {}, "laptop", CLAIM.id, ""),
        (of(CLAIM, "fallback"), {}, "fallback", CLAIM.id, "fell back: ann@laptop refused the connection to 3000"),
        (of(CLAIM, "fallback", **SLOW), {}, "fallback", CLAIM.id, "fell back: ann@laptop did not answer"),
        (of(OTHER, "original"), {}, "fallback", OTHER.id, "fell back: nothing listens on 3000"),
        (of(CLAIM, "laptop"), ANSWER, "meshdev", CLAIM.id, "not-reached"),
        (of(CLAIM, "laptop", **TLS), ANSWER, "meshdev", CLAIM.id, "not-reached: TLS_error: bad certificate"),
        (of(OTHER, "nobody"), ANSWER, "meshdev", OTHER.id, "not-reached: nothing listens on 3000"),
        ({}, LOST, "meshdev", None, "connection-lost"),
        ({}, {**LOST, "responseCodeDetails": "via_upstream"}, "original", None, "header a does not match"),
        ({}, {**LOST, "responseHeaders": {answers.HEADER: "made-up"}}, "original", None, "header a does not match"),
        ({"upstreamCluster": ""}, {}, "meshdev", None, ""),
        (of(spec("z"), "laptop"), {}, "laptop", None, ""),
        (of(spec("z"), "fallback"), {}, "meshdev", None, ""),
        (of(CLAIM, "laptop", **ENDED), {"responseCode": 0}, "laptop", CLAIM.id, "the client ended the connection"),
    ],
)
def test_where_it_went(
    common: dict[str, Any], response: dict[str, Any], served_by: str, intercept: str | None, reason: str
) -> None:
    found = record(common, response)
    assert (found.served_by, found.intercept, found.reason) == (served_by, intercept, reason)


RELAY: Final = {"socketAddress": {"address": "10.244.0.9", "portValue": 15011}}


def at(port: int) -> dict[str, Any]:
    return {"socketAddress": {"address": "10.244.0.7", "portValue": port}}


@pytest.mark.parametrize(
    ("port", "more", "served_by", "reason"),
    [
        (7000, {"upstreamRemoteAddress": RELAY}, "laptop", ""),
        (7000, {"upstreamRemoteAddress": at(7000)}, "fallback", "fell back: eve@laptop refused the connection to 7001"),
        (7002, {"upstreamRemoteAddress": at(7002)}, "original", ""),
        (7000, {}, "meshdev", "not-reached"),
        (
            7000,
            {"upstreamRemoteAddress": RELAY, "responseFlags": {"upstreamConnectionFailure": True}, **TLS},
            "meshdev",
            "not-reached: TLS_error: bad certificate",
        ),
    ],
)
def test_connections(port: int, more: dict[str, Any], served_by: str, reason: str) -> None:
    value = {
        "commonProperties": {**COMMON, "downstreamLocalAddress": at(port), **more},
        "connectionProperties": {"receivedBytes": "5", "sentBytes": "7"},
    }
    found = POD.connection(json_format.ParseDict(value, accesslog_pb2.TCPAccessLogEntry()))
    assert found is not None
    assert (found.served_by, found.reason, found.intercept) == (served_by, reason, BYTES.id if port == 7000 else None)
    assert (found.protocol, found.status, found.request_bytes, found.response_bytes) == ("tcp", 0, 5, 7)


@pytest.mark.parametrize(
    ("local", "port"),
    [
        (LOCAL, 8080),
        ({"pipe": {"path": "/tmp/meshdev-x/8080"}}, 8080),
        ({"pipe": {"path": "/tmp/meshdev-x/99999"}}, None),
        ({"pipe": {"path": "/tmp/x"}}, None),
        ({"pipe": {"path": "/tmp/\u0663"}}, None),
        (at(0), None),
        (at(70000), None),
        ({}, None),
    ],
)
def test_which_port_it_was(local: dict[str, Any], port: int | None) -> None:
    found = POD.request(entry({"downstreamLocalAddress": local}))
    assert (found.port if found else None) == port


@pytest.mark.parametrize(
    ("header", "trace"),
    [
        (f"00-{'ab' * 16}-{'12' * 8}-01", "ab" * 16),
        (f"cc-{'ab' * 16}-{'12' * 8}-01-what-a-later-version-has", "ab" * 16),
        (f"00-{'00' * 16}-{'12' * 8}-01", None),
        (f"00-{'AB' * 16}-{'12' * 8}-01", None),
        (f"00-{'ab' * 15}-{'12' * 8}-01", None),
        ("", None),
    ],
)
def test_traces(header: str, trace: str | None) -> None:
    assert record(request={"requestHeaders": {"traceparent": header}}).trace_id == trace


SPAN: Final = "b7ad6b7169203331"
PARENT: Final = "00f067aa0ba902b7"


def traced(one: Any, header: str, parent: str | None) -> AccessRecord:
    tags = {"intercept": one.id, **({} if parent is None else {"parent": parent})}
    return record(of(one, "laptop", customTags=tags), request={"requestHeaders": {"traceparent": header}})


def span(found: AccessRecord) -> tuple[str | None, str | None, bool]:
    return found.span_id, found.parent_span_id, found.sampled


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True)])
@pytest.mark.parametrize(("parent", "found"), [(PARENT, PARENT), ("none", None)])
def test_requests_of_traced_claims_are_spans(*, flags: str, sampled: bool, parent: str, found: str | None) -> None:
    one = traced(TRACED, f"00-{'ab' * 16}-{SPAN}-{flags}", parent)
    assert (one.trace_id, *span(one)) == ("ab" * 16, SPAN, found, sampled)


@pytest.mark.parametrize(
    ("header", "parent"),
    [
        *((f"00-{'ab' * 16}-{SPAN}-01", parent) for parent in (None, "", "0" * 16, PARENT[1:], f"{PARENT}0", "x" * 9)),
        *((f"00-{'ab' * 16}-{SPAN}-01", parent) for parent in (PARENT.upper(), f"{PARENT}\n", "none ", "x" * 100_000)),
        (f"00-{'00' * 16}-{SPAN}-01", PARENT),
        (f"00-{'ab' * 16}-{'0' * 16}-01", PARENT),
        (f"01-{'ab' * 16}-{SPAN}-01", PARENT),
        (f"00-{'ab' * 16}-{SPAN}-04", PARENT),
        (f"00-{'ab' * 16}-{SPAN}-01-", PARENT),
        (f"00-{'ab' * 16}-{SPAN.upper()}-01", PARENT),
        ("", PARENT),
    ],
)
def test_what_no_sidecar_sends_is_no_span(header: str, parent: str | None) -> None:
    """The script failed, or somebody in the pod made it up."""
    assert span(traced(TRACED, header, parent)) == (None, None, False)


def test_requests_of_others_are_no_spans() -> None:
    header = f"00-{'ab' * 16}-{SPAN}-01"
    assert span(traced(CLAIM, header, PARENT)) == (None, None, False)
    unclaimed = record({"customTags": {"parent": PARENT}}, request={"requestHeaders": {"traceparent": header}})
    assert (unclaimed.trace_id, *span(unclaimed)) == ("ab" * 16, None, None, False)


def test_a_client_whose_address_nobody_said() -> None:
    for address in ({"pipe": {"path": "/x"}}, {}, {"socketAddress": {"address": "fe80::1", "portValue": 1}}):
        assert record({"downstreamRemoteAddress": address}).source == IPv4Address("0.0.0.0")


TEXTS = st.text(max_size=40) | st.sampled_from(["laptop_8080", "original_8080", CLAIM.id, "x" * 100_000])
NUMBERS = st.integers(0, (1 << 32) - 1)
LARGE = st.integers(0, (1 << 64) - 1)
ADDRESSES: Final[st.SearchStrategy[dict[str, Any]]] = st.one_of(
    st.just({}),
    TEXTS.map(lambda text: {"pipe": {"path": text}}),
    st.tuples(TEXTS, NUMBERS).map(lambda ends: {"socketAddress": {"address": ends[0], "portValue": ends[1]}}),
    st.just(LOCAL),
)
ENTRIES = st.fixed_dictionaries(
    {
        "commonProperties": st.fixed_dictionaries(
            {
                "downstreamRemoteAddress": ADDRESSES,
                "downstreamLocalAddress": ADDRESSES,
                "upstreamRemoteAddress": ADDRESSES,
                "upstreamCluster": TEXTS,
                "customTags": st.dictionaries(
                    st.sampled_from(["intercept", "parent"]), TEXTS | st.sampled_from([TRACED.id, "1" * 16, "none"])
                ),
                "upstreamTransportFailureReason": TEXTS,
            }
        ),
        "protocolVersion": st.integers(0, 5),
        "request": st.fixed_dictionaries(
            {
                "authority": TEXTS,
                "path": TEXTS,
                "requestBodyBytes": LARGE,
                "requestHeaders": st.dictionaries(
                    st.sampled_from([":method", "traceparent", "content-type"]),
                    TEXTS | st.just(f"00-{'1' * 32}-{'2' * 16}-01"),
                ),
            }
        ),
        "response": st.fixed_dictionaries(
            {
                "responseCode": NUMBERS,
                "responseBodyBytes": LARGE,
                "responseHeaders": st.dictionaries(st.just(answers.HEADER), st.sampled_from(sorted(answers.REASONS))),
            }
        ),
    }
)


@given(ENTRIES, st.integers(-(1 << 63), (1 << 63) - 1), st.integers(-(1 << 31), (1 << 31) - 1))
def test_whatever_an_entry_holds_its_record_can_be_sent(value: dict[str, Any], seconds: int, nanos: int) -> None:
    made = json_format.ParseDict(value, accesslog_pb2.HTTPAccessLogEntry())
    common = made.common_properties
    for each in (common.start_time, common.duration, common.time_to_first_upstream_tx_byte):
        each.seconds, each.nanos = seconds, nanos
    connection = accesslog_pb2.TCPAccessLogEntry(common_properties=common)
    for found in (POD.request(made), POD.connection(connection)):
        if found is not None:
            load(AccessRecords, json.loads(json.dumps(dump(AccessRecords((found,))))))


def test_a_stream_s_message() -> None:
    message = als_pb2.StreamAccessLogsMessage()
    message.http_logs.log_entry.append(entry())
    logs = parse(message.SerializeToString())
    assert (len(logs.requests), len(logs.connections), logs.unread) == (1, 0, 0)


@given(st.binary())
def test_any_bytes_are_taken_or_counted(data: bytes) -> None:
    assert parse(data).unread in {0, 1}


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\x7f", b"\x12\x04\x0a\x02\x12\xff"])
def test_what_is_no_message_is_counted(data: bytes) -> None:
    assert parse(data) == EnvoyLogs(unread=1)


def test_of_a_message_with_too_many_entries_the_first_are_read() -> None:
    """Each takes two bytes, and much more of time and memory."""
    for begin in (b"\x12", b"\x1a"):  # http_logs, tcp_logs
        for count in (MAX_ENTRIES, MAX_ENTRIES + 7, (MAX_MESSAGE - 8) // 2):
            body = b"\x0a\x00" * count
            size = bytes((len(body) & 127 | 128, len(body) >> 7 & 127 | 128, len(body) >> 14))
            logs = parse(begin + size + body)
            assert (len(logs.requests) + len(logs.connections), logs.unread) == (MAX_ENTRIES, count - MAX_ENTRIES)


def test_a_message_that_no_envoy_sends_is_not_read() -> None:
    assert parse(b"\x12" + b"\x80" * MAX_MESSAGE) == EnvoyLogs(unread=1)
