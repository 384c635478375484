"""Entries of Envoy's access log as access records. Pure.

Source: envoy.data.accesslog.v3, as the loggers of meshdev.sidecar.envoy.access_log fill it. An entry may hold whatever
somebody in the pod makes up: all of it is checked and cut, and one of which nothing can be made is no record.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from typing import Any, Final

from envoy.data.accesslog.v3 import accesslog_pb2
from envoy.service.accesslog.v3 import als_pb2
from google.protobuf.message import DecodeError

from meshdev.manager.control.unclaimed import LoggedRequest, UnclaimedRequests
from meshdev.sidecar.envoy import answers, names, noted, trace_context
from meshdev.sidecar.envoy.claims import LiveClaim, pod_port
from meshdev.wire.access import MAX_METHOD, MAX_REASON, AccessProtocol, AccessRecord, ServedBy
from meshdev.wire.agent import PodPort

_HTTP: Final = accesslog_pb2.HTTPAccessLogEntry
_PROTOCOLS: Final[dict[int, AccessProtocol]] = {
    _HTTP.HTTP10: "HTTP/1.0",
    _HTTP.HTTP11: "HTTP/1.1",
    _HTTP.HTTP2: "HTTP/2",
}
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-.{2,}")
#: What the sidecar's own script sends, and what it says of the client's span.
_OWN_TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-((?!0{16})[0-9a-f]{16})-0([0-3])")
_PARENT: Final = re.compile(rf"(?!0{{16}})[0-9a-f]{{16}}|{trace_context.NO_PARENT}")
#: What an end has sent has these details (Envoy, "Response Code Details"); all else is Envoy's own answer.
_VIA_UPSTREAM: Final = "via_upstream"
_CLIENT_ENDED: Final = "the client ended the connection"
_NOBODY: Final = IPv4Address("0.0.0.0")  # noqa: S104 -- no listener: a client whose address is not known
#: From here on a connection to the laptop was given up, and not refused, in microseconds (clusters.py: 0.5 s).
_GIVEN_UP: Final = 450_000
_MAX_TIME: Final = 1 << 53
#: Characters of a text that are looked at; a record keeps fewer.
MAX_TEXT: Final = 4096
#: Bytes and entries of one message that are read, what is more is counted: an Envoy sends 64 KiB and one entry.
MAX_MESSAGE: Final = 256 << 10
MAX_ENTRIES: Final = 1024


@dataclass(frozen=True)
class EnvoyLogs:
    """What one message of a stream brings. ``unread`` are entries that are too many, and messages that are none."""

    requests: tuple[Any, ...] = ()
    connections: tuple[Any, ...] = ()
    unread: int = 0


def parse(data: bytes) -> EnvoyLogs:
    """A StreamAccessLogsMessage. Raises nothing."""
    if len(data) > MAX_MESSAGE:
        return EnvoyLogs(unread=1)
    try:
        message = als_pb2.StreamAccessLogsMessage.FromString(data)
    except DecodeError:
        return EnvoyLogs(unread=1)
    requests, connections = message.http_logs.log_entry, message.tcp_logs.log_entry  # a message has one kind
    unread = max(0, len(requests) - MAX_ENTRIES) + max(0, len(connections) - MAX_ENTRIES)
    return EnvoyLogs(tuple(requests[:MAX_ENTRIES]), tuple(connections[:MAX_ENTRIES]), unread)


@dataclass(frozen=True)
class _Span:
    """What a traced request is in its trace. ``parent`` is None where the trace begins with it."""

    id: str | None = None
    parent: str | None = None
    sampled: bool = False


_NO_SPAN: Final = _Span()


class LoggedPod:
    """The pod whose entries they are, and what is claimed of it, oldest first."""

    def __init__(self, claims: Iterable[LiveClaim]) -> None:
        self._claims = {claim.spec.id: claim for claim in claims}
        self._unclaimed: dict[int, UnclaimedRequests] = {}

    def intercept(self, entry: Any) -> str | None:  # noqa: ANN401 -- protobuf has no types
        """The intercept that matched a request, which may have gone to the original all the same."""
        found: str = entry.common_properties.custom_tags.get(names.INTERCEPT, "")
        return found if found in self._claims else None

    def flow(self, entry: Any) -> str | None:  # noqa: ANN401 -- the same
        """The intercept that takes the bytes of a connection's port."""
        port = _port(entry.common_properties)
        claims = [] if port is None else [each for each in self._claims.values() if each.has(PodPort(port))]
        return next((each.spec.id for each in reversed(claims) if each.spec.mode.takes_bytes), None)

    def request(self, entry: Any) -> AccessRecord | None:  # noqa: ANN401 -- the same
        """A request's record; None where nothing can be made of the entry. Its authority and path are not cut yet:
        before, values of credentials are to be found there."""
        common, request, response = entry.common_properties, entry.request, entry.response
        port = _port(common)
        if port is None:
            return None
        intercept = self.intercept(entry)
        served_by, reason = self._served_by(entry, intercept, port)
        span = self._span(entry, intercept)
        return AccessRecord(
            time=_time(common),
            source=_ipv4(common.downstream_remote_address),
            port=port,
            protocol=_protocol(entry),
            served_by=served_by,
            duration=_microseconds(common.duration),
            method=_method(request)[:MAX_METHOD],
            authority=request.authority[:MAX_TEXT],
            path=request.path[:MAX_TEXT],
            status=min(response.response_code.value, 999),
            request_bytes=_size(request.request_body_bytes),
            response_bytes=_size(response.response_body_bytes),
            intercept=intercept,
            reason=reason,
            trace_id=_trace_id(request.request_headers.get("traceparent", "")),
            span_id=span.id,
            parent_span_id=span.parent,
            sampled=span.sampled,
        )

    def connection(self, entry: Any) -> AccessRecord | None:  # noqa: ANN401 -- the same
        """A connection's record; None where nothing can be made of the entry."""
        common = entry.common_properties
        port = _port(common)
        if port is None:
            return None
        intercept = self.flow(entry)
        served_by: ServedBy = "meshdev"
        reason = ""
        if common.upstream_remote_address == common.downstream_local_address:
            served_by = "original" if intercept is None else "fallback"
            if intercept is not None:
                claim = self._claims[intercept]
                reason = _fell_back(claim, port, common, tried=PodPort(port) in claim.up)
        elif common.response_flags.upstream_connection_failure or not common.HasField("upstream_remote_address"):
            reason = self._not_reached(intercept, port, common)
        else:
            served_by = "laptop"
        return AccessRecord(
            time=_time(common),
            source=_ipv4(common.downstream_remote_address),
            port=port,
            protocol="tcp",
            served_by=served_by,
            duration=_microseconds(common.duration),
            request_bytes=_size(entry.connection_properties.received_bytes),
            response_bytes=_size(entry.connection_properties.sent_bytes),
            intercept=intercept,
            reason=reason,
        )

    def _span(self, entry: Any, intercept: str | None) -> _Span:  # noqa: ANN401 -- the same
        """None's of a request that is not traced: its traceparent is that of its client."""
        claim = self._claims.get(intercept or "")
        sent = _OWN_TRACEPARENT.fullmatch(entry.request.request_headers.get("traceparent", "")[:MAX_TEXT])
        parent = _PARENT.fullmatch(entry.common_properties.custom_tags.get(names.PARENT, "")[:MAX_TEXT])
        if claim is None or not claim.spec.trace or sent is None or parent is None:
            return _NO_SPAN
        return _Span(sent[1], None if parent[0] == trace_context.NO_PARENT else parent[0], bool(int(sent[2]) & 1))

    def _served_by(self, entry: Any, intercept: str | None, port: int) -> tuple[ServedBy, str]:  # noqa: ANN401 -- same
        common, response = entry.common_properties, entry.response
        kind = common.upstream_cluster.partition("_")[0]
        answer = response.response_headers.get(answers.HEADER, "")
        if answer in answers.REASONS and response.response_code_details != _VIA_UPSTREAM:
            return "meshdev", self._not_reached(intercept, port, common) if answer == "not-reached" else answer
        flags = common.response_flags
        if kind == names.LAPTOP:
            return "laptop", _CLIENT_ENDED if flags.downstream_connection_termination else ""
        claim = self._claims.get(intercept or "")
        if claim is not None and kind in {names.ORIGINAL, names.FALLBACK}:
            return "fallback", _fell_back(claim, port, common, tried=kind == names.FALLBACK)
        if kind == names.ORIGINAL:
            request = entry.request
            seen = LoggedRequest(_method(request), _path(request), noted.read(common.metadata))
            return "original", self._unclaimed_on(port).reason(seen)
        return "meshdev", ""

    def _unclaimed_on(self, port: int) -> UnclaimedRequests:
        if port not in self._unclaimed:
            self._unclaimed[port] = UnclaimedRequests(each for each in self._claims.values() if each.has(PodPort(port)))
        return self._unclaimed[port]

    def _not_reached(self, intercept: str | None, port: int, common: Any) -> str:  # noqa: ANN401 -- the same
        """With what is known of the program, else what TLS says."""
        claim = self._claims.get(intercept or "")
        if claim is not None and PodPort(port) not in claim.up:
            return f"not-reached: nothing listens on {_local(claim, port)}"
        why = common.upstream_transport_failure_reason[:MAX_TEXT]
        return f"not-reached: {why}"[:MAX_REASON] if why else "not-reached"


