"""What control sends by OTLP, and where it is told to."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from meshdev.intercept.spec import Port
from meshdev.manager.control import exports
from meshdev.manager.control.pods import HeldClaim
from meshdev.sidecar.envoy.claims import LiveClaim
from tests.manager.claims import spec
from tests.otlp_receiver import receiving
from tests.telemetry.values import SPAN, TRACE
from tests.telemetry.values import request as a_request

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


def test_a_variable_that_is_wrong_is_logged_and_nothing_is_sent(caplog: pytest.LogCaptureFixture) -> None:
    assert exports.endpoints({ENDPOINT: "collector:4317"}) == exports.NOWHERE
    assert ENDPOINT in caplog.text
    assert "grpc://HOST:4317" in caplog.text
    assert exports.opened(exports.NOWHERE) is None


async def test_requests_of_claims_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    claim = LiveClaim(spec("b", Port(8080, "http", 3000)), "ann@laptop", (), frozenset())
    held = HeldClaim("x", claim, False, 1, session=IPv4Address("198.18.0.2"), pod="b-1")
    record = replace(a_request().record, intercept=claim.spec.id)
    with receiving() as receiver:
        opened = exports.opened(exports.endpoints({ENDPOINT: receiver.http, "OTEL_LOGS_EXPORTER": "otlp"}))
        assert opened is not None
        opened.request(exports.request(held, record))
        await opened.close()
        receiver.received.until(lambda got: len(got.spans) == 1 and len(got.logs) == 1)
        (span,) = receiver.received.spans
    assert (span.trace, span.id) == (TRACE, SPAN)
    assert span.attributes["k8s.pod.name"] == "b-1"
    assert span.attributes["k8s.namespace.name"] == claim.spec.workload.namespace
    assert span.attributes["meshdev.workload"] == str(claim.spec.workload)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")
    assert exports.opened(exports.endpoints({ENDPOINT: "grpc://c"})) is None
