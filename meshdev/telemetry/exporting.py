"""Sending spans and logs by OTLP: OpenTelemetry's batch processors and exporters, with their losses counted.

Whoever offers something never waits, and nothing here ends anything: of each signal at most MAX_WAITING items wait, a
thread sends them, and what a receiver does not take within its timeout (10 s, OTEL_EXPORTER_OTLP_TIMEOUT) is lost.
Headers, certificates, compression and timeouts are those of OpenTelemetry's standard environment, which the exporters
read themselves.
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter, LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from meshdev.config import VERSION
from meshdev.errors import LaptopError
from meshdev.telemetry import causes, logs, spans
from meshdev.telemetry.endpoint import OtlpEndpoint, OtlpEndpoints, Signal
from meshdev.telemetry.signals import SignalState
from meshdev.wire.session_inspect import InspectedRequest

if TYPE_CHECKING:
    from meshdev.telemetry.transport import ReceiverSession

log = logging.getLogger(__name__)

#: Items of one signal that wait or are being sent: a span takes some 3 KB.
MAX_WAITING: Final = 2048
_BATCH: Final = 512
_DELAY_MS: Final = 1000
#: What was offered last is sent within so many seconds when it ends; a receiver that takes nothing is not waited for.
_FLUSH_SECONDS: Final = 2.0
_OTEL: Final = logging.getLogger("opentelemetry")


class _Counted:
    """How one signal fares. Of two threads: whoever offers, and the one that sends."""

    def __init__(self, signal: Signal, endpoint: OtlpEndpoint) -> None:
        self._lock = threading.Lock()
        self._endpoint = endpoint
        self._waiting = 0
        self.state = SignalState(signal, str(endpoint))

    def may_wait(self) -> bool:
        """Whether there is room for one more, which then waits; else it is dropped, and counted."""
        with self._lock:
            if self._waiting >= MAX_WAITING:
                self.state = replace(self.state, dropped=self.state.dropped + 1)
                return False
            self._waiting += 1
            return True

    def missed(self, count: int) -> None:
        """So many requests were not recorded."""
        with self._lock:
            self.state = replace(self.state, unrecorded=self.state.unrecorded + count)

    def send(self, count: int, export: Callable[[], bool]) -> bool:
        """In the thread that sends. Whether the receiver took them."""
        with _FAILURES.reporting_to(self.fails):
            try:
                sent = export()
            except Exception as error:  # noqa: BLE001 -- a thread's edge: whatever it is, these are lost, and counted
                self.fails(f"internal error: {error!r}")
                sent = False
        if not sent:
            self.fails(self.state.trouble or "no reason is known")
        with self._lock:
            before, self._waiting = self.state, self._waiting - count
            self.state = _sent(before, count) if sent else replace(before, failed=before.failed + count)
        if sent and before.trouble is not None:
            log.warning("%s are sent to %s again; %d were lost", before.noun, before.endpoint, self.state.lost)
        return sent

    def fails(self, why: str) -> None:
        """It takes nothing at the moment; it may be tried again. Logged once, until it takes something."""
        with self._lock:
            before, advice = self.state, causes.advice(self._endpoint, why)
            self.state = replace(before, trouble=why, since=before.since or time.time(), advice=advice)
        if before.trouble is None:
            log.warning("%s", self.state.text())


def _sent(state: SignalState, count: int) -> SignalState:
    return replace(state, sent=state.sent + count, trouble=None, since=None, advice=None)


class _Failures(logging.Handler):
    """Why exporters fail: they log it, and tell nobody else. One of the process.

    What they log is not repeated as it is: a line about headers that cannot be read has these in it.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._listeners: dict[int, Callable[[str], None]] = {}

    def listen(self) -> None:
        """To all of OpenTelemetry's loggers, instead of whoever has listened."""
        _OTEL.addHandler(self)
        _OTEL.propagate = False

    @contextmanager
    def reporting_to(self, report: Callable[[str], None]) -> Iterator[None]:
        """*report* gets what exporters in this thread log within the block."""
        self._listeners[threading.get_ident()] = report
        try:
            yield
        finally:
            del self._listeners[threading.get_ident()]

    def emit(self, record: logging.LogRecord) -> None:
        """Its cause, where there is one in it."""
        found = causes.cause(record.args if isinstance(record.args, tuple) else ())
        if found is not None:
            self._listeners.get(threading.get_ident(), _nobody)(found)


