"""What a service of the sample answers over HTTP.

| request | answer |
|---|---|
| `GET /` | the names of the services that the request passed: `service-a>service-b>service-c` |
| `POST` or `PUT /` | the number of bytes received |
| `/peer` | the client's address as this app sees it |
| `/request` | the request as received, as JSON: method, target, version, headers in order and case, client, trailers |
| `/echo` | the body |
| `/sha256` | the body's SHA-256 |
| `/bytes/N` | N bytes of the pattern in pattern.py |
| `/delay/S` | like `/`, after S seconds |
| `/status/N` | status N |
| `/healthz` | `ok` |
| a WebSocket handshake, on any path | an echo of every message |
"""

import hashlib
import http.client
import json
import time
from collections.abc import Callable
from urllib.parse import urlsplit

from tests.cluster.sample import websocket
from tests.cluster.sample.http1 import Headers, Request, Response, Takeover
from tests.cluster.sample.pattern import pattern

PROPAGATED = ("a", "baggage", "traceparent", "tracestate")
_NEXT_TIMEOUT = 5.0
_LARGEST = 64 << 20
_BINARY = "application/octet-stream"


class App:
    """One service: its NAME, and the URL of the service it calls (or "")."""

    def __init__(self, name: str, following: str = "") -> None:
        self._name = name
        self._following = following
        self._routes: dict[str, Callable[[Request, str], Response]] = {
            "": lambda request, _: self._chain(request),
            "bytes": lambda _, rest: Response(pattern(0, min(int(rest), _LARGEST)), content_type=_BINARY),
            "delay": self._delay,
            "echo": lambda request, _: Response(b"".join(request.body), content_type=_BINARY),
            "healthz": lambda _request, _rest: Response(b"ok"),
            "peer": lambda request, _: Response(request.client.encode()),
            "request": lambda request, _: self._describe(request),
            "sha256": lambda request, _: Response(_digest(request).encode()),
            "status": lambda _, rest: Response(self._name.encode(), status=int(rest)),
        }

    def __call__(self, request: Request) -> Response | Takeover:
        if request.has_token("upgrade", "websocket"):
            return websocket.echo(request, self._name)
        first, _, rest = request.path.lstrip("/").partition("/")
        route = self._routes.get(first)
        if route is None:
            return Response(f"{self._name} has no {request.path}".encode(), status=404)
        try:
            return route(request, rest)
        except ValueError:
            return Response(f"{rest!r} is no number".encode(), status=400)

    def _delay(self, request: Request, seconds: str) -> Response:
        time.sleep(float(seconds))
        return self._chain(request)

    def _chain(self, request: Request) -> Response:
        if request.method in {"POST", "PUT", "PATCH"}:
            return Response(str(sum(len(piece) for piece in request.body)).encode())
        if not self._following:
            return Response(self._name.encode())
        answer = call(self._following, [pair for pair in request.headers if pair[0].lower() in PROPAGATED])
        return Response(f"{self._name}>{answer}".encode())

    def _describe(self, request: Request) -> Response:
        length = sum(len(piece) for piece in request.body)
        described = {
            "name": self._name,
            "method": request.method,
            "target": request.target,
            "version": request.version,
            "headers": request.headers,
            "client": request.client,
            "body_length": length,
            "trailers": request.trailers,
        }
        return Response(json.dumps(described).encode(), content_type="application/json")


def call(url: str, headers: Headers) -> str:
    """GET URL with HEADERS in their order; a failure is part of the answer, so that a test sees where it was."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=_NEXT_TIMEOUT)
    try:
        connection.putrequest("GET", parts.path or "/", skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        return connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException) as error:
        return f"error({parts.hostname}: {error!r})"
    finally:
        connection.close()


def _digest(request: Request) -> str:
    digest = hashlib.sha256()
    for piece in request.body:
        digest.update(piece)
    return digest.hexdigest()