def _fell_back(claim: LiveClaim, port: int, common: Any, *, tried: bool) -> str:  # noqa: ANN401 -- the same
    """Why the original answered. *tried*: the program listened as far as was known; how it failed is not in the entry,
    but how long that took."""
    local = _local(claim, port)
    if not tried:
        return f"fell back: nothing listens on {local}"
    if _microseconds(common.time_to_first_upstream_tx_byte) >= _GIVEN_UP:
        return f"fell back: {claim.holder} did not answer"
    return f"fell back: {claim.holder} refused the connection to {local}"


def _local(claim: LiveClaim, port: int) -> int:
    """The port on the laptop."""
    return next((each.local for each in claim.spec.ports if pod_port(each) == PodPort(port)), port)


def _port(common: Any) -> int | None:  # noqa: ANN401 -- the same
    """As the passthrough proxy said, or by the path of the socket."""
    local = common.downstream_local_address
    if local.HasField("socket_address"):
        port = local.socket_address.port_value
    else:
        text = local.pipe.path[-MAX_TEXT:].rpartition("/")[2]
        port = int(text) if text.isascii() and text.isdecimal() and len(text) <= 5 else 0
    return port if 0 < port < 1 << 16 else None


def _ipv4(address: Any) -> IPv4Address:  # noqa: ANN401 -- the same
    try:
        return IPv4Address(address.socket_address.address[:16])
    except AddressValueError:
        return _NOBODY


