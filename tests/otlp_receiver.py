"""An OTLP receiver for tests, for HTTP with protobuf and for gRPC: it parses strictly, and keeps what it got.

As a program (``python -m tests.otlp_receiver ADDRESS HTTP_PORT GRPC_PORT``) it prints each span and log as a line of
JSON, and ``{"error": …}`` for what is not as it should be.
"""

import gzip
import json
import re
import ssl
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

Json = dict[str, Any]
Attributes = dict[str, Any]

#: OTLP: a day is more than any clock here is wrong by.
_DAY: Final = 86_400 * 10**9
#: The semantic conventions' names of what is sent, and ours.
_ATTRIBUTE: Final = re.compile(
    r"(?:http\.(?:request\.method(?:_original)?|response\.status_code)|url\.(?:scheme|path|query)"
    r"|(?:server|client)\.(?:address|port)|network\.(?:protocol\.(?:name|version)|local\.port|peer\.(?:address|port))"
    r"|error\.type|k8s\.(?:namespace|pod)\.name|exception\.(?:type|message)|user_agent\.original"
    r"|meshdev\.(?:intercept|holder|served_by|workload|reason|logger))"
)


@dataclass(frozen=True)
class Span:
    """A span as it came, ids in hexadecimal digits."""

    trace: str
    id: str
    parent: str
    name: str
    kind: int
    start: int
    end: int
    status: int
    message: str
    attributes: Attributes
    resource: Attributes
    scope: str
    over: str


@dataclass(frozen=True)
class Log:
    """A log record as it came."""

    time: int
    severity: int
    text: str
    body: str
    trace: str
    span: str
    event: str
    attributes: Attributes
    resource: Attributes
    over: str


@dataclass
class Received:
    """All that came, and the headers of the last request. ``errors`` are what is not as OTLP wants it."""

    spans: list[Span] = field(default_factory=list)
    logs: list[Log] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    requests: int = 0
    on_news: Callable[[Json], None] = lambda _: None

    def take(self, request: Any, headers: dict[str, str], over: str) -> None:
        """One export request, of spans or of logs."""
        self.headers = headers
        self.requests += 1
        self.on_news({"request": over, "authorization": headers.get("authorization")})
        try:
            found: list[Span] | list[Log]
            if hasattr(request, "resource_spans"):
                found = list(_spans(request, over))
                self.spans += found
            else:
                found = list(_logs(request, over))
                self.logs += found
            for each in found:
                self.on_news({type(each).__name__.lower(): asdict(each)})
        except AssertionError as error:
            self.errors.append(str(error))
            self.on_news({"error": str(error)})

    def until(self, holds: Callable[["Received"], bool], seconds: float = 10) -> None:
        """Wait until that holds, and nothing is wrong."""
        deadline = time.monotonic() + seconds
        while not holds(self):
            assert self.errors == []
            assert time.monotonic() < deadline, (len(self.spans), len(self.logs), self.requests)
            time.sleep(0.01)  # it is filled by other threads
        assert self.errors == []


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise AssertionError(what)


def _spans(request: Any, over: str) -> Iterator[Span]:
    _require(len(request.resource_spans) > 0, "no resource spans")
    for of_resource in request.resource_spans:
        resource = _resource(of_resource)
        for of_scope in of_resource.scope_spans:
            _require(of_scope.scope.name != "", "a scope without a name")
            _require(of_scope.schema_url.startswith("https://opentelemetry.io/schemas/1."), "no schema")
            for span in of_scope.spans:
                _check_span(span, ours=of_scope.scope.name == "meshdev")
                yield Span(
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.name,
                    span.kind,
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    span.status.code,
                    span.status.message,
                    _attributes(span.attributes, ours=of_scope.scope.name == "meshdev"),
                    resource,
                    of_scope.scope.name,
                    over,
                )


def _check_span(span: Any, *, ours: bool) -> None:
    _require(len(span.trace_id) == 16 and any(span.trace_id), "a trace id of 16 bytes that is not zero")
    _require(len(span.span_id) == 8 and any(span.span_id), "a span id of 8 bytes that is not zero")
    _require(len(span.parent_span_id) in (0, 8), "a parent's id of 8 bytes or none")
    _require(span.parent_span_id != span.span_id, "a span is not its own parent")
    _require(0 < span.start_time_unix_nano <= span.end_time_unix_nano, "times in order")
    _require(abs(time.time_ns() - span.end_time_unix_nano) < _DAY, "a time of today, in nanoseconds")
    _require(1 <= span.kind <= 5, "a kind")
    _require(span.flags & 0x100 != 0, "flags that say whether the parent is remote")
    if ours:
        _require(span.kind == 2, "SPAN_KIND_SERVER")
        _require(bool(span.flags & 0x200) == bool(span.parent_span_id), "a parent is remote")
        _require(re.fullmatch(r"[A-Z]{2,8}", span.name) is not None, f"a name of few kinds, not {span.name}")


def _logs(request: Any, over: str) -> Iterator[Log]:
    _require(len(request.resource_logs) > 0, "no resource logs")
    for of_resource in request.resource_logs:
        resource = _resource(of_resource)
        for of_scope in of_resource.scope_logs:
            _require(of_scope.scope.name == "meshdev", "its scope")
            for log in of_scope.log_records:
                _require(log.time_unix_nano > 0 and log.observed_time_unix_nano > 0, "times")
                _require(abs(time.time_ns() - log.time_unix_nano) < _DAY, "a time of today, in nanoseconds")
                _require(1 <= log.severity_number <= 24 and log.severity_text != "", "a severity")
                _require(log.body.string_value != "" and "\n" not in log.body.string_value, "a body of one line")
                _require((len(log.trace_id), len(log.span_id)) in ((0, 0), (16, 8)), "both ids or none")
                yield Log(
                    log.time_unix_nano,
                    log.severity_number,
                    log.severity_text,
                    log.body.string_value,
                    log.trace_id.hex(),
                    log.span_id.hex(),
                    log.event_name,
                    _attributes(log.attributes, ours=True),
                    resource,
                    over,
                )


