"""What the commands and the session say to each other, as JSON lines.

Progress (a socketpair that ``connect`` makes)::

    CLI → session   {"connect": {…ConnectOptions…}}          one line; end of file before "done" = cancel and undo
    session → CLI   {"event": "step" | "note" | "wait", …}   any number
                    {"event": "done", "status": {…}}         or {"event": "error", "error": {…}, "exit_code": n}

Session API (``session.sock``, one request and one answer a connection)::

    {"op": "status", "settled": false}  →  {"ok": {…Status…}}
    {"op": "disconnect"}                →  {"ok": {}}         after everything is undone
                                        or {"error": {…}, "exit_code": n}

``leave`` and the stream ``intercept`` are described in :mod:`meshdev.wire.session_intercepts`.
"""

from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Final, Literal, overload

from meshdev.config import MAX_CARRIERS
from meshdev.errors import MeshdevError, ProtocolError, by_code
from meshdev.wire.fields import Fields
from meshdev.wire.jsonlines import decode, encode
from meshdev.wire.session_intercepts import InterceptRequest, InterceptStatus, LeaveRequest, Left, Live, Up

#: ``degraded``: the tunnel stands, but something of ours on this machine is not as it should be; the notes say what.
State = Literal["connected", "degraded", "connecting", "reconnecting", "disconnected"]
STATES: Final[tuple[State, ...]] = ("connected", "degraded", "connecting", "reconnecting", "disconnected")
Carrier = Literal["auto", "spdy", "websocket"]
CARRIERS: Final[tuple[Carrier, ...]] = ("auto", "spdy", "websocket")

_MAX_PID: Final = 1 << 22  # kernel: PID_MAX_LIMIT on 64 bit
_MAX_SECONDS: Final = 1e9


@dataclass(frozen=True, kw_only=True)
class ConnectOptions:
    """All that ``connect`` was asked for. Paths are absolute: the session's directory is not the caller's."""

    kubeconfig: str | None = None  #: one path; None: those of KUBECONFIG, else kubectl's default
    context: str | None = None
    directory: str | None = None  #: where credential plugins run: their arguments may be relative
    namespace: str | None = None
    as_user: str | None = None
    request_timeout: float | None = None  #: seconds for one API call; None: the session's own default
    manager_namespace: str | None = None
    image: str | None = None
    image_pull_secret: str | None = None
    carrier: Carrier = "auto"
    carriers: int = 2
    also: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    upgrade: bool = False
    unguarded: bool = False
    debug: bool = False

    def encode(self) -> bytes:
        """The first line on the progress socket."""
        return encode({"connect": asdict(self)})

    @classmethod
    def parse(cls, line: bytes) -> "ConnectOptions":
        """The options in that line."""
        outer = decode(line, "The first line")
        fields = outer.inner("connect")
        outer.end()
        options = cls(
            kubeconfig=_absolute(fields.text_or_none("kubeconfig")),
            context=fields.text_or_none("context", 1024),
            directory=_absolute(fields.text_or_none("directory")),
            namespace=fields.text_or_none("namespace", 253),
            as_user=fields.text_or_none("as_user", 1024),
            request_timeout=fields.number_or_none("request_timeout", 0, _MAX_SECONDS),
            manager_namespace=fields.text_or_none("manager_namespace", 253),
            image=fields.text_or_none("image", 1024),
            image_pull_secret=fields.text_or_none("image_pull_secret", 253),
            carrier=fields.choice("carrier", CARRIERS),
            carriers=fields.integer("carriers", 1, MAX_CARRIERS),
            also=fields.texts("also", 64),
            never=fields.texts("never", 64),
            upgrade=fields.flag("upgrade"),
            unguarded=fields.flag("unguarded"),
            debug=fields.flag("debug"),
        )
        fields.end()
        return options


@dataclass(frozen=True)
class DnsStatus:
    """How names are resolved: *way* is ``resolved``, ``redirect`` or ``file``."""

    way: str
    nameserver: str | None = None
    search: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()


