"""Followers of HTTP/1 connections: where each request and response begins and ends (RFC 9112, section 6).

They never change or withhold bytes, they say what the bytes are. Each call of ``next`` takes the next piece of *data*
and says what it is and where it ends, so a buffer with several requests is split at the very byte::

    at = 0
    while at < len(data):
        event, end = follower.next(data, at)
        match event:
            case None: ...  # data[at:end] begins a head that is not complete, or (``raw`` is set) passes as it is
            case RequestHead(): ...  # event.raw is the whole head, with what was held of it
            case Body(): ...  # data[at:end]; the message is complete where event.last
            case Raw(): ...  # follow no further: event.held, data[end:] and all that comes, in both directions
        at = end

Nothing behind *end* was taken: a caller may stop there and show the rest later. Bytes may be passed on before they are
shown; those of an incomplete head should be held back where the head decides about their way, and come once more with
the event about them.

Only framing that every recipient reads alike is followed; from anything else on the connection is *raw*, and the reason
is counted. Raw is never an error. The pieces in which bytes come make no difference, no input raises, and the cost is
linear in the bytes. A follower keeps at most 64 KiB of an incomplete head (``held``), nothing of bodies, and two bits
each of :data:`MAX_PIPELINED` requests that wait for their answers.

What makes one side raw makes the other raw: the caller tells it by ``give_up``. How long a head may take is the
caller's to know: ``give_up("head-time")`` where ``held`` was not 0 for too long.
"""

import re
from abc import ABC, abstractmethod
from collections import deque
from typing import Final, Generic, NamedTuple, TypeVar

from meshdev.sidecar.passthrough.chunks import ChunkedBody
from meshdev.sidecar.passthrough.heads import REQUEST, RESPONSE, HeadReader, Reason, Syntax

#: Requests of one connection without an answer: more of them are raw.
MAX_PIPELINED: Final = 1024

_FRAMING: Final = re.compile(rb"\n(content-length|transfer-encoding|connection):[\t ]*([^\r]*)")
#: 18 digits are more than anybody sends, and not yet what some recipients cannot count.
_LENGTH: Final = re.compile(rb"([0-9]{1,18})[\t ]*")
_SWITCHING: Final = 101
_FINAL: Final = 200
#: Without a body, whatever the request was (RFC 9112, 6.3): both, and whatever is not final.
_NO_CONTENT: Final = 204
_NOT_MODIFIED: Final = 304


class HttpExchange:
    """A request and its response, as far as one has to know of the other. Keeps no bytes."""

    __slots__ = ("of_head", "sent")

    def __init__(self, *, of_head: bool, sent: bool) -> None:
        self.of_head = of_head
        """The request is a HEAD: its response has no body."""
        self.sent = sent
        """The request is complete, with its body."""


