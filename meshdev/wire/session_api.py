"""Messages between the commands and the session, as JSON lines.

Progress (a socketpair that ``connect`` makes)::

    CLI → session   {"connect": {…ConnectOptions…}}          one line; end of file before "done" = cancel and undo
    session → CLI   {"event": "step" | "note" | "wait", …}   any number
                    {"event": "done", "status": {…}}         or {"event": "error", "error": {…}, "exit_code": n}

Session API (``session.sock``, one request and one answer a connection)::

    {"op": "status", "settled": false}  →  {"ok": {…Status…}}
    {"op": "disconnect"}                →  {"ok": {}}         after everything is undone
                                        or {"error": {…}, "exit_code": n}

``leave`` and the stream ``intercept`` are described in :mod:`meshdev.wire.session_intercepts`, and the stream
``inspect`` in :mod:`meshdev.wire.session_inspect`; ``dashboard`` in :mod:`meshdev.wire.session_dashboard`.
"""

from typing import Final, Literal, overload

from meshdev.config import MAX_CARRIERS
from meshdev.errors import MeshdevError, by_code
from meshdev.wire import values
from meshdev.wire.codecs import FLAG, MAX_TEXT, PORT, Choice, Codec, Integer, Many, Nullable, Number, Parsed, Text
from meshdev.wire.framing import CARRIER_KINDS, CarrierKind
from meshdev.wire.jsonlines import encode
from meshdev.wire.message import Tagged, decode, dump, field, load, message, nested, take
from meshdev.wire.session_dashboard import DashboardRequest, DashboardServed
from meshdev.wire.session_inspect import InspectRequest, Requests
from meshdev.wire.session_intercepts import InterceptRequest, InterceptStatus, LeaveRequest, Left, Live, Up

#: ``degraded``: the tunnel is up, but something of ours on this machine is not as it should be; the notes say what.
ConnectionState = Literal["connected", "degraded", "connecting", "reconnecting", "disconnected"]
STATES: Final[tuple[ConnectionState, ...]] = ("connected", "degraded", "connecting", "reconnecting", "disconnected")
AskedCarrier = Literal["auto", CarrierKind]
CARRIERS: Final[tuple[AskedCarrier, ...]] = ("auto", *CARRIER_KINDS)

_MAX_PID: Final = 1 << 22  # kernel: PID_MAX_LIMIT on 64 bit
_MAX_SECONDS: Final = 1e9


_TEXT: Final = Nullable(Text())
_NAME: Final = Nullable(Text(1024))
_NAMESPACE: Final = Nullable(Text(253))
_PATH: Final = Nullable(Parsed(values.absolute_path, MAX_TEXT))
_LISTEN: Final = Nullable(Parsed(values.listen_address))
_URL: Final = Nullable(Text(2048))
_PID: Final = Nullable(Integer(1, _MAX_PID))
_SECONDS: Final = Number(0, _MAX_SECONDS)
_TEXTS: Final = Many(Text())
_RANGES: Final = Many(Text(64))


@message(strict=True, kw_only=True)
class ConnectOptions:
    """The options of ``connect``. Paths are absolute: the session's directory is not the caller's."""

    kubeconfig: str | None = field(_PATH, default=None)  #: one path; None: those of KUBECONFIG, else kubectl's default
    context: str | None = field(_NAME, default=None)
    directory: str | None = field(_PATH, default=None)  #: where credential plugins run: their arguments may be relative
    namespace: str | None = field(_NAMESPACE, default=None)
    as_user: str | None = field(_NAME, default=None)
    request_timeout: float | None = field(Nullable(_SECONDS), default=None)  #: of one API call; None: the default
    manager_namespace: str | None = field(_NAMESPACE, default=None)
    image: str | None = field(_NAME, default=None)
    image_pull_secret: str | None = field(_NAMESPACE, default=None)
    carrier: AskedCarrier = field(Choice(CARRIERS), default="auto")
    carriers: int = field(Integer(1, MAX_CARRIERS), default=2)
    also: tuple[str, ...] = field(_RANGES, default=())
    never: tuple[str, ...] = field(_RANGES, default=())
    upgrade: bool = field(FLAG, default=False)
    unguarded: bool = field(FLAG, default=False)
    debug: bool = field(FLAG, default=False)
    isolated: bool = field(FLAG, default=False, sparse=True)  #: in namespaces of its own, which the helper makes
    attended: bool = field(FLAG, default=False, sparse=True)  #: it ends with the process that follows its progress
    metrics_port: int | None = field(Nullable(PORT), default=None, sparse=True)  #: of 127.0.0.1; None: not served
    socks: values.ListenAddress | None = field(_LISTEN, default=None, sparse=True)  #: where the proxy listens
    otlp: str | None = field(_URL, default=None, sparse=True)  #: where spans are sent; without credentials
    otlp_logs: bool = field(FLAG, default=False, sparse=True)  #: logs, too
    ssh: str | None = field(_NAME, default=None, sparse=True)  #: the bastion, as it was typed

    def encode(self) -> bytes:
        """The first line on the progress socket."""
        return encode({"connect": dump(self)})

    @classmethod
    def parse(cls, line: bytes) -> "ConnectOptions":
        """The options in that line."""
        return decode(line, "The first line", lambda found: load(_FirstLine, found)).connect


