"""URLs and variables that name a receiver."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.errors import UsageError
from meshdev.telemetry.endpoint import OtlpEndpoints, from_environment, parse

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
LOGS = "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"
PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"


@pytest.mark.parametrize(
    ("url", "protocol", "target", "secure"),
    [
        ("http://127.0.0.1:4318", "http", "http://127.0.0.1:4318/v1/traces", False),
        ("http://collector", "http", "http://collector:4318/v1/traces", False),
        ("http://collector.observability:4318/", "http", "http://collector.observability:4318/v1/traces", False),
        ("https://otlp.example.org", "http", "https://otlp.example.org:443/v1/traces", True),
        ("https://otlp.example.org/otlp", "http", "https://otlp.example.org:443/otlp/v1/traces", True),
        ("HTTP://Collector:1", "http", "http://collector:1/v1/traces", False),
        ("http://[::1]:4318", "http", "http://[::1]:4318/v1/traces", False),
        ("grpc://collector", "grpc", "collector:4317", False),
        ("grpc://[fd00::1]", "grpc", "[fd00::1]:4317", False),
        ("grpcs://otlp.example.org:443/", "grpc", "otlp.example.org:443", True),
    ],
)
def test_urls(url: str, protocol: str, target: str, secure: bool) -> None:
    found = parse(url, logs=False)
    assert found.traces is not None
    assert (found.traces.protocol, found.traces.target, found.traces.secure) == (protocol, target, secure)
    assert found.logs is None
    assert found.all() == (found.traces,)


def test_logs_go_to_the_same_receiver() -> None:
    found = parse("http://collector/otlp", logs=True)
    assert str(found.traces) == "http://collector:4318/otlp/v1/traces"
    assert str(found.logs) == "http://collector:4318/otlp/v1/logs"
    found = parse("grpcs://collector", logs=True)
    assert found.traces == found.logs
    assert str(found.logs) == "grpcs://collector:4317"


@pytest.mark.parametrize(
    "url",
    [
        *("", "collector:4317", "127.0.0.1:4318", "//collector", "ftp://collector", "http://", "http://:4318"),
        *(
            "http://collector:0",
            "http://collector:65536",
            "http://collector:x",
            "http://a b",
            "http://[::1",
            "http://ü",
        ),
        *("http://collector/a b", "unix:///run/otlp.sock", "http://collector\n:1", "grpc://collector\x1b[2J"),
    ],
)
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(url, logs=True)
    assert "\n" not in caught.value.message
    assert "\x1b" not in caught.value.message
    assert "grpc://HOST:4317" in str(caught.value.hint)


@pytest.mark.parametrize(
    "url",
    [
        *("http://ann:hunter2@collector:4318", "grpc://hunter2@collector", "http://collector/?token=hunter2"),
        *("http://collector/#hunter2", "https://user:hunter2@[::1", "ftp://hunter2@x"),
    ],
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    """Arguments of processes can be read by everybody."""
    with pytest.raises(UsageError) as caught:
        parse(url, logs=False)
    assert "hunter2" not in f"{caught.value.message} {caught.value.hint}"
    assert "OTEL_EXPORTER_OTLP_HEADERS" in str(caught.value.hint)


def test_a_path_is_nothing_for_grpc() -> None:
    with pytest.raises(UsageError, match="path"):
        parse("grpc://collector/v1/traces", logs=False)


@given(st.text(max_size=80))
def test_any_text_is_a_url_or_an_error(text: str) -> None:
    try:
        found = parse(text, logs=True)
    except UsageError:
        return
    assert found.traces is not None
    assert found.traces.host


@pytest.mark.parametrize(
    ("environ", "traces", "logs"),
    [
        ({}, None, None),
        ({ENDPOINT: ""}, None, None),
        ({ENDPOINT: "http://c:4318"}, "http://c:4318/v1/traces", None),
        ({ENDPOINT: "http://c", "OTEL_LOGS_EXPORTER": "otlp"}, "http://c:4318/v1/traces", "http://c:4318/v1/logs"),
        ({ENDPOINT: "http://c:4317", PROTOCOL: "grpc"}, "grpc://c:4317", None),
        ({ENDPOINT: "https://c:4317", PROTOCOL: "grpc"}, "grpcs://c:4317", None),
        ({ENDPOINT: "grpc://c"}, "grpc://c:4317", None),
        # OTLP exporter: an endpoint of one signal is used as it is.
        ({TRACES: "http://c:4318/api/spans"}, "http://c:4318/api/spans", None),
        ({TRACES: "http://c:4318"}, "http://c:4318/", None),
        ({LOGS: "http://loki:3100/otlp/v1/logs"}, None, "http://loki:3100/otlp/v1/logs"),
        ({ENDPOINT: "http://c", LOGS: "http://l:1/x"}, "http://c:4318/v1/traces", "http://l:1/x"),
        ({ENDPOINT: "http://c", LOGS: "http://l:1/x", "OTEL_LOGS_EXPORTER": "none"}, "http://c:4318/v1/traces", None),
        (
            {ENDPOINT: "http://c:1", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc", "OTEL_LOGS_EXPORTER": "otlp"},
            "grpc://c:1",
            "http://c:1/v1/logs",
        ),
        ({ENDPOINT: "http://c", "OTEL_TRACES_EXPORTER": "none"}, None, None),
        ({ENDPOINT: "http://c", "OTEL_SDK_DISABLED": "true"}, None, None),
    ],
)
def test_the_standard_environment(environ: dict[str, str], traces: str | None, logs: str | None) -> None:
    found = from_environment(environ)
    assert [None if each is None else str(each) for each in (found.traces, found.logs)] == [traces, logs]
    assert isinstance(found, OtlpEndpoints)


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({ENDPOINT: "http://c", PROTOCOL: "http/json"}, PROTOCOL),
        ({ENDPOINT: "collector:4317"}, ENDPOINT),
        ({TRACES: "collector:4317", ENDPOINT: "http://c"}, TRACES),
    ],
)
def test_an_environment_that_is_wrong_names_its_variable(environ: dict[str, str], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        from_environment(environ)
