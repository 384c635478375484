"""Why a receiver took nothing, and what to do about it: from what exporters log. Pure.

An exporter tells its caller no more than that it failed; the cause is an argument of what it logs
(opentelemetry.exporter.otlp.common.http and .proto.grpc.exporter): an exception of requests, a status with its reason,
or gRPC's details.
"""

import re
from collections.abc import Sequence
from typing import Final

from meshdev.telemetry.endpoint import GRPC_PORT, HTTP_PORT, OtlpEndpoint, Protocol
from meshdev.text import visible

_LONGEST: Final = 200
#: Of the kernel and of TLS, within what requests, urllib3 and gRPC wrap around it.
_KNOWN: Final = (
    re.compile(r"\[Errno -?\d+\] ([A-Za-z][^'\")]*)"),
    re.compile(r"Failed to connect to remote host: (?:\w+: )?([A-Za-z][^(]*)"),  # gRPC
    re.compile(r"(DNS resolution failed|Domain name not found)"),
    re.compile(r"(certificate verify failed: [^(\")]*)"),
    re.compile(r"(Could not find a suitable TLS CA certificate bundle, invalid path: \S+)"),
    re.compile(r"(Could not find the TLS certificate file, invalid path: \S+)"),
    re.compile(r"(CERTIFICATE_VERIFY_FAILED)"),
    re.compile(r"(WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE|HTTP_REQUEST)"),
    re.compile(r"([Rr]ead timed out|Deadline Exceeded)"),
    re.compile(r"(BadStatusLine|RemoteDisconnected|Connection reset by peer|Connection aborted)"),
    re.compile(r"(Trying to connect an http1\.x server|Received http2 header with status: \d+)"),
    re.compile(r"(Failed parsing HTTP/2)"),
)
_TLS: Final = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "SSL_ERROR_SSL")
#: What a client of the other protocol sees (OTLP/HTTP at a receiver of gRPC, and the reverse).
_NOT_HTTP: Final = ("BadStatusLine", "RemoteDisconnected", "Connection reset", "Connection aborted", "HTTP 415")
_NOT_GRPC: Final = (
    "http1.x server",
    "Received http2 header",
    "settings frame",
    "Socket closed",
    "recvmsg",
    "Failed parsing HTTP/2",
)
_OTHER_PROTOCOL: Final[dict[Protocol, str]] = {
    "grpc": f"it does not speak gRPC there: OTLP/HTTP is http://{{}}:{HTTP_PORT}",
    "http": f"it does not speak HTTP there: OTLP/gRPC is grpc://{{}}:{GRPC_PORT}",
}
_ADVICE: Final = (
    (
        ("HTTP 401", "HTTP 403", "UNAUTHENTICATED", "PERMISSION_DENIED"),
        "OTEL_EXPORTER_OTLP_HEADERS, in the environment of the command that connects, has its credentials",
    ),
    (
        ("certificate verify failed", "CERTIFICATE_VERIFY_FAILED"),
        "OTEL_EXPORTER_OTLP_CERTIFICATE names the file with its CA's certificate",
    ),
    (("a redirect to",), "use the URL that it redirects to"),
    (("HTTP 404", "UNIMPLEMENTED"), "there is no OTLP receiver at this path"),
)


def cause(arguments: Sequence[object]) -> str | None:
    """From the arguments of a logged failure; None where there is nothing about a cause in them."""
    numbers = [each for each in arguments if isinstance(each, int) and not isinstance(each, bool)]
    errors = [str(each) for each in arguments if isinstance(each, BaseException)]
    texts = [each for each in arguments if isinstance(each, str)]
    codes = [str(getattr(each, "name", "")) for each in arguments if type(each).__name__ == "StatusCode"]
    if numbers and len(texts) > 1:  # (kind, status, reason)
        return _short(f"HTTP {numbers[0]} {texts[-1]}")
    if codes:  # (what, endpoint, code, details)
        return _short(": ".join((*codes, _known(texts[-1] if texts else "") or "")).rstrip(": "))
    if errors:
        return _short(_known(errors[0]) or errors[0])
    return _short(texts[0]) if len(texts) > 1 and any(isinstance(each, float) for each in arguments) else None


def advice(endpoint: OtlpEndpoint, why: str) -> str | None:
    """What to do about it, where that is clear."""
    if endpoint.secure and _any(_TLS, why):
        return f"it does not speak TLS there: use {endpoint.protocol}://"
    if _any(_NOT_GRPC if endpoint.protocol == "grpc" else _NOT_HTTP, why):
        return _OTHER_PROTOCOL[endpoint.protocol].format(_host(endpoint))
    return next((text for parts, text in _ADVICE if _any(parts, why)), None)


def _any(parts: Sequence[str], why: str) -> bool:
    return any(part in why for part in parts)


def _host(endpoint: OtlpEndpoint) -> str:
    return f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host


def _known(text: str) -> str | None:
    """The part of it that says why, or all of it."""
    found = next((match for pattern in _KNOWN if (match := pattern.search(text)) is not None), None)
    return found[1] if found is not None else text or None


def _short(text: str) -> str:
    return visible(text.strip())[:_LONGEST]