@message(strict=True)
class _FirstLine:
    connect: ConnectOptions = field(nested(ConnectOptions))


@message()
class DnsStatus:
    """How names are resolved: *integration* is ``resolved``, ``redirect`` or ``file``."""

    integration: str = field(Text(), key="way")  # the key is public: scripts read it from `status -o json`
    nameserver: str | None = field(_TEXT, default=None)
    search: tuple[str, ...] = field(_TEXTS, default=())
    domains: tuple[str, ...] = field(_TEXTS, default=())


class _Dns(Codec[DnsStatus | None]):
    """An object for scripts, empty until there is DNS."""

    def load(self, value: object) -> DnsStatus | None:
        return None if value == {} else load(DnsStatus, value)

    def dump(self, value: DnsStatus | None) -> object:
        return dump(value) if value else {}


@message()
class CarrierStatus:
    """One port-forward of the pool; *kind* is one of ``CARRIER_KINDS``, *rtt_ms* its last heartbeat."""

    kind: str = field(Text())
    up: bool = field(FLAG)
    rtt_ms: float | None = field(Nullable(_SECONDS), default=None)


@message(kw_only=True)
class Status:
    """The answer of ``status``. Scripts rely on these keys; what does not exist is null or empty."""

    state: ConnectionState = field(Choice(STATES))
    context: str | None = field(_TEXT, default=None)
    namespace: str | None = field(_TEXT, default=None)
    server: str | None = field(_TEXT, default=None)
    address: str | None = field(_TEXT, default=None)
    carrier: str | None = field(_TEXT, default=None)
    carriers: tuple[CarrierStatus, ...] = field(Many(nested(CarrierStatus)), default=())
    routes: tuple[str, ...] = field(_TEXTS, default=())
    dns: DnsStatus | None = field(_Dns(), default=None)
    manager_namespace: str | None = field(_TEXT, key="manager.namespace", default=None)
    manager_pod: str | None = field(_TEXT, key="manager.pod", default=None)
    session_pid: int | None = field(_PID, key="pids.session", default=None)
    helper_pid: int | None = field(_PID, key="pids.helper", default=None)
    intercepts: tuple[InterceptStatus, ...] = field(Many(nested(InterceptStatus)), default=())
    metrics: str | None = field(_TEXT, default=None, sparse=True)
    """Where the session serves its metrics."""
    socks: str | None = field(_TEXT, default=None, sparse=True)
    """Where its proxy for SOCKS5 and HTTP listens."""
    otlp: str | None = field(_TEXT, default=None, sparse=True)
    """Where it sends spans, and logs where these are asked for."""
    ssh: str | None = field(_TEXT, default=None, sparse=True)
    """The bastion through which the API server is reached."""
    leftovers: tuple[str, ...] = field(_TEXTS, default=())
    since_s: float | None = field(Nullable(_SECONDS), default=None)
    """Seconds since the state last changed."""
    notes: tuple[str, ...] = field(_TEXTS, default=())
    """Sentences worth reading: an overlap that was handled, why it reconnects."""


@message()
class Step:
    """A finished step: *name* is stable, *text* its result, *seconds* its duration."""

    name: str = field(Text(64))
    text: str = field(Text())
    seconds: float = field(Number(0, _MAX_SECONDS, digits=3))


@message()
class Note:
    """Something the user should know; not an error."""

    text: str = field(Text())


@message()
class Wait:
    """What the session is waiting for, until the next event."""

    text: str = field(Text())


@message()
class Done:
    """Connected; the CLI may exit."""

    status: Status = field(nested(Status))


