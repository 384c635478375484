"""An HTTP/1.1 server that keeps what it received: raw header names in their order and case.

The library's own server normalises headers and cannot drain; tests of a mesh compare every byte, so the few rules
that matter are written out here (RFC 9112).
"""

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from io import BufferedReader

_LONGEST_LINE = 1 << 20
_PIECE = 1 << 20
Headers = list[tuple[str, str]]


class BadRequestError(Exception):
    """The peer does not speak HTTP/1; the text is for the answer's body."""


@dataclass
class Request:
    """One request. `body` yields pieces; what a handler leaves is read and thrown away."""

    method: str
    target: str
    version: str
    headers: Headers
    client: str = ""
    body: Iterator[bytes] = field(default_factory=lambda: iter(()))
    trailers: Headers = field(default_factory=list)

    def values(self, name: str) -> list[str]:
        """Every value of the header NAME, whatever its case."""
        return [value for key, value in self.headers if key.lower() == name]

    def has_token(self, name: str, token: str) -> bool:
        """Whether the comma-separated header NAME holds TOKEN."""
        return any(token == part.strip().lower() for value in self.values(name) for part in value.split(","))

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


@dataclass(frozen=True)
class Response:
    """An answer whose length is known."""

    body: bytes = b""
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


# An upgraded connection: the handler of raw bytes, called after the 101.
Takeover = Callable[[BufferedReader, socket.socket], None]
Handler = Callable[[Request], Response | Takeover]

_REASONS = {101: "Switching Protocols", 200: "OK", 204: "No Content", 400: "Bad Request", 404: "Not Found"}


class Server:
    """Serves connections with HANDLER until told to drain."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._lock = threading.Lock()
        self._waiting: set[socket.socket] = set()  # connections between two requests
        self._draining = False
        self._closed = False

    def drain(self) -> None:
        """From now on every answer says `Connection: close`; what is between two requests may still ask once."""
        self._draining = True

    def close_waiting(self) -> None:
        """Close what is between two requests: who asks at this very moment gets no answer, so it comes last."""
        with self._lock:
            self._closed = True
            for connection in self._waiting:
                # Reading side only: a request that is already here is still read and answered.
                connection.shutdown(socket.SHUT_RD)

    def serve(self, connection: socket.socket) -> None:
        """One connection to its end."""
        stream = connection.makefile("rb")
        try:
            while self._serve_one(connection, stream):
                pass
        except BadRequestError as error:
            connection.sendall(_head(Response(status=400), str(error).encode(), close=True) + str(error).encode())
        finally:
            stream.close()

    def _serve_one(self, connection: socket.socket, stream: BufferedReader) -> bool:
        """Read and answer one request; False when the connection is over."""
        first = self._wait(connection, stream)
        if not first:
            return False
        request = _parse_head(first, stream)
        expects = request.has_token("expect", "100-continue")
        request.client = connection.getpeername()[0].removeprefix("::ffff:")
        request.body = _body(request, stream, connection if expects else None)
        answer = self._handler(request)
        if not isinstance(answer, Response):
            answer(stream, connection)
            return False
        for _ in request.body:
            pass
        close = self._draining or _wants_close(request)
        payload = b"" if request.method == "HEAD" else answer.body
        connection.sendall(_head(answer, answer.body, close=close) + payload)
        return not close

    def _wait(self, connection: socket.socket, stream: BufferedReader) -> bytes:
        """The next request line; b"" at the end of the connection or while draining."""
        with self._lock:
            if self._closed:
                connection.shutdown(socket.SHUT_RD)
            self._waiting.add(connection)
        try:
            return _line(stream)
        finally:
            with self._lock:
                self._waiting.discard(connection)


def _line(stream: BufferedReader) -> bytes:
    line = stream.readline(_LONGEST_LINE)
    if line and not line.endswith(b"\n"):
        if len(line) < _LONGEST_LINE:
            return b""  # the peer closed in the middle
        raise BadRequestError("line too long")
    return line


def _parse_head(first: bytes, stream: BufferedReader) -> Request:
    words = first.decode("latin-1").strip().split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequestError(f"not an HTTP/1 request line: {first[:80]!r}")
    method, target, version = words
    return Request(method, target, version.removeprefix("HTTP/"), _fields(stream))


def _fields(stream: BufferedReader) -> Headers:
    """Header or trailer lines up to the empty one, as they came."""
    found: Headers = []
    while True:
        line = _line(stream)
        if not line:
            raise BadRequestError("connection ended inside the headers")
        text = line.decode("latin-1").rstrip("\r\n")
        if not text:
            return found
        name, colon, value = text.partition(":")
        if not colon or name != name.strip():
            raise BadRequestError(f"not a header: {text[:80]!r}")
        found.append((name, value.strip(" \t")))


def _body(request: Request, stream: BufferedReader, announce_to: socket.socket | None) -> Iterator[bytes]:
    """The body's pieces. A client that waits for `100 Continue` gets it when the first piece is asked for."""
    chunked = request.has_token("transfer-encoding", "chunked")
    lengths = request.values("content-length")
    left = 0
    if not chunked and lengths:
        if not lengths[0].isdigit():
            raise BadRequestError("content-length is no number")
        left = int(lengths[0])
    if announce_to is not None and (chunked or left):
        announce_to.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    if chunked:
        yield from _chunks(request, stream)
    else:
        yield from _exactly(stream, left)


def _chunks(request: Request, stream: BufferedReader) -> Iterator[bytes]:
    while True:
        size = _line(stream).partition(b";")[0].strip()
        try:
            left = int(size, 16)
        except ValueError as error:
            raise BadRequestError("not a chunk") from error
        if not left:
            request.trailers = _fields(stream)
            return
        yield from _exactly(stream, left)
        _line(stream)


def _exactly(stream: BufferedReader, left: int) -> Iterator[bytes]:
    while left:
        piece = stream.read1(min(left, _PIECE))
        if not piece:
            raise BadRequestError("connection ended inside the body")
        left -= len(piece)
        yield piece


def _wants_close(request: Request) -> bool:
    if request.version == "1.0":
        return not request.has_token("connection", "keep-alive")
    return request.has_token("connection", "close")


def _head(answer: Response, body: bytes, *, close: bool) -> bytes:
    lines = [
        f"HTTP/1.1 {answer.status} {_REASONS.get(answer.status, 'Unknown')}",
        f"content-type: {answer.content_type}",
        f"content-length: {len(body)}",
        *(f"{name}: {value}" for name, value in answer.headers),
        f"connection: {'close' if close else 'keep-alive'}",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