def _protocol(entry: Any) -> AccessProtocol:  # noqa: ANN401 -- the same
    kind = entry.request.request_headers.get("content-type", "")
    if entry.protocol_version == _HTTP.HTTP2 and kind.startswith("application/grpc"):
        return "gRPC"
    return _PROTOCOLS.get(entry.protocol_version, "HTTP/1.1")


def _method(request: Any) -> str:  # noqa: ANN401 -- the same
    """The header itself: Envoy has no numbers for methods that are none of HTTP's own."""
    found: str = request.request_headers.get(":method", "")
    return found[:MAX_TEXT]


def _path(request: Any) -> str:  # noqa: ANN401 -- the same
    """Without the query."""
    found: str = request.path[:MAX_TEXT].partition("?")[0]
    return found


def _trace_id(header: str) -> str | None:
    found = _TRACEPARENT.fullmatch(header[:256])
    return found[1] if found is not None else None


def _time(common: Any) -> int:  # noqa: ANN401 -- the same
    return _microseconds(common.start_time)


def _microseconds(value: Any) -> int:  # noqa: ANN401 -- the same
    """Of a Timestamp or a Duration."""
    return int(min(max(value.seconds * 1_000_000 + value.nanos // 1000, 0), _MAX_TIME))


def _size(value: int) -> int:
    return min(value, _MAX_TIME)
