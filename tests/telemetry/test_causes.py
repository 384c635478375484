"""What to do about a receiver that takes nothing; test_exporting.py has what exporters really log."""

from dataclasses import replace

import pytest

from meshdev.telemetry import causes
from meshdev.telemetry.endpoint import parse
from meshdev.telemetry.signals import SignalState


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("spans", 404, "Not Found"), "HTTP 404 Not Found"),
        (("spans", 400, "Bad\r\nRequest"), "HTTP 400 Bad\\r\\nRequest"),
        ((OSError("[Errno 111] Connection refused"), "spans", 1.0), "Connection refused"),
        ((ValueError("x" * 999), "spans", 1.0), "x" * 200),
        (("Service Unavailable", "spans", 0.9), "Service Unavailable"),
        (("spans",), None),
        ((), None),
        (("Authorization=hunter2",), None),
    ],
)
def test_causes(arguments: tuple[object, ...], cause: str | None) -> None:
    assert causes.cause(arguments) == cause


@pytest.mark.parametrize(
    ("url", "why", "advice"),
    [
        ("http://c:4317", "BadStatusLine", "grpc://c:4317"),
        ("grpc://[::1]:4318", "UNAVAILABLE: Failed parsing HTTP/2", "http://[::1]:4318"),
        ("https://c", "WRONG_VERSION_NUMBER", "use http://"),
        ("https://c", "certificate verify failed: self-signed certificate", "OTEL_EXPORTER_OTLP_CERTIFICATE"),
        ("http://c", "HTTP 401 Unauthorized", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("grpc://c", "UNAUTHENTICATED: no", "OTEL_EXPORTER_OTLP_HEADERS"),
        ("http://c", "HTTP 404 Not Found", "no OTLP receiver"),
        ("http://c", "Connection refused", None),
    ],
)
def test_advice(url: str, why: str, advice: str | None) -> None:
    endpoint = parse(url, logs=False).traces
    assert endpoint is not None
    found = causes.advice(endpoint, why)
    assert (found is None) if advice is None else (advice in str(found))


def test_notes_of_a_signal() -> None:
    state = SignalState("traces", "http://c:4318/v1/traces", sent=3)
    assert state.note() is None
    lost = SignalState("traces", "http://c:4318/v1/traces", sent=3, failed=1, dropped=1)
    assert lost.note() == "2 spans were lost, of 5 for http://c:4318/v1/traces"
    unrecorded = "3 requests were too many to be recorded, and have no spans"
    assert replace(lost, unrecorded=3).note() == f"2 spans were lost, of 5 for http://c:4318/v1/traces; {unrecorded}"
    assert replace(state, unrecorded=3).note() == unrecorded
    away = SignalState("logs", "grpc://c:4317", failed=1200, trouble="no", since=0.0, advice="do it")
    assert str(away.note()).startswith("logs do not reach grpc://c:4317 since ")
    assert str(away.note()).endswith(": no (do it); 1,200 were lost")
