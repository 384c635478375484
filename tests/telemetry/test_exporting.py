"""Exporting to a real receiver: what it gets, what is lost, and that nobody waits."""

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

from meshdev.errors import LaptopError
from meshdev.telemetry.endpoint import parse
from meshdev.telemetry.exporting import MAX_WAITING, Telemetry
from meshdev.telemetry.signals import SignalState
from tests.otlp_receiver import Receiver, receiving
from tests.telemetry.values import PARENT, SPAN, TRACE, request

PROTOCOLS = pytest.mark.parametrize("protocol", ["http", "grpc"])


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


class _Kept(logging.Handler):
    """What reaches the root: pytest's own handler also gets what does not propagate."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.records.append(record)


@pytest.fixture
def log() -> Iterator[_Kept]:
    kept = _Kept()
    logging.getLogger().addHandler(kept)
    yield kept
    logging.getLogger().removeHandler(kept)


async def until(telemetry: Telemetry, holds: Callable[[SignalState], bool], seconds: float = 10) -> SignalState:
    """The state of the first signal, once it is so."""
    async with asyncio.timeout(seconds):
        while not holds(telemetry.states[0]):  # noqa: ASYNC110 -- it changes in another thread
            await asyncio.sleep(0.01)
    return telemetry.states[0]


@PROTOCOLS
async def test_spans_and_logs_arrive(receiver: Receiver, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test,service.name=mine")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    telemetry = Telemetry(parse(getattr(receiver, protocol), logs=True))
    telemetry.request(request())
    logging.getLogger("meshdev.test").warning("something is wrong with token=hunter2")
    await telemetry.close()
    receiver.received.until(lambda got: len(got.spans) == 1 and len(got.logs) == 2)
    (span,) = receiver.received.spans
    assert (span.trace, span.id, span.parent, span.over) == (TRACE, SPAN, PARENT, protocol)
    assert (span.resource["service.name"], span.resource["service.version"]) == ("meshdev", "0.1.0")
    assert span.resource["deployment.environment.name"] == "test"
    line, own = receiver.received.logs
    assert (line.trace, line.span, line.event) == (TRACE, SPAN, "meshdev.request")
    assert (own.body, own.text) == ("something is wrong with token=***", "WARNING")
    headers = receiver.received.headers
    assert headers["authorization"] == "Bearer abc"
    if protocol == "http":  # gRPC shows nobody how it was compressed
        assert headers["content-encoding"] == "gzip"
    assert [(each.sent, each.lost, each.trouble) for each in telemetry.states] == [(1, 0, None), (2, 0, None)]
    logging.getLogger("meshdev.test").warning("after its end")  # goes nowhere, and breaks nothing


async def test_without_logs_there_are_none(receiver: Receiver) -> None:
    telemetry = Telemetry(parse(receiver.http, logs=False))
    telemetry.request(request())
    telemetry.request(request(sampled=False))
    await telemetry.flush()
    await telemetry.close()
    receiver.received.until(lambda got: len(got.spans) == 1)
    assert receiver.received.logs == []
    assert len(telemetry.states) == 1


@PROTOCOLS
async def test_a_receiver_goes_and_comes_back(protocol: str, log: _Kept) -> None:
    with receiving() as first:
        url, ports = getattr(first, protocol), {"http_port": first.http_port, "grpc_port": first.grpc_port}
    telemetry = Telemetry(parse(url, logs=False))
    telemetry.request(request())
    state = await until(telemetry, lambda each: each.trouble is not None)
    assert "Connection refused" in (state.trouble or "")
    assert state.note() == state.text()
    assert state.note() is not None
    assert url.rpartition("/")[2] in str(state.note())
    with receiving(**ports) as again:
        await until(telemetry, lambda each: each.sent == 1, 15)
        assert (telemetry.states[0].trouble, telemetry.states[0].note()) == (None, None)
        again.received.until(lambda got: len(got.spans) == 1)
    await telemetry.close()
    texts = [each.getMessage() for each in log.records if each.name == "meshdev.telemetry.exporting"]
    assert len(texts) == 2, "once that it is away, once that it is back"
    assert "Connection refused" in texts[0]
    assert "again" in texts[1]
    assert [each for each in log.records if each.name.startswith("opentelemetry")] == []


async def test_what_is_too_much_is_dropped_and_counted() -> None:
    telemetry = Telemetry(parse("http://127.0.0.1:1", logs=False))
    began = time.monotonic()
    for _ in range(MAX_WAITING + 500):
        telemetry.request(request())
    assert time.monotonic() - began < 2, "nobody waited"
    state = telemetry.states[0]
    assert (state.sent, state.dropped) == (0, 500)
    await until(telemetry, lambda each: each.trouble is not None)
    assert "500" in str(telemetry.states[0].note())
    began = time.monotonic()
    await telemetry.close()
    assert time.monotonic() - began < 2, "a receiver that takes nothing is not waited for"


async def test_a_slow_receiver_is_not_waited_for_long(receiver: Receiver) -> None:
    receiver.delay = 5
    telemetry = Telemetry(parse(receiver.http, logs=False))
    telemetry.request(request())
    began = time.monotonic()
    await telemetry.close()
    assert time.monotonic() - began < 4.5
    assert [each.text() for each in telemetry.states if each.sent] == []


@pytest.mark.parametrize(("answer", "trouble"), [(401, "HTTP 401"), (400, "HTTP 400"), (404, "HTTP 404")])
async def test_what_a_receiver_refuses_is_lost_and_counted(receiver: Receiver, answer: int, trouble: str) -> None:
    receiver.answer = answer
    telemetry = Telemetry(parse(receiver.http, logs=False))
    telemetry.request(request())
    state = await until(telemetry, lambda each: each.failed == 1)
    assert (state.trouble or "").startswith(trouble)
    assert ("OTEL_EXPORTER_OTLP_HEADERS" in str(state.note())) == (answer == 401)
    receiver.answer = 200
    telemetry.request(request())
    state = await until(telemetry, lambda each: each.sent == 1)
    assert state.note() is not None, "that one was lost stays visible"
    assert state.note() == state.text()
    await telemetry.close()


async def test_a_redirect_is_no_success(receiver: Receiver) -> None:
    receiver.answer, receiver.location = 308, "https://ann:hunter2@otlp.example.org/v1/traces"
    telemetry = Telemetry(parse(receiver.http, logs=False))
    telemetry.request(request())
    state = await until(telemetry, lambda each: each.failed == 1)
    assert state.trouble == "HTTP 308, a redirect to https://otlp.example.org"
    assert "use the URL" in str(state.note())
    await telemetry.close()


@pytest.mark.parametrize(
    ("scheme", "port", "advice"),
    [
        ("grpc", "http_port", "does not speak gRPC"),
        ("http", "grpc_port", "does not speak HTTP"),
        ("https", "http_port", "does not speak TLS"),
        ("grpcs", "grpc_port", "does not speak TLS"),
    ],
)
async def test_the_wrong_port_is_told(receiver: Receiver, scheme: str, port: str, advice: str) -> None:
    telemetry = Telemetry(parse(f"{scheme}://127.0.0.1:{getattr(receiver, port)}", logs=False))
    telemetry.request(request())
    state = await until(telemetry, lambda each: each.trouble is not None)
    assert advice in str(state.note())
    await telemetry.close()


async def test_a_variable_that_is_wrong_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")
    with pytest.raises(LaptopError, match="soon"):
        Telemetry(parse("grpc://127.0.0.1:1", logs=True))


async def test_headers_that_cannot_be_read_are_not_repeated(
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    log: _Kept,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "hunter2")
    telemetry = Telemetry(parse(receiver.http, logs=True))
    telemetry.request(request())
    await telemetry.close()
    receiver.received.until(lambda got: len(got.spans) == 1)
    assert "hunter2" not in repr([each.getMessage() for each in log.records])
    assert "hunter2" not in "".join(capfd.readouterr())
    assert "hunter2" not in repr(receiver.received.logs)


def test_an_unreachable_receiver_does_not_keep_a_process() -> None:
    code = (
        "import asyncio\n"
        "from meshdev.telemetry.endpoint import parse\n"
        "from meshdev.telemetry.exporting import Telemetry\n"
        "from tests.telemetry.values import request\n"
        "async def main():\n"
        "    telemetry = Telemetry(parse('http://127.0.0.1:1', logs=True))\n"
        "    telemetry.request(request())\n"
        "    print('ending', flush=True)\n"
        "    await telemetry.close()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ending\n"
        began = time.monotonic()
        assert process.wait(20) == 0
        assert time.monotonic() - began < 5


async def test_whatever_an_exporter_raises_is_a_loss_that_is_counted(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    telemetry = Telemetry(parse(receiver.http, logs=False))

    def broken(*_: object) -> None:
        raise ValueError("no")

    with monkeypatch.context() as patch:
        patch.setattr(OTLPSpanExporter, "export", broken)
        telemetry.request(request())
        state = await until(telemetry, lambda each: each.failed == 1)
    assert state.trouble == "internal error: ValueError('no')"
    telemetry.request(request())
    assert (await until(telemetry, lambda each: each.sent == 1)).trouble is None
    await telemetry.close()


@pytest.mark.parametrize(("scheme", "port"), [("https", "http_port"), ("grpcs", "grpc_port")])
async def test_tls_with_a_certificate_of_ones_own(
    scheme: str, port: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = tmp_path / "both.pem"
    command = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=receiver"
    words = [*command.split(), "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(both), "-out", str(both)]
    await asyncio.to_thread(subprocess.run, ["openssl", *words], check=True, capture_output=True)
    with receiving(certificate=both) as receiver:
        url = f"{scheme}://127.0.0.1:{getattr(receiver, port)}"
        telemetry = Telemetry(parse(url, logs=False))
        telemetry.request(request())
        state = await until(telemetry, lambda each: each.trouble is not None)
        assert "OTEL_EXPORTER_OTLP_CERTIFICATE" in str(state.note()), "nobody has signed it whom this machine trusts"
        await telemetry.close()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(both))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "nothing.pem"))  # for others, however wrong
        telemetry = Telemetry(parse(url, logs=False))
        telemetry.request(request())
        await until(telemetry, lambda each: each.sent == 1)
        await telemetry.close()
        receiver.received.until(lambda got: len(got.spans) == 1)