@dataclass(frozen=True)
class CarrierStatus:
    """One port-forward of the pool; *kind* is ``spdy`` or ``websocket``, *rtt_ms* its last heartbeat."""

    kind: str
    up: bool
    rtt_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class Status:
    """The answer of ``status``; as JSON it has contract's keys plus server, carriers, since_s and notes."""

    state: State
    context: str | None = None
    namespace: str | None = None
    server: str | None = None
    address: str | None = None
    carrier: str | None = None
    carriers: tuple[CarrierStatus, ...] = ()
    routes: tuple[str, ...] = ()
    dns: DnsStatus | None = None
    manager_namespace: str | None = None
    manager_pod: str | None = None
    session_pid: int | None = None
    helper_pid: int | None = None
    intercepts: tuple[InterceptStatus, ...] = ()
    leftovers: tuple[str, ...] = ()
    since_s: float | None = None
    """Seconds since the state last changed."""
    notes: tuple[str, ...] = ()
    """Sentences worth reading: an overlap that was handled, why it reconnects."""

    def as_json(self) -> dict[str, object]:
        """The keys that scripts rely on; what there is not is null or empty, never missing."""
        return {
            "state": self.state,
            "context": self.context,
            "namespace": self.namespace,
            "server": self.server,
            "address": self.address,
            "carrier": self.carrier,
            "carriers": [asdict(carrier) for carrier in self.carriers],
            "routes": list(self.routes),
            "dns": asdict(self.dns) if self.dns else {},
            "manager": {"namespace": self.manager_namespace, "pod": self.manager_pod},
            "pids": {"session": self.session_pid, "helper": self.helper_pid},
            "intercepts": [intercept.as_json() for intercept in self.intercepts],
            "leftovers": list(self.leftovers),
            "since_s": self.since_s,
            "notes": list(self.notes),
        }

    @classmethod
    def read(cls, fields: Fields) -> "Status":
        """The status in an object; unknown keys are passed over, so that a newer session can be asked."""
        manager, pids, dns = fields.inner("manager"), fields.inner("pids"), fields.inner("dns")
        return cls(
            state=fields.choice("state", STATES),
            context=fields.text_or_none("context"),
            namespace=fields.text_or_none("namespace"),
            server=fields.text_or_none("server"),
            address=fields.text_or_none("address"),
            carrier=fields.text_or_none("carrier"),
            carriers=fields.inners("carriers", _read_carrier),
            routes=fields.texts("routes"),
            dns=_read_dns(dns) if "way" in dns else None,
            manager_namespace=manager.text_or_none("namespace"),
            manager_pod=manager.text_or_none("pod"),
            session_pid=pids.integer_or_none("session", 1, _MAX_PID),
            helper_pid=pids.integer_or_none("helper", 1, _MAX_PID),
            intercepts=fields.inners("intercepts", InterceptStatus.read),
            leftovers=fields.texts("leftovers"),
            since_s=fields.number_or_none("since_s", 0, _MAX_SECONDS),
            notes=fields.texts("notes"),
        )


def _read_dns(fields: Fields) -> DnsStatus:
    return DnsStatus(
        way=fields.text("way"),
        nameserver=fields.text_or_none("nameserver"),
        search=fields.texts("search"),
        domains=fields.texts("domains"),
    )


def _read_carrier(fields: Fields) -> CarrierStatus:
    return CarrierStatus(
        kind=fields.text("kind"), up=fields.flag("up"), rtt_ms=fields.number_or_none("rtt_ms", 0, _MAX_SECONDS)
    )


@dataclass(frozen=True)
class Step:
    """A step that is done: *name* is stable, *text* its value, *seconds* what it took."""

    name: str
    text: str
    seconds: float

    def as_json(self) -> dict[str, object]:
        """The event."""
        return {"event": "step", "name": self.name, "text": self.text, "seconds": round(self.seconds, 3)}


@dataclass(frozen=True)
class Note:
    """Something the user should know; not an error."""

    text: str

    def as_json(self) -> dict[str, object]:
        """The event."""
        return {"event": "note", "text": self.text}


@dataclass(frozen=True)
class Wait:
    """What is being waited for, until the next event."""

    text: str

    def as_json(self) -> dict[str, object]:
        """The event."""
        return {"event": "wait", "text": self.text}


@dataclass(frozen=True)
class Done:
    """Connected; the CLI may leave."""

    status: Status

    def as_json(self) -> dict[str, object]:
        """The event."""
        return {"event": "done", "status": self.status.as_json()}


