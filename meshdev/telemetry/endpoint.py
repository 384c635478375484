"""Where spans and logs are sent: from ``connect --otlp URL``, or the standard environment. Pure.

Sources: OpenTelemetry specification, "OTLP exporter" and "SDK environment variables"; OTLP 1.x for ports and paths.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import SplitResult, urlsplit

from meshdev.errors import UsageError
from meshdev.text import visible

Protocol = Literal["http", "grpc"]
Signal = Literal["traces", "logs"]

#: OTLP, "Default port".
HTTP_PORT: Final = 4318
GRPC_PORT: Final = 4317
#: What follows the base URL of OTLP/HTTP.
_PATHS: Final[dict[Signal, str]] = {"traces": "v1/traces", "logs": "v1/logs"}

_SCHEMES: Final[dict[str, tuple[Protocol, bool, int]]] = {
    "http": ("http", False, HTTP_PORT),
    "https": ("http", True, 443),
    "grpc": ("grpc", False, GRPC_PORT),
    "grpcs": ("grpc", True, GRPC_PORT),
}
_HOST: Final = re.compile(r"[0-9A-Za-z_.-]{1,253}|[0-9A-Fa-f:.]{2,45}", re.ASCII)
#: urlsplit takes away what is not visible.
_VISIBLE: Final = re.compile(r"[!-~]{1,2048}")
_FORMS: Final = (
    "use http://HOST:4318 or https://HOST for OTLP/HTTP, grpc://HOST:4317 or grpcs://HOST:4317 for OTLP/gRPC"
)
_HEADERS_HINT: Final = "credentials belong into the environment: OTEL_EXPORTER_OTLP_HEADERS='authorization=Bearer%20…'"


@dataclass(frozen=True)
class OtlpEndpoint:
    """A receiver of one signal. ``target`` is what its exporter takes: a URL, or ``HOST:PORT`` for gRPC."""

    protocol: Protocol
    target: str
    secure: bool
    host: str
    port: int

    def __str__(self) -> str:
        if self.protocol == "http":
            return self.target
        return f"grpc{'s' if self.secure else ''}://{self.target}"


@dataclass(frozen=True)
class OtlpEndpoints:
    """Where each signal is sent; None: nowhere."""

    traces: OtlpEndpoint | None
    logs: OtlpEndpoint | None

    def all(self) -> tuple[OtlpEndpoint, ...]:
        """Those that there are, each once."""
        return tuple(dict.fromkeys(each for each in (self.traces, self.logs) if each is not None))


def parse(text: str, *, logs: bool) -> OtlpEndpoints:
    """The URL of ``--otlp``, and whether logs are sent there, too. Raises UsageError."""
    split = _split(text, "--otlp")
    protocol, secure, default = _SCHEMES[split.scheme]
    return OtlpEndpoints(
        _endpoint(split, "--otlp", protocol, "traces", secure=secure, port=default, own=False),
        _endpoint(split, "--otlp", protocol, "logs", secure=secure, port=default, own=False) if logs else None,
    )


def from_environment(environ: Mapping[str, str]) -> OtlpEndpoints:
    """As OpenTelemetry's standard variables say; with none of them nothing is sent. Raises UsageError.

    Logs are sent where OTEL_LOGS_EXPORTER is ``otlp`` or they have an endpoint of their own: whoever asks for spans
    need not want them.
    """
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return OtlpEndpoints(None, None)
    asked = environ.get("OTEL_LOGS_EXPORTER", "").strip().lower()
    logs = asked == "otlp" or (not asked and bool(environ.get("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT")))
    return OtlpEndpoints(
        _of_environment(environ, "traces") if environ.get("OTEL_TRACES_EXPORTER", "otlp").strip() != "none" else None,
        _of_environment(environ, "logs") if logs else None,
    )


def _of_environment(environ: Mapping[str, str], signal: Signal) -> OtlpEndpoint | None:
    own = f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
    name = own if environ.get(own) else "OTEL_EXPORTER_OTLP_ENDPOINT"
    text = environ.get(name, "").strip()
    if not text:
        return None
    split = _split(text, name)
    protocol = _protocol(environ, signal)
    of_scheme, secure, _ = _SCHEMES[split.scheme]
    if of_scheme == "grpc":
        protocol = "grpc"
    port = GRPC_PORT if protocol == "grpc" else 443 if secure else 80 if name == own else HTTP_PORT
    return _endpoint(split, name, protocol, signal, secure=secure, port=port, own=name == own)


def _protocol(environ: Mapping[str, str], signal: Signal) -> Protocol:
    own, general = f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"
    name = own if environ.get(own) else general
    match environ.get(name, "").strip().lower():
        case "" | "http/protobuf":
            return "http"
        case "grpc":
            return "grpc"
        case other:
            raise UsageError(f"{name} is {visible(other)!r}", hint="use grpc or http/protobuf")


def _split(text: str, name: str) -> SplitResult:
    """The parts of a URL that has no more of them than it may. Raises UsageError, without anything secret."""
    try:
        split = urlsplit(text)
        valid = (
            _VISIBLE.fullmatch(text) is not None
            and split.scheme in _SCHEMES
            and split.hostname is not None
            and _HOST.fullmatch(split.hostname) is not None
        )
        valid = valid and (split.port is None or split.port > 0)
    except ValueError:
        valid = False
    if "@" in text:  # whatever else is wrong: what stands before it is not repeated
        raise UsageError(f"the URL of {name} holds credentials", hint=_HEADERS_HINT)
    if not valid:
        raise UsageError(f"{name} is no URL of a receiver: {visible(text)[:200]!r}", hint=_FORMS)
    if split.query or split.fragment:
        raise UsageError(f"the URL of {name} has a query or a fragment", hint=_HEADERS_HINT)
    return split


def _endpoint(
    split: SplitResult, name: str, protocol: Protocol, signal: Signal, *, secure: bool, port: int, own: bool
) -> OtlpEndpoint:
    """*own*: the URL is this signal's own, and its path is the whole one."""
    host = split.hostname or ""
    port = split.port or port
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if protocol == "grpc":
        if split.path.strip("/"):
            raise UsageError(f"{name} has a path, which OTLP/gRPC has not: {visible(split.path)!r}", hint=_FORMS)
        return OtlpEndpoint("grpc", place, secure, host, port)
    path = split.path if own else f"{split.path.rstrip('/')}/{_PATHS[signal]}"
    return OtlpEndpoint("http", f"http{'s' if secure else ''}://{place}{path or '/'}", secure, host, port)