def _resource(found: Any) -> Attributes:
    resource = _attributes(found.resource.attributes, ours=False)
    _require(resource.get("service.name", "") != "", "service.name")
    return resource


def _attributes(found: Any, *, ours: bool) -> Attributes:
    result: Attributes = {}
    for each in found:
        _require(each.key not in result, f"{each.key} twice")
        _require(not ours or _ATTRIBUTE.fullmatch(each.key) is not None, f"{each.key} is no convention's")
        kind = each.value.WhichOneof("value")
        _require(kind in ("string_value", "int_value", "bool_value", "double_value"), f"{each.key} is {kind}")
        result[each.key] = getattr(each.value, kind)
    return result


# -- how it comes ------------------------------------------------------------------------------------------------------


class Receiver:
    """Both protocols, each at a port; ``answer`` is the HTTP status of all, and ``delay`` how long each takes. With a
    *certificate*, a file that has its key, too, by TLS."""

    def __init__(
        self, address: str = "127.0.0.1", http_port: int = 0, grpc_port: int = 0, certificate: Path | None = None
    ) -> None:
        self.received = Received()
        self.answer = 200
        self.location: str | None = None
        self.delay = 0.0
        receiver = self

        class Handler(_Handler):
            of = receiver

        self._http = _HttpServer((address, http_port), Handler)
        self._grpc = grpc.server(futures.ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Traces(self), self._grpc)  # type: ignore[no-untyped-call]  # generated
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(_Logs(self), self._grpc)  # type: ignore[no-untyped-call]  # generated
        self.http_port = self._http.server_address[1]
        place = f"{address}:{grpc_port}"
        if certificate is None:
            self.grpc_port = self._grpc.add_insecure_port(place)
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
            both = certificate.read_bytes()
            self.grpc_port = self._grpc.add_secure_port(place, grpc.ssl_server_credentials([(both, both)]))
        self._grpc.start()
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def http(self) -> str:
        """Its URL for OTLP/HTTP."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def grpc(self) -> str:
        """Its URL for OTLP/gRPC."""
        return f"grpc://127.0.0.1:{self.grpc_port}"

    def close(self) -> None:
        """Its ports are free again."""
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        self._grpc.stop(0).wait()


@contextmanager
def receiving(http_port: int = 0, grpc_port: int = 0, certificate: Path | None = None) -> Iterator[Receiver]:
    """Receives inside, at 127.0.0.1."""
    receiver = Receiver(http_port=http_port, grpc_port=grpc_port, certificate=certificate)
    try:
        yield receiver
    finally:
        receiver.close()


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True


class _Handler(BaseHTTPRequestHandler):
    of: Receiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """One export request: OTLP, "OTLP/HTTP Request"."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(self.of.delay)  # a slow receiver is what a test wants
        kinds: dict[str, tuple[Any, Any]] = {
            "/v1/traces": (
                trace_service_pb2.ExportTraceServiceRequest,
                trace_service_pb2.ExportTraceServiceResponse,
            ),
            "/v1/logs": (logs_service_pb2.ExportLogsServiceRequest, logs_service_pb2.ExportLogsServiceResponse),
        }
        if self.path not in kinds or self.of.answer != 200:
            self._answer(404 if self.path not in kinds else self.of.answer, b"")
            return
        request, response = kinds[self.path]
        headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            _require(headers.get("content-type") == "application/x-protobuf", "its content type")
            match headers.get("content-encoding"):
                case "gzip":
                    body = gzip.decompress(body)
                case "deflate":
                    body = zlib.decompress(body)
            found = request.FromString(body)
        except (AssertionError, DecodeError, OSError, zlib.error) as error:
            self.of.received.errors.append(repr(error))
            self._answer(400, b"")
            return
        self.of.received.take(found, headers, "http")
        self._answer(200, response().SerializeToString())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(body)))
        if self.of.location is not None:
            self.send_header("Location", self.of.location)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 -- http.server's own signature
        """Nothing: stdout has what came."""


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, of: Receiver) -> None:
        self._of = of

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 -- the service's own name
        """OTLP/gRPC of spans."""
        _grpc_request(self._of, request, context)
        return trace_service_pb2.ExportTraceServiceResponse()


class _Logs(logs_service_pb2_grpc.LogsServiceServicer):
    def __init__(self, of: Receiver) -> None:
        self._of = of

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 -- the service's own name
        """OTLP/gRPC of logs."""
        _grpc_request(self._of, request, context)
        return logs_service_pb2.ExportLogsServiceResponse()


def _grpc_request(of: Receiver, request: Any, context: Any) -> None:
    time.sleep(of.delay)  # as above
    headers = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
    of.received.take(request, headers, "grpc")


def main() -> None:
    """Print what comes until stdin ends."""
    address, http_port, grpc_port = sys.argv[1:]
    receiver = Receiver(address, int(http_port), int(grpc_port))
    lock = threading.Lock()

    def show(found: Json) -> None:
        with lock:
            print(json.dumps(found), flush=True)

    receiver.received.on_news = show
    show({"ready": True})
    sys.stdin.read()


if __name__ == "__main__":
    main()
