"""Logs as OpenTelemetry's log records: one of each request, and what a process of ours logs. Pure.

Requests have the ids of their spans, so that a receiver shows both together.
"""

import re
from typing import Final, Protocol

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import ReadWriteLogRecord
from opentelemetry.sdk.resources import Resource
from opentelemetry.semconv.attributes import exception_attributes
from opentelemetry.trace import NonRecordingSpan, set_span_in_context

from meshdev.observe import masking
from meshdev.observe.records import masked
from meshdev.telemetry import spans
from meshdev.text import visible
from meshdev.wire.access import AccessRecord
from meshdev.wire.session_inspect import InspectedRequest

#: Characters of a line.
MAX_LINE: Final = 2048
_REQUEST: Final = "meshdev.request"
_LOGGER: Final = "meshdev.logger"
_NOWHERE: Final = Context()
#: Of Python's levels, the highest first.
_SEVERITIES: Final = (
    (50, SeverityNumber.FATAL, "CRITICAL"),
    (40, SeverityNumber.ERROR, "ERROR"),
    (30, SeverityNumber.WARN, "WARNING"),
    (20, SeverityNumber.INFO, "INFO"),
    (0, SeverityNumber.DEBUG, "DEBUG"),
)
_SPACES: Final = re.compile(r" {2,}")


class Logged(Protocol):
    """What is needed of :class:`logging.LogRecord`; ``created`` is in seconds since 1970."""

    name: str
    levelno: int
    created: float

    def getMessage(self) -> str:  # noqa: N802 -- logging's own name
        """The message with its arguments."""


def of_request(found: InspectedRequest, resource: Resource, now: int) -> ReadWriteLogRecord:
    """A request that is over; *now* is in nanoseconds since 1970."""
    record = masked(found.record)
    if spans.failed(record):
        severity, text = SeverityNumber.ERROR, "ERROR"
    elif record.served_by == "fallback" or record.status >= 400:
        severity, text = SeverityNumber.WARN, "WARNING"
    else:
        severity, text = SeverityNumber.INFO, "INFO"
    log = LogRecord(
        timestamp=(record.time + record.duration) * 1000,
        observed_timestamp=now,
        context=_context(record),
        severity_number=severity,
        severity_text=text,
        body=line(found),
        attributes=spans.attributes(found),
        event_name=_REQUEST,
    )
    return ReadWriteLogRecord(log, resource=resource, instrumentation_scope=spans.SCOPE)


def _context(record: AccessRecord) -> Context:
    """That of its span, where it has one."""
    own = spans.own_context(record)
    return set_span_in_context(NonRecordingSpan(own), _NOWHERE) if own is not None else _NOWHERE


def line(found: InspectedRequest) -> str:
    """A request in one line, with what ``inspect`` shows of it, without values of credentials."""
    record = masked(found.record)
    to = found.target
    match record.served_by:
        case "laptop":
            to = record.holder or "laptop"
        case "meshdev":
            to = "meshdev (error)"
    cells = (
        found.workload or str(record.source),
        record.method or record.protocol,
        record.path or f":{record.port}",
        str(record.status or "-"),
        f"{record.duration / 1000:.1f} ms",
        to,
        record.reason,
    )
    return _SPACES.sub(" ", visible(" ".join(each for each in cells if each)))[:MAX_LINE]


def of_process(record: Logged, resource: Resource, now: int, exception: BaseException | None) -> ReadWriteLogRecord:
    """What a logger was given. Values of credentials are masked there, too; *now* as above."""
    _, severity, text = next(each for each in _SEVERITIES if record.levelno >= each[0])
    attributes = {_LOGGER: record.name}
    if exception is not None:
        attributes[exception_attributes.EXCEPTION_TYPE] = type(exception).__name__
        attributes[exception_attributes.EXCEPTION_MESSAGE] = _shown(str(exception))
    log = LogRecord(
        timestamp=int(record.created * 1e9),
        observed_timestamp=now,
        context=_NOWHERE,
        severity_number=severity,
        severity_text=text,
        body=_shown(record.getMessage()),
        attributes=attributes,
    )
    return ReadWriteLogRecord(log, resource=resource, instrumentation_scope=spans.SCOPE)


def _shown(text: str) -> str:
    return visible(masking.text(text, MAX_LINE))[:MAX_LINE]
