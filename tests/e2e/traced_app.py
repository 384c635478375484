"""B' as an instrumented app: OpenTelemetry's own spans around what it is asked, and around what it asks C.

``python -m tests.e2e.traced_app PORT NEXT_URL RECEIVER_URL``
"""

import sys
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

NAME: Final = "traced-b"


def main() -> None:
    """Serve until it is killed."""
    port, following, receiver = sys.argv[1:]
    provider = TracerProvider(resource=Resource.create({"service.name": NAME}))
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(f"{receiver}/v1/traces")))
    tracer = provider.get_tracer(NAME, schema_url="https://opentelemetry.io/schemas/1.23.0")
    propagator = TraceContextTextMapPropagator()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Ask C the same, and answer both names."""
            sent = {name.lower(): value for name, value in self.headers.items()}
            with (
                tracer.start_as_current_span("GET", propagator.extract(sent), kind=SpanKind.SERVER),
                tracer.start_as_current_span("GET", kind=SpanKind.CLIENT),
            ):
                headers = {name: value for name, value in sent.items() if name == "a"}
                propagator.inject(headers)
                with urllib.request.urlopen(urllib.request.Request(following, headers=headers), timeout=5) as found:  # noqa: S310 -- http
                    body = f"{NAME}>{found.read().decode()}".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- http.server's own signature
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", int(port)), Handler)
    print(f"{NAME}: ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
