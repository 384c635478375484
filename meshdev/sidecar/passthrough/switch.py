"""One client's connection: which of its bytes go to the app, and which to Envoy. Pure: its owner has the sockets.

Client and app are joined from the beginning, and bytes pass unchanged. A request that is claimed goes to Envoy instead,
on a connection of this client's own, and its response comes from there::

    client ─┬─ bytes, unclaimed requests ──► app
            └─ claimed requests, one at a time ──► Envoy

One request at a time is at Envoy. It begins when all responses before it are complete; what the client sends behind it
waits until it is answered. So responses come in the order of their requests, and logins of connections (NTLM) stay
with the connection they belong to.

What cannot be followed is *raw*: the bytes of this connection stay where they go now. HTTP/2 goes to Envoy as a whole.
"""

from meshdev.sidecar.passthrough.heads import Reason
from meshdev.sidecar.passthrough.http1 import Body, Raw, RequestFollower, RequestHead, ResponseFollower, ResponseHead
from meshdev.sidecar.passthrough.owner import ENVOY_LOST, ClaimPolicy, ConnectionOwner, Side
from meshdev.sidecar.passthrough.sniff import FRAME_HEADER, client_first, server_first, times_out


class Switch:
    """One connection of a client. Its owner calls what has happened, and asks :attr:`reading` and :attr:`over`."""

    __slots__ = (
        *("_answered", "_answers", "_app", "_at_envoy", "_claimed", "_client_ended", "_client_finished"),
        *("_ends", "_envoy", "_first", "_later", "_owner", "_partial", "_policy", "_raw", "_requests", "_responses"),
        *("_server_first", "_since", "_sniffing", "heads", "reading"),
    )

    def __init__(
        self, owner: ConnectionOwner, policy: ClaimPolicy, *, whole: bool = False, unclaimed: bool = False
    ) -> None:
        """*whole*: everything on this port is claimed, whatever it is. *unclaimed*: nothing is."""
        self._owner = owner
        self._policy = policy
        self.reading = True
        """Whether bytes of the client are wanted now."""
        self.heads = 0
        """Requests whose head was complete."""
        self._raw: Side | None = "app" if whole or unclaimed else None
        self._sniffing = True
        self._first = b""  # of the client, until it is known what it speaks
        self._server_first = b""  # of the app, while it may be HTTP/2's
        self._requests = RequestFollower()
        self._partial = False  # it holds the beginning of a head
        self._responses = ResponseFollower()  # the app's
        self._answers: ResponseFollower | None = None  # Envoy's, once it had a request
        self._claimed: RequestHead | None = None  # waits for the responses before it
        self._later = b""  # what the client sent behind a claimed request
        self._answered = self._ends = False  # its response has begun, and says that it is the last
        self._since = False  # a claimed request came since the app last had one
        self._app = self._envoy = self._at_envoy = False
        self._client_ended = self._client_finished = False
        if whole and owner.dial_envoy():
            self._envoy, self._raw = True, "envoy"
        else:
            owner.dial_app()
            self._app = True

    @property
    def over(self) -> bool:
        """Both directions to the client have ended: all sockets can be closed once what was sent is out."""
        return self._client_ended and self._client_finished

    @property
    def held(self) -> int:
        """Bytes that are kept here."""
        return len(self._first) + self._requests.held + len(self._server_first) + len(self._later)

    @property
    def reading_app(self) -> bool:
        """Whether bytes of the app are wanted now."""
        return len(self._server_first) < FRAME_HEADER

    @property
    def holds(self) -> bool:
        """Whether bytes are held back that may never become a head or preface: see :meth:`late`."""
        return self._raw is None and bool(self._partial or self._first or self._server_first)

    # What comes

    def from_client(self, data: bytes) -> None:
        """Bytes of the client."""
        if self._client_finished:
            return  # the end of this connection was already sent to it
        if self._raw is not None:
            self._owner.send(self._raw, data)
        elif self._sniffing:
            self._sniff(data)
        elif self._at_envoy:
            self._follow_claimed(data)
        else:
            self._follow(data)

    def from_app(self, data: bytes) -> None:
        """Bytes of the app."""
        if self._raw is not None:
            self._owner.send("client", data)
        elif self._sniffing:
            self._speaks_first(self._server_first + data)
        elif self._idle_app and (self._at_envoy or times_out(data)):
            self._lose_app()
        else:
            self._owner.send("client", data)
            self._follow_app(data)

    def from_envoy(self, data: bytes) -> None:
        """Bytes of Envoy."""
        if self._raw is not None:
            self._owner.send("client", data)
        elif self._at_envoy:
            self._answered = True
            self._owner.send("client", data)
            self._follow_envoy(data)
        else:
            self._lose_envoy()

    def pass_unseen(self, side: Side, size: int) -> Side | None:
        """Where the owner sends *size* bytes of *side* by itself: all of it is raw, or these are within a body."""
        if self._raw is None:
            follower = self._requests if side == "client" else self._responses if side == "app" else self._answers
            if follower is None or not follower.pass_unseen(size):
                return None
        return "client" if side != "client" else self._raw or ("envoy" if self._at_envoy else "app")

    def client_ended(self) -> None:
        """The client sends no more; it may still read."""
        self._client_ended = True
        if self._raw is not None:
            self._owner.finish(self._raw)
        elif self._client_finished:
            pass
        elif self._at_envoy and not self._requests.between:
            self._owner.finish("envoy")  # a request that is not complete never will be
        elif not self._at_envoy and self._claimed is None:
            self._pass_end()

    def app_ended(self) -> None:
        """The app sends no more; it may still read."""
        if self._raw is not None:
            self._finish_client()
        elif self._idle_app:
            self._lose_app()
        else:
            self._stay("other", counts=False)
            self._finish_client()

    def envoy_ended(self) -> None:
        """Envoy sends no more."""
        if self._raw is not None:
            self._finish_client()
        elif not self._at_envoy:
            self._lose_envoy()
        elif self._answered:
            self._owner.abort()
        else:
            self._owner.send("client", ENVOY_LOST)
            self._end()

    def failed(self, side: Side) -> None:
        """The connection to *side* was reset, or never came to be; it is closed already."""
        if side == "envoy" and self._raw is None:
            self.envoy_ended()
        elif side == "app" and self._raw is None and self._idle_app:
            self._lose_app()
        else:
            self._owner.abort()

    def late(self) -> None:
        """What is held (:attr:`holds`) was held for too long: it passes without being inspected."""
        if self.holds:
            self._stay("head-time")

    def drain(self) -> None:
        """The app is about to end: where its connection is closed already, so is the client's, unless it waits."""
        if self._since and not (self._app or self._at_envoy or self._partial):
            self._end()

    # What is done

    @property
    def _idle_app(self) -> bool:
        """Nothing is under way at the app, which never saw the last request: its idle timer may fire."""
        return self._since and not self._responses.waiting

    def _sniff(self, data: bytes) -> None:
        first = self._first + data
        kind = client_first(first)
        if kind == "undecided":
            self._first = first
        elif kind == "http2" and self._policy.http2 and self._owner.dial_envoy():
            self._envoy, self._first, self._server_first = True, b"", b""
            self._stay_at_envoy(first)
        elif kind == "http1" and not self._server_first:  # an app that has spoken first speaks something else
            self._sniffing, self._first = False, b""
            self._follow(first)
        else:
            self._first = first
            self._stay("other")

    def _speaks_first(self, data: bytes) -> None:
        """Before the client. A server of HTTP/2 does, and that is held back: Envoy will say its own."""
        self._server_first = data
        if server_first(data) == "other":
            self._stay("other")

    def _follow(self, data: bytes) -> None:
        """Requests, from between two of them or within a body that is for the app."""
        requests, at, begin = self._requests, 0, 0  # data[begin:at] is for the app, and not sent yet
        self._partial = False
        while at < len(data):
            event, end = requests.next(data, at)
            if type(event) is RequestHead:
                self.heads += 1
                if self._policy.claims(event) and self._claim(event, data[end:], data[begin:at]):
                    return
                if not self._to_app(event):
                    self._send_app(data[begin:at] + event.raw + data[end:])
                    self._be_raw("app", "pipeline")
                    return
                if len(event.raw) != end - at:  # its beginning came before
                    self._send_app(data[begin:at] + event.raw)
                    begin = end
            elif type(event) is Raw:
                self._send_app(data[begin:at] + event.held + data[end:])
                self._be_raw("app", event.reason)
                return
            elif event is None:  # it is held
                self._partial = True
                self._send_app(data[begin:at])
                begin = end
            at = end
        self._send_app(data[begin:])

    def _to_app(self, head: RequestHead) -> bool:
        """Expect its response from the app. False where too many requests have none."""
        if not self._app:
            self._owner.dial_app()
            self._app = True
        self._since = False
        if self._policy.watched:
            self.record(head)
        return self._responses.expect(head)

    def record(self, head: RequestHead) -> None:
        """Somebody watches: :class:`~meshdev.sidecar.passthrough.recording.RecordingSwitch` does."""

    def _send_app(self, data: bytes) -> None:
        if data:
            self._owner.send("app", data)

    def _claim(self, head: RequestHead, rest: bytes, before: bytes) -> bool:
        """Send it to Envoy, as soon as its turn has come. False where Envoy is not there."""
        if self._responses.waiting:
            self._send_app(before)
            self._claimed, self._later, self.reading = head, rest, False
            return True
        if not self._envoy and not self._owner.dial_envoy():
            return False
        self._send_app(before)
        self._begin(head, rest)
        return True

    def _begin(self, head: RequestHead, rest: bytes) -> None:
        self._envoy = self._at_envoy = self._since = True
        self._answered = self._ends = False
        self._answers = self._answers or ResponseFollower()
        self._answers.expect(head)
        self._owner.send("envoy", head.raw)
        self.reading = not head.exchange.sent
        if head.exchange.sent:
            self._later = rest
        elif rest:
            self._follow_claimed(rest)

    def _follow_claimed(self, data: bytes) -> None:
        """The body of the request that is at Envoy."""
        at = 0
        while at < len(data):
            event, end = self._requests.next(data, at)
            if type(event) is Raw:
                self._owner.send("envoy", data[:at] + event.held + data[end:])
                self._drop_app()
                self._be_raw("envoy", event.reason)
                return
            at = end
            if type(event) is Body and event.last:
                self._later, self.reading = data[at:], False
                break
        self._owner.send("envoy", data[:at])

    def _follow_app(self, data: bytes) -> None:
        at, responses = 0, self._responses
        while at < len(data):
            event, at = responses.next(data, at)
            if type(event) is Raw:
                self._stay(event.reason)
                return
        if self._claimed is not None and not responses.waiting:
            head, rest, self._claimed, self._later = self._claimed, self._later, None, b""
            self.reading = True
            if self._envoy or self._owner.dial_envoy():
                self._begin(head, rest)
            else:
                self._to_app(head)
                self._owner.send("app", head.raw)
                self._go_on(rest)

    def _follow_envoy(self, data: bytes) -> None:
        at, answers = 0, self._answers or ResponseFollower()
        while at < len(data):
            event, at = answers.next(data, at)
            if type(event) is Raw:
                self._stay_at_envoy(self._later)
                self._later = b""
                return
            if type(event) is ResponseHead and event.final:
                self._ends = not event.keep_alive
        if not answers.waiting:
            self._at_envoy = False
            if self._ends or (self._policy.draining and not self._app):
                self._end()
            else:
                rest, self._later = self._later, b""
                self.reading = True
                self._go_on(rest)

    def _go_on(self, rest: bytes) -> None:
        """With what the client sent meanwhile."""
        if rest:
            self._follow(rest)
        if self._client_ended and not self._at_envoy and self._claimed is None and self._raw is None:
            self._pass_end()

    def _pass_end(self) -> None:
        """The client's end of stream, to the app; whatever is held goes before it."""
        if self._app:
            self._stay("other", counts=False)
        else:
            self._finish_client()

    def _stay(self, reason: Reason, *, counts: bool = True) -> None:
        """Everything is for the app from here on, and what is held goes there first."""
        if self._server_first:
            self._owner.send("client", self._server_first)
        head = self._claimed.raw if self._claimed is not None else b""
        held = self._first + head + self._later + self._requests.give_up(reason).held
        self._first = self._server_first = self._later = b""
        self._claimed, self._sniffing = None, False
        self._send_app(held)
        self._be_raw("app", reason if counts else None)

    def _stay_at_envoy(self, held: bytes) -> None:
        self._sniffing = False
        self._drop_app()
        if held:
            self._owner.send("envoy", held)
        self._be_raw("envoy", None)

    def _be_raw(self, side: Side, reason: Reason | None) -> None:
        self._raw, self.reading = side, True
        if reason is not None:
            self._owner.raw(reason)
        if self._client_ended:
            self._owner.finish(side)

    def _finish_client(self) -> None:
        if not self._client_finished:
            self._client_finished = True
            self._owner.finish("client")

    def _end(self) -> None:
        """The client has its last response."""
        self._drop_app()
        self._lose_envoy()
        self._finish_client()
        self.reading = True

    def _drop_app(self) -> None:
        if self._app:
            self._app = False
            self._owner.drop("app")

    def _lose_app(self) -> None:
        """The next request that is not claimed finds another connection, unless the app is about to end."""
        self._drop_app()
        self._responses = ResponseFollower()
        if self._policy.draining:
            self.drain()

    def _lose_envoy(self) -> None:
        self._at_envoy = False
        if self._envoy:
            self._envoy = False
            self._answers = None
            self._owner.drop("envoy")