@dataclass(frozen=True)
class Failed:
    """An error on its way between processes: the last event, or the answer of the session API."""

    code: str
    message: str
    hint: str | None
    exit_code: int

    @classmethod
    def of(cls, error: MeshdevError) -> "Failed":
        """The same error as data."""
        return cls(error.code, error.message, error.hint, error.exit_code)

    def as_error(self) -> MeshdevError:
        """The error of the tree with that code, to be raised; the root where this version does not know it."""
        return (by_code(self.code) or MeshdevError)(self.message, hint=self.hint)

    def as_answer(self) -> dict[str, object]:
        """The answer of the session API."""
        error = {"code": self.code, "message": self.message, "hint": self.hint}
        return {"error": error, "exit_code": self.exit_code}

    def as_json(self) -> dict[str, object]:
        """The event."""
        return {"event": "error", **self.as_answer()}

    @classmethod
    def read(cls, fields: Fields, exit_code: int | None = None) -> "Failed":
        """The error in an event or answer; *exit_code* where it is not among the fields."""
        error = fields.inner("error")
        failed = cls(
            code=error.text("code", 64),
            message=error.text("message"),
            hint=error.text_or_none("hint"),
            exit_code=fields.integer("exit_code", 1, 255) if exit_code is None else exit_code,
        )
        error.end()
        return failed


#: Done comes on the progress socket only; Up, Live and Left in the stream of an intercept only.
Event = Step | Note | Wait | Done | Up | Live | Left | Failed

_EVENTS: Final = ("step", "note", "wait", "done", "up", "live", "left", "error")


def encode_event(event: Event) -> bytes:
    """One line of progress, or of an intercept's stream."""
    return encode(event.as_json())


def parse_event(line: bytes) -> Event:
    """The event in one line."""
    fields = decode(line, "An event")
    event: Event
    match fields.choice("event", _EVENTS):
        case "step":
            event = Step(fields.text("name", 64), fields.text("text"), fields.number("seconds", 0, _MAX_SECONDS))
        case "note":
            event = Note(fields.text("text"))
        case "wait":
            event = Wait(fields.text("text"))
        case "done":
            event = Done(Status.read(fields.inner("status")))
        case "up":
            event = Up(InterceptStatus.read(fields.inner("intercept")))
        case "live":
            event = Live(InterceptStatus.read(fields.inner("intercept")))
        case "left":
            event = Left()
        case _:
            event = Failed.read(fields)
    fields.end()
    return event


@dataclass(frozen=True)
class StatusRequest:
    """Asks for the status; *settled*: the answer comes only when the state is no longer ``connecting``.

    A session that fails while such a request waits answers with its error.
    """

    settled: bool = False

    def as_json(self) -> dict[str, object]:
        """The request."""
        return {"op": "status", "settled": self.settled}


@dataclass(frozen=True)
class DisconnectRequest:
    """Asks the session to undo everything and end; the answer comes when that is done."""

    def as_json(self) -> dict[str, object]:
        """The request."""
        return {"op": "disconnect"}


#: Requests with one answer.
Question = StatusRequest | DisconnectRequest | LeaveRequest
Request = Question | InterceptRequest
#: To ``status``; to ``leave``, what was left; to ``disconnect``.
Answer = Status | tuple[str, ...] | None

_OPS: Final = ("status", "disconnect", "leave", "intercept")


def encode_request(request: Request) -> bytes:
    """One line to the session API."""
    return encode(request.as_json())


def parse_request(line: bytes) -> Request:
    """The request in one line."""
    fields = decode(line, "The request")
    request: Request
    match fields.choice("op", _OPS):
        case "status":
            request = StatusRequest(fields.flag("settled") if "settled" in fields else False)
        case "disconnect":
            request = DisconnectRequest()
        case "leave":
            request = LeaveRequest.read(fields)
        case _:
            request = InterceptRequest.read(fields)
    fields.end()
    return request


def encode_answer(answer: Answer | Failed) -> bytes:
    """One line from the session API."""
    if isinstance(answer, Failed):
        return encode(answer.as_answer())
    if isinstance(answer, tuple):
        return encode({"ok": {"left": list(answer)}})
    return encode({"ok": answer.as_json() if answer else {}})


@overload
def parse_answer(request: StatusRequest, line: bytes) -> Status: ...
@overload
def parse_answer(request: LeaveRequest, line: bytes) -> tuple[str, ...]: ...
@overload
def parse_answer(request: DisconnectRequest, line: bytes) -> None: ...
def parse_answer(request: Question, line: bytes) -> Answer:
    """What the session answered to *request*; raises the error it answered."""
    fields = decode(line, "The session's answer")
    if "error" in fields:
        raise Failed.read(fields).as_error()
    ok = fields.inner("ok")
    if isinstance(request, StatusRequest):
        return Status.read(ok)
    return ok.texts("left") if isinstance(request, LeaveRequest) else None


def _absolute(path: str | None) -> str | None:
    if path is not None and not PurePosixPath(path).is_absolute():
        raise ProtocolError("a path of the first line is not absolute")
    return path
