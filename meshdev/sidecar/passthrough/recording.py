"""Recording the requests of a connection that go to the app, while somebody watches. Pure: its owner has the clock.

Nobody watches, most of the time, and that must cost nothing: :class:`Switch` asks its policy once for each request.
Only for one that is recorded its two followers become these here, which count bodies and notice the status and the last
byte. What is followed, and how far, stays the same: they do what the plain ones do, and look at it.

What becomes raw is recorded no further than that: the first request that has no complete response, or else the
connection itself, is the owner's to finish when it ends (:meth:`RecordingOwner.record_rest`).
"""

from typing import Protocol

from meshdev.sidecar.passthrough.heads import Reason
from meshdev.sidecar.passthrough.http1 import (
    Body,
    Head,
    HttpExchange,
    Raw,
    RequestFollower,
    RequestHead,
    ResponseFollower,
    ResponseHead,
)
from meshdev.sidecar.passthrough.owner import ClaimPolicy, ConnectionOwner, Side
from meshdev.sidecar.passthrough.switch import Switch


class RequestRecord(Protocol):
    """What is recorded of one request. Bytes are those of bodies; of a chunked one with the framing of its chunks."""

    status: int
    request_bytes: int
    response_bytes: int

    def end(self) -> None:
        """The response is complete."""


class RecordingOwner(ConnectionOwner, Protocol):
    """An owner that records."""

    def record(self, head: RequestHead) -> RequestRecord | None:
        """A request goes to the app. None: it is not recorded."""

    def record_rest(self, reason: Reason | None) -> None:
        """All bytes go to the app from here on; without a *reason* that is the end of an orderly connection."""


class RecordedExchange(HttpExchange):
    """One that is recorded."""

    __slots__ = ("record",)

    def __init__(self, exchange: HttpExchange, record: RequestRecord) -> None:
        super().__init__(of_head=exchange.of_head, sent=exchange.sent)
        self.record = record


class RecordedRequests(RequestFollower):
    """Counts the body of a request that is recorded, and is a plain follower again behind it."""

    __slots__ = ()

    def skip(self, count: int) -> bool:
        """As the base does."""
        self._count(count)
        complete = super().skip(count)
        if complete:
            _be_plain(self)
        return complete

    def _body(self, data: bytes, at: int) -> tuple[Body | Raw, int]:
        if self._chunks is None:
            return super()._body(data, at)
        event, end = super()._body(data, at)
        self._count(end - at)
        if type(event) is Body and event.last:
            _be_plain(self)
        return event, end

    def _count(self, count: int) -> None:
        exchange = self._exchange
        if type(exchange) is RecordedExchange:
            exchange.record.request_bytes += count


class RecordedResponses(ResponseFollower):
    """Counts and ends what is recorded, and is a plain follower again where no response is expected any more."""

    __slots__ = ()

    def next(self, data: bytes, at: int = 0) -> tuple[ResponseHead | Body | Raw | None, int]:
        """As the base does."""
        event, end = super().next(data, at)
        if type(event) is Raw and (record := self._record()) is not None:
            record.response_bytes += len(data) - end  # it is the owner's to count what follows
        return event, end

    def skip(self, count: int) -> bool:
        """As the base does."""
        record = self._record()
        if record is not None:
            record.response_bytes += count
        complete = super().skip(count)
        if complete:
            self._end(record)
        return complete

    def _body(self, data: bytes, at: int) -> tuple[Body | Raw, int]:
        if self._chunks is None:
            return super()._body(data, at)
        record = self._record()
        event, end = super()._body(data, at)
        if record is not None:
            record.response_bytes += end - at
        if type(event) is Body and event.last:
            self._end(record)
        return event, end

    def _begin(self, head: Head) -> None:
        """The head of a response that is final."""
        record = self._record()
        if record is not None and type(head) is ResponseHead:
            record.status = head.status
        super()._begin(head)
        if head.length == 0:
            self._end(record)

    def _unclear(self, head: ResponseHead) -> Reason | None:
        reason = super()._unclear(head)
        if reason is not None and (record := self._record()) is not None:
            record.status = head.status
        return reason

    def _record(self) -> RequestRecord | None:
        """Of the request that is answered now."""
        exchange = self._expected[0] if self._expected else None
        return exchange.record if type(exchange) is RecordedExchange else None

    def _end(self, record: RequestRecord | None) -> None:
        if record is not None:
            record.end()
        if not self._expected:
            _be_plain(self)


def _begin(head: RequestHead, record: RequestRecord, requests: RequestFollower, responses: ResponseFollower) -> None:
    """Record the request whose head *requests* has just seen.

    A follower is changed in its place, by its class: both have the same attributes, and who holds it goes on.
    """
    exchange = RecordedExchange(head.exchange, record)
    if not exchange.sent:
        requests.__class__ = RecordedRequests
        requests.replace(exchange)
    responses.__class__ = RecordedResponses
    head.exchange = exchange


def _be_plain(follower: RequestFollower | ResponseFollower) -> None:
    """Cost nothing any more."""
    if isinstance(follower, RequestFollower):
        follower.__class__ = RequestFollower
    else:
        follower.__class__ = ResponseFollower


class RecordingSwitch(Switch):
    """A switch that may be watched."""

    __slots__ = ("_recorder",)

    def __init__(
        self, owner: RecordingOwner, policy: ClaimPolicy, *, whole: bool = False, unclaimed: bool = False
    ) -> None:
        """As the base."""
        self._recorder = owner
        super().__init__(owner, policy, whole=whole, unclaimed=unclaimed)

    @property
    def raw(self) -> Side | None:
        """Where all bytes of the client go; None: requests are told apart."""
        return self._raw

    def end_recording(self) -> None:
        """Nobody watches any more; what is not complete is not recorded."""
        _be_plain(self._requests)
        _be_plain(self._responses)

    def record(self, head: RequestHead) -> None:
        """Record this one, unless the owner does not."""
        record = self._recorder.record(head)
        if record is not None:
            _begin(head, record, self._requests, self._responses)

    def _be_raw(self, side: Side, reason: Reason | None) -> None:
        super()._be_raw(side, reason)
        if self._policy.watched and side == "app":
            self._recorder.record_rest(reason)
