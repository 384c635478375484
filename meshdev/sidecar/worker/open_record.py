"""One request or connection that is being recorded, and the access record that is made of it."""

import re
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Final, Protocol

from meshdev.observe import masking, reasons
from meshdev.sidecar.passthrough.http1 import RequestHead
from meshdev.sidecar.worker.port import PassthroughPort
from meshdev.wire.access import MAX_METHOD, AccessProtocol, AccessRecord, ServedBy

#: W3C Trace Context, 3.2.
_TRACEPARENT: Final = re.compile(rb"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
_ABSOLUTE: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)(.*)")


class RecordedConnection(Protocol):
    """A client's connection."""

    port: PassthroughPort
    address: tuple[str, int]

    @property
    def carried(self) -> tuple[int, int]:
        """Bytes that came from the client, and those for it, up to now."""

    def watch(self, *, on: bool) -> None:
        """A watch begins or ends."""


class EndOfRecords(Protocol):
    """Who made it (:class:`~meshdev.sidecar.worker.recorder.Recorder`)."""

    def end(self, record: "OpenRecord") -> None:
        """It is over."""


class OpenRecord:
    """A request or connection that is not over. Those who carry it count here."""

    __slots__ = (
        *("_recorder", "authority", "began", "carried", "connection", "duration", "explain", "head", "method"),
        *("path", "protocol", "reason", "request_bytes", "response_bytes", "served_by", "status", "time", "trace_id"),
    )

    def __init__(self, recorder: EndOfRecords, connection: RecordedConnection, protocol: AccessProtocol) -> None:
        self._recorder = recorder
        self.connection = connection
        self.protocol = protocol
        self.served_by: ServedBy = "original"
        self.head: RequestHead | None = None
        """What the rest is still to be made of, and why no claim takes it, as things were when it came."""
        self.explain: Callable[[RequestHead], str | None] = lambda _: None
        self.time = self.began = self.duration = 0.0
        self.method = self.authority = self.path = self.reason = ""
        self.trace_id: str | None = None
        self.status = self.request_bytes = self.response_bytes = 0
        self.carried: tuple[int, int] | None = None
        """What the connection had carried when it was followed no further; None as long as it is followed."""

    def end(self) -> None:
        """It is over."""
        self._recorder.end(self)


def describe(record: OpenRecord) -> None:
    """Say of a request where it goes, why, and in which trace. It does not refer to its head any more."""
    head, record.head = record.head, None
    if head is None:
        return
    target, host = head.target, b""
    for name, value in head.headers:
        if name == b"host":
            host = value
        elif name == b"traceparent" and (found := _TRACEPARENT.fullmatch(value)) is not None:
            record.trace_id = found[1].decode()
    if (absolute := _ABSOLUTE.fullmatch(target)) is not None:
        host, target = absolute[1], absolute[2] or b"/"
    record.method = masking.text(_latin1(head.method), MAX_METHOD)
    record.authority = masking.authority(_latin1(host))
    record.path = masking.text(_latin1(target))
    reason = record.explain(head)
    if reason is None:
        record.served_by, record.reason = "fallback", reasons.NO_ENVOY
    else:
        record.reason = reason


def made(record: OpenRecord) -> AccessRecord:
    describe(record)
    connection = record.connection
    return AccessRecord(
        time=round(record.time * 1e6),
        source=IPv4Address(connection.address[0]),
        port=connection.port.app[1],
        protocol=record.protocol,
        served_by=record.served_by,
        duration=max(0, round(record.duration * 1e6)),
        method=record.method,
        authority=record.authority,
        path=record.path,
        status=record.status,
        request_bytes=record.request_bytes,
        response_bytes=record.response_bytes,
        reason=record.reason,
        trace_id=record.trace_id,
    )


def _latin1(found: bytes) -> str:
    """Each byte a character: what is no ASCII is replaced when it is sent."""
    return found.decode("latin-1")