@message()
class Failed:
    """An error sent between processes: the last event, or the answer of the session API."""

    code: str = field(Text(64), key="error.code")
    message: str = field(Text(), key="error.message")
    hint: str | None = field(_TEXT, key="error.hint")
    exit_code: int = field(Integer(1, 255))

    @classmethod
    def of(cls, error: MeshdevError) -> "Failed":
        """The same error as data."""
        return cls(error.code, error.message, error.hint, error.exit_code)

    def as_error(self) -> MeshdevError:
        """The error of the tree with that code, to be raised; the root where this version does not know it."""
        return (by_code(self.code) or MeshdevError)(self.message, hint=self.hint)


#: Done comes on the progress socket only; Up, Live and Left in the stream of an intercept only, Requests in that of
#: ``inspect``, DashboardServed in that of ``dashboard``.
Event = Step | Note | Wait | Done | Up | Live | Left | Requests | DashboardServed | Failed

_EVENTS: Final[Tagged[Event]] = Tagged(
    "event",
    {
        "step": Step,
        "note": Note,
        "wait": Wait,
        "done": Done,
        "up": Up,
        "live": Live,
        "left": Left,
        "requests": Requests,
        "dashboard": DashboardServed,
        "error": Failed,
    },
)


def encode_event(event: Event) -> bytes:
    """One line of progress, or of an intercept's stream."""
    return encode(_EVENTS.dump(event))


def parse_event(line: bytes) -> Event:
    """The event in one line."""
    return decode(line, "An event", _EVENTS.load)


@message(strict=True)
class StatusRequest:
    """Asks for the status; *settled*: the answer comes only when the state is no longer ``connecting``.

    A session that fails while such a request waits answers with its error.
    """

    settled: bool = field(FLAG, default=False, optional=True)


@message(strict=True)
class DisconnectRequest:
    """Asks the session to undo everything and end; the answer comes when that is done.

    *cancelled*: by who cancelled the connect, too late: what it created in the cluster is undone, too.
    """

    cancelled: bool = field(FLAG, default=False, sparse=True)


#: Requests with one answer.
Question = StatusRequest | DisconnectRequest | LeaveRequest
Request = Question | InterceptRequest | InspectRequest | DashboardRequest
#: To ``status``; to ``leave``, what was left; to ``disconnect``.
Answer = Status | tuple[str, ...] | None

_REQUESTS: Final[Tagged[Request]] = Tagged(
    "op",
    {
        "status": StatusRequest,
        "disconnect": DisconnectRequest,
        "leave": LeaveRequest,
        "intercept": InterceptRequest,
        "inspect": InspectRequest,
        "dashboard": DashboardRequest,
    },
)


def encode_request(request: Request) -> bytes:
    """One line to the session API."""
    return encode(_REQUESTS.dump(request))


def parse_request(line: bytes) -> Request:
    """The request in one line."""
    return decode(line, "The request", _REQUESTS.load)


@message()
class _WasLeft:
    left: tuple[str, ...] = field(_TEXTS)


@message()
class _Nothing:
    pass


def encode_answer(answer: Answer | Failed) -> bytes:
    """One line from the session API."""
    if isinstance(answer, Failed):
        return encode(dump(answer))
    if isinstance(answer, tuple):
        return encode({"ok": dump(_WasLeft(answer))})
    return encode({"ok": dump(answer or _Nothing())})


@overload
def parse_answer(request: StatusRequest, line: bytes) -> Status: ...
@overload
def parse_answer(request: LeaveRequest, line: bytes) -> tuple[str, ...]: ...
@overload
def parse_answer(request: DisconnectRequest, line: bytes) -> None: ...
def parse_answer(request: Question, line: bytes) -> Answer:
    """What the session answered to *request*; raises the error it answered."""
    return decode(line, "The session's answer", lambda found: _answer(request, found))


def _answer(request: Question, found: dict[str, object]) -> Answer:
    if "error" in found:
        raise load(Failed, found).as_error()
    match request:
        case StatusRequest():
            return take(found, "ok", nested(Status))
        case LeaveRequest():
            return take(found, "ok", nested(_WasLeft)).left
        case DisconnectRequest():
            take(found, "ok", nested(_Nothing))
            return None


def parse_failure(line: bytes, exit_code: int) -> Failed:
    """The error in the last line of a process that ended with *exit_code*."""
    return decode(line, "The last line", lambda found: load(Failed, found | {"exit_code": exit_code}))