class Head:
    """What requests and responses share. ``raw`` are the bytes, the empty line included."""

    __slots__ = ("_headers", "exchange", "keep_alive", "length", "lower", "minor", "raw")

    exchange: HttpExchange

    def __init__(self, raw: bytes, minor: int) -> None:
        self.raw = raw
        self.lower = raw.lower()
        """``raw`` in lower case."""
        self.minor = minor
        """1 for HTTP/1.1, 0 for HTTP/1.0."""
        self.length: int | None = 0
        """Bytes of the body, 0 where there is none; None: chunked."""
        self.keep_alive = minor == 1
        """Whether the sender lets another message follow (RFC 9112, 9.3)."""
        self._headers: list[tuple[bytes, bytes]] | None = None

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Names in lower case and values without blanks around them, in their order."""
        if self._headers is None:
            lines = (line.partition(b":") for line in self.raw.split(b"\r\n")[1:-2])
            self._headers = [(name.lower(), value.strip(b" \t")) for name, _, value in lines]
        return self._headers


class RequestHead(Head):
    """A request."""

    __slots__ = ("method", "target")

    def __init__(self, found: re.Match[bytes]) -> None:
        raw, self.method, self.target, minor = found.group(0, 1, 2, 3)
        Head.__init__(self, raw, 1 if minor == b"1" else 0)


class ResponseHead(Head):
    """A response. One of 1xx is not ``final``: others to the same request follow, and it has no body."""

    __slots__ = ("final", "status")

    def __init__(self, found: re.Match[bytes]) -> None:
        raw, minor, status = found.group(0, 1, 2)
        Head.__init__(self, raw, 1 if minor == b"1" else 0)
        self.status = int(status)
        self.final = self.status >= _FINAL


class Body(NamedTuple):
    """A piece of a body, its chunked framing and trailers included; *last*: the message is complete."""

    last: bool


class Raw(NamedTuple):
    """From here on nothing is known. *held* are the bytes before ``data[end:]`` that no event was about yet.

    *head* is the response that nobody asked for (408, when the app's idle timer fires).
    """

    reason: Reason
    held: bytes
    head: ResponseHead | None = None


_MORE: Final = Body(last=False)
_LAST: Final = Body(last=True)

H = TypeVar("H", RequestHead, ResponseHead)


class _Follower(ABC, Generic[H]):
    """One direction of a connection."""

    __slots__ = ("_chunks", "_closing", "_reader", "body_left", "raw")

    def __init__(self, syntax: Syntax) -> None:
        self.raw: Reason | None = None
        """Why nothing is followed any more."""
        self.body_left = 0
        """Bytes of this body that are to come; 0 also where that is not known (chunks)."""
        self._chunks: ChunkedBody | None = None
        self._closing = False  # the sender said that this message is its last
        self._reader = HeadReader(syntax)

    @property
    def held(self) -> int:
        """Bytes of an incomplete head, which are kept for the event that is about them."""
        return self._reader.held

    @property
    def between(self) -> bool:
        """Whether the next byte begins a message."""
        return not (self.body_left or self._chunks or self._reader.held or self.raw)

    def next(self, data: bytes, at: int = 0) -> tuple[H | Body | Raw | None, int]:
        """What begins at *at* in *data*, and where it ends. A head with the length 0 is a complete message."""
        if self.body_left or self._chunks is not None:
            return self._body(data, at)
        if self.raw is not None:
            return None, len(data)
        found, end = self._reader.read(data, at) if not self._closing else ("after-close", at)
        if found is None:
            return None, end
        return self._head(found) if not isinstance(found, str) else self.give_up(found), end

    def give_up(self, reason: Reason) -> Raw:
        """Follow no further: what is held, if anything, goes on as it is."""
        self.raw = self.raw or reason
        self.body_left, self._chunks = 0, None
        return Raw(self.raw, self._reader.taken())

    def skip(self, count: int) -> bool:
        """Take *count* bytes of the body, at most ``body_left``, unseen. Whether the message is complete."""
        self.body_left -= count
        if count and not self.body_left:
            self._complete()
        return not self.body_left

    def pass_unseen(self, count: int) -> bool:
        """Take *count* bytes unseen if they are within a body whose length is known, and not its end."""
        return self.body_left > count and not self.skip(count)

    def _body(self, data: bytes, at: int) -> tuple[Body | Raw, int]:
        if self._chunks is None:
            end = min(at + self.body_left, len(data))
            return (_LAST if self.skip(end - at) else _MORE), end
        end = self._chunks.follow(data, at)
        if self._chunks.failed and end == at:
            return self.give_up("chunk"), at
        if not self._chunks.done:  # where it failed, what is valid is a piece of its own
            return _MORE, end
        self._chunks = None
        self._complete()
        return _LAST, end

    def _begin(self, head: Head) -> None:
        """Expect the body of *head*."""
        self._closing = not head.keep_alive
        if head.length is None:
            self._chunks = ChunkedBody()
        elif head.length:
            self.body_left = head.length
        else:
            self._complete()

    @abstractmethod
    def _head(self, found: re.Match[bytes]) -> H | Raw:
        """A head that is complete and, as bytes, right."""

    @abstractmethod
    def _complete(self) -> None:
        """A message ends here."""


class RequestFollower(_Follower[RequestHead]):
    """Follows what a client sends."""

    __slots__ = ("_exchange",)

    _exchange: HttpExchange

    def __init__(self) -> None:
        super().__init__(REQUEST)

    def replace(self, exchange: HttpExchange) -> None:
        """Let this one stand for the request whose body is followed now."""
        self._exchange = exchange

    def _head(self, found: re.Match[bytes]) -> RequestHead | Raw:
        head = RequestHead(found)
        reason = _frame(head) if head.method != b"CONNECT" else "connect"
        if reason is not None:
            self.give_up(reason)
            return Raw(reason, head.raw)
        self._exchange = head.exchange = HttpExchange(of_head=head.method == b"HEAD", sent=False)
        self._begin(head)
        return head

    def _complete(self) -> None:
        self._exchange.sent = True


class ResponseFollower(_Follower[ResponseHead]):
    """Follows a server's responses to the requests that were announced by :meth:`expect`."""

    __slots__ = ("_expected",)

    def __init__(self) -> None:
        super().__init__(RESPONSE)
        self._expected: deque[HttpExchange] = deque()

    @property
    def waiting(self) -> int:
        """Requests whose response is not complete."""
        return len(self._expected)

    def expect(self, request: RequestHead) -> bool:
        """A request is on its way to this server. False: there are too many, give up both sides ("pipeline")."""
        self._expected.append(request.exchange)
        return len(self._expected) <= MAX_PIPELINED

    def _head(self, found: re.Match[bytes]) -> ResponseHead | Raw:
        head = ResponseHead(found)
        reason = self._unclear(head)
        if reason is not None:
            self.give_up(reason)
            return Raw(reason, head.raw, head if reason == "unasked-response" else None)
        head.exchange = self._expected[0]
        if head.final:
            self._begin(head)
        return head

    def _unclear(self, head: ResponseHead) -> Reason | None:
        """Why it is not clear what *head* means for its request."""
        if not self._expected:
            return "unasked-response"
        request = self._expected[0]
        if head.status == _SWITCHING:
            return "upgraded"
        if head.final and not request.sent:
            return "early-response"
        bodiless = not head.final or head.status == _NO_CONTENT
        empty = bodiless or request.of_head or head.status == _NOT_MODIFIED
        if (reason := _frame(head, until_close=not empty)) is not None:
            return reason
        if bodiless and head.length != 0:
            return "length-of-no-body"
        if empty:
            head.length = 0
        return None

    def _complete(self) -> None:
        self._expected.popleft()


def _frame(head: Head, *, until_close: bool = False) -> Reason | None:
    """Find length and persistence of *head*, or why they are not clear.

    *until_close*: what has no length is a body that goes to the end of the connection.
    """
    length: int | None = None
    chunked = False
    options = b""
    for name, value in _FRAMING.findall(head.lower):
        if name == b"content-length":
            number = _LENGTH.fullmatch(value)
            if length is not None or number is None:
                return "length"
            length = int(number[1])
        elif name == b"transfer-encoding":
            if chunked or value.rstrip(b" \t") != b"chunked" or not head.minor:
                return "coding"
            chunked = True
        else:
            options += value + b","
    if chunked and length is not None:
        return "length-and-coding"
    if options:
        head.keep_alive = options == b"keep-alive," or _keeps_alive(options, head.minor)
    if until_close and length is None and not chunked:
        return "until-close"
    head.length = None if chunked else length or 0
    return None


def _keeps_alive(options: bytes, minor: int) -> bool:
    """By the options of Connection (RFC 9112, 9.3)."""
    found = {option.strip(b" \t") for option in options.split(b",")}
    return b"close" not in found and (minor == 1 or b"keep-alive" in found)