def _nobody(_: str) -> None:
    pass


_FAILURES: Final = _Failures()


class _CountedSpans(SpanExporter):
    def __init__(self, exporter: SpanExporter, counted: _Counted) -> None:
        self._exporter = exporter
        self._counted = counted

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        sent = self._counted.send(len(spans), lambda: self._exporter.export(spans) is SpanExportResult.SUCCESS)
        return SpanExportResult.SUCCESS if sent else SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self._exporter.shutdown()


class _CountedLogs(LogRecordExporter):
    def __init__(self, exporter: LogRecordExporter, counted: _Counted) -> None:
        self._exporter = exporter
        self._counted = counted

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        sent = self._counted.send(len(batch), lambda: self._exporter.export(batch) is LogRecordExportResult.SUCCESS)
        return LogRecordExportResult.SUCCESS if sent else LogRecordExportResult.FAILURE

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # the SDK declares no type for it

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002 -- the SDK's signature
        """Nothing waits here."""
        return True


@dataclass(frozen=True)
class _Sender:
    """What is needed of a signal's processor and exporter."""

    counted: _Counted
    flush: Callable[[], object]
    shutdown: Callable[[], object]
    abort: Callable[[], object]
    """Whatever is tried again ends now."""


class Telemetry:
    """Both signals of one process. Made once; :meth:`close` ends it."""

    def __init__(self, endpoints: OtlpEndpoints) -> None:
        """Raises LaptopError where the environment has a value that OpenTelemetry does not take."""
        os.environ.setdefault("GRPC_VERBOSITY", "ERROR")  # or gRPC writes on stderr what is counted here
        _FAILURES.listen()
        self._resource = _resource()
        self._spans: BatchSpanProcessor | None = None
        self._logs: BatchLogRecordProcessor | None = None
        self._senders: list[_Sender] = []
        try:
            if endpoints.traces is not None:
                self._spans = self._for_spans(endpoints.traces)
            if endpoints.logs is not None:
                self._logs = self._for_logs(endpoints.logs)
        except Exception as error:  # the SDK raises whatever comes of a variable that it cannot read
            raise LaptopError(
                f"OTLP cannot be sent: {type(error).__name__}: {error}",
                hint="look at the variables OTEL_EXPORTER_OTLP_…",
            ) from error
        # It would drop what the other signal's exporter has just logged, too.
        logging.getLogger("opentelemetry.exporter.otlp.proto.grpc.exporter").filters.clear()
        self._handler = _Handler(self._log) if self._logs is not None else None
        if self._handler is not None:
            logging.getLogger("meshdev").addHandler(self._handler)

    @property
    def states(self) -> tuple[SignalState, ...]:
        """How each signal fares."""
        return tuple(each.counted.state for each in self._senders)

    def request(self, found: InspectedRequest) -> None:
        """A request is over: its span, where it is one, and its log."""
        span = spans.span(found, self._resource) if self._spans is not None else None
        if span is not None and self._spans is not None and self._counted("traces").may_wait():
            self._spans.on_end(span)
        if self._logs is not None and self._counted("logs").may_wait():
            self._logs.on_emit(logs.of_request(found, self._resource, time.time_ns()))

    def missed(self, count: int) -> None:
        """So many requests more were over, of which nothing is known."""
        for each in self._senders:
            each.counted.missed(count)

    async def flush(self) -> None:
        """Send what waits, within _FLUSH_SECONDS; a receiver that takes nothing is not waited for."""
        await self._within([each.flush for each in self._working()])

    async def close(self) -> None:
        """Send what waits, as :meth:`flush`, and end."""
        if self._handler is not None:
            logging.getLogger("meshdev").removeHandler(self._handler)
        await self._within([each.shutdown for each in self._working()])
        for each in self._senders:
            each.abort()

    def _working(self) -> list[_Sender]:
        return [each for each in self._senders if each.counted.state.trouble is None]

    @staticmethod
    async def _within(work: Sequence[Callable[[], object]]) -> None:
        """Each in a thread of its own that the process does not wait for when it ends."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        left = len(work)

        def ended() -> None:
            nonlocal left
            left -= 1
            if not left:
                done.set()

        def run(one: Callable[[], object]) -> None:
            one()
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(ended)

        for one in work:
            threading.Thread(target=run, args=(one,), daemon=True).start()
        if work:
            waiting = asyncio.ensure_future(done.wait())
            try:
                await asyncio.wait((waiting,), timeout=_FLUSH_SECONDS)
            finally:
                waiting.cancel()

    def _counted(self, signal: Signal) -> _Counted:
        return next(each.counted for each in self._senders if each.counted.state.signal == signal)

    def _log(self, record: logging.LogRecord) -> None:
        exception = record.exc_info[1] if record.exc_info else None
        if self._logs is not None and self._counted("logs").may_wait():
            self._logs.on_emit(logs.of_process(record, self._resource, time.time_ns(), exception))

    def _for_spans(self, endpoint: OtlpEndpoint) -> BatchSpanProcessor:
        counted = _Counted("traces", endpoint)
        exporter = _CountedSpans(_span_exporter(endpoint), counted)
        processor = BatchSpanProcessor(
            exporter, MAX_WAITING, schedule_delay_millis=_DELAY_MS, max_export_batch_size=_BATCH
        )
        self._senders.append(_Sender(counted, processor.force_flush, processor.shutdown, exporter.shutdown))
        return processor

    def _for_logs(self, endpoint: OtlpEndpoint) -> BatchLogRecordProcessor:
        counted = _Counted("logs", endpoint)
        exporter = _CountedLogs(_log_exporter(endpoint), counted)
        processor = BatchLogRecordProcessor(
            exporter, schedule_delay_millis=_DELAY_MS, max_export_batch_size=_BATCH, max_queue_size=MAX_WAITING
        )
        self._senders.append(_Sender(counted, processor.force_flush, processor.shutdown, exporter.shutdown))
        return processor


class _Handler(logging.Handler):
    """What this process logs goes where its logs are sent, too."""

    def __init__(self, take: Callable[[logging.LogRecord], None]) -> None:
        super().__init__()
        self._take = take

    def emit(self, record: logging.LogRecord) -> None:
        """It waits for nobody."""
        self._take(record)


def _resource() -> Resource:
    """Ours, and what OTEL_RESOURCE_ATTRIBUTES adds. OTEL_SERVICE_NAME is that of the developer's own program."""
    return Resource.create({"service.name": "meshdev", "service.version": VERSION})


def _span_exporter(endpoint: OtlpEndpoint) -> SpanExporter:
    # Each takes 6 to 15 MB: only the one that is needed.
    if endpoint.protocol == "http":
        from opentelemetry.exporter.otlp.proto.http import trace_exporter as http  # noqa: PLC0415 -- as said

        return http.OTLPSpanExporter(endpoint.target, session=_session())
    from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc  # noqa: PLC0415 -- as said

    return grpc.OTLPSpanExporter(endpoint.target, insecure=not endpoint.secure)


def _session() -> "ReceiverSession":
    from meshdev.telemetry.transport import ReceiverSession  # noqa: PLC0415 -- as said

    return ReceiverSession()


def _log_exporter(endpoint: OtlpEndpoint) -> LogRecordExporter:
    if endpoint.protocol == "http":
        from opentelemetry.exporter.otlp.proto.http import _log_exporter as http  # noqa: PLC0415 -- as said

        return http.OTLPLogExporter(endpoint.target, session=_session())
    from opentelemetry.exporter.otlp.proto.grpc import _log_exporter as grpc  # noqa: PLC0415 -- as said

    return grpc.OTLPLogExporter(endpoint.target, insecure=not endpoint.secure)
