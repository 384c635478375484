"""Log records of requests and of processes."""

import logging
from typing import Any

import pytest
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk.resources import Resource

from meshdev.telemetry import logs
from tests.telemetry.values import SPAN, TRACE, request

RESOURCE = Resource({"service.name": "meshdev"})


def test_a_request_is_a_line_with_the_ids_of_its_span() -> None:
    asked = request()
    found = logs.of_request(asked, RESOURCE, 7).log_record
    assert found.body == "10.244.0.7 GET /api/orders?a=1 200 3.4 ms ann@laptop"
    assert (found.severity_number, found.severity_text) == (SeverityNumber.INFO, "INFO")
    assert (f"{found.trace_id:032x}", f"{found.span_id:016x}", found.trace_flags) == (TRACE, SPAN, 1)
    assert found.timestamp == (asked.record.time + 3400) * 1000
    assert found.observed_timestamp == 7
    assert (found.attributes or {})["http.response.status_code"] == 200
    assert found.event_name == "meshdev.request"


def test_one_that_is_not_traced_has_no_ids() -> None:
    found = logs.of_request(request(span_id=None, parent_span_id=None, sampled=False), RESOURCE, 7).log_record
    assert (found.trace_id, found.span_id) == (0, 0)


@pytest.mark.parametrize(
    ("changes", "severity", "line"),
    [
        ({"status": 404}, "WARNING", "10.244.0.7 GET /api/orders?a=1 404 3.4 ms ann@laptop"),
        ({"status": 500}, "ERROR", "10.244.0.7 GET /api/orders?a=1 500 3.4 ms ann@laptop"),
        (
            {"served_by": "fallback", "reason": "fell back: nothing listens on 8080"},
            "WARNING",
            "10.244.0.7 GET /api/orders?a=1 200 3.4 ms deployment/b fell back: nothing listens on 8080",
        ),
        (
            {"served_by": "meshdev", "status": 503, "reason": "not-reached"},
            "ERROR",
            "10.244.0.7 GET /api/orders?a=1 503 3.4 ms meshdev (error) not-reached",
        ),
        (
            {"protocol": "tcp", "method": "", "path": "", "status": 0},
            "INFO",
            "10.244.0.7 tcp :8080 - 3.4 ms ann@laptop",
        ),
        ({"path": "/?token=hunter2"}, "INFO", "10.244.0.7 GET /?token=*** 200 3.4 ms ann@laptop"),
        ({"path": "/\x1b[2J"}, "INFO", "10.244.0.7 GET /\\x1b[2J 200 3.4 ms ann@laptop"),
    ],
)
def test_lines(changes: dict[str, Any], severity: str, line: str) -> None:
    found = logs.of_request(request(**changes), RESOURCE, 7).log_record
    assert (found.severity_text, found.body) == (severity, line)


@pytest.mark.parametrize(
    ("level", "severity"),
    [
        (logging.DEBUG, SeverityNumber.DEBUG),
        (logging.INFO, SeverityNumber.INFO),
        (logging.WARNING, SeverityNumber.WARN),
        (logging.ERROR, SeverityNumber.ERROR),
        (logging.CRITICAL, SeverityNumber.FATAL),
        (1, SeverityNumber.DEBUG),
    ],
)
def test_what_a_process_logs(level: int, severity: SeverityNumber) -> None:
    record = logging.LogRecord("meshdev.x", level, "x.py", 1, "at %s\nand token=%s", ("10.1.2.3", "hunter2"), None)
    found = logs.of_process(record, RESOURCE, 7, None).log_record
    assert found.body == "at 10.1.2.3\\nand token=***"
    assert found.severity_number is severity
    assert found.attributes == {"meshdev.logger": "meshdev.x"}
    assert found.timestamp == int(record.created * 1e9)


def test_an_exception_is_named_without_its_secrets() -> None:
    record = logging.LogRecord("meshdev.x", logging.ERROR, "x.py", 1, "it broke", (), None)
    found = logs.of_process(record, RESOURCE, 7, ValueError("https://ann:hunter2@x is wrong")).log_record
    assert found.attributes == {
        "meshdev.logger": "meshdev.x",
        "exception.type": "ValueError",
        "exception.message": "https://***@x is wrong",
    }
