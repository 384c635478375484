"""What the session asks of the root helper, and what it answers: one JSON object a line over a stream socket.

A closed list of requests; whoever reads a line checks every value in it. Descriptors travel beside an answer
(SCM_RIGHTS): ``fds`` of its envelope says how many belong to it, because the kernel may glue lines together.

::

    helper  → {"helper": 1, "pid": 7, "uid": 1000, "dns": "redirect", …}      the greeting, before any request
    session → {"id": 1, "op": "open_tun", "queues": 2}
    helper  → {"id": 1, "ok": {"device": "meshdev0", "offload": 103}, "fds": 2}
    helper  → {"id": 2, "error": {"code": "route", "message": "…", "hint": null}, "fds": 0}
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any, ClassVar, Final, Literal, TypeVar

from meshdev.errors import LaptopError, MeshdevError, ProtocolError
from meshdev.wire import values
from meshdev.wire.jsonlines import Fields, decode, encode
from meshdev.wire.values import IPAddress

VERSION: Final = 1
LINE_LIMIT: Final = 256 * 1024
MAX_QUEUES: Final = 8
MAX_ROUTES: Final = 8192
MAX_REFUSED: Final = 64
MAX_NAMES: Final = 32
MAX_UPSTREAMS: Final = 8
#: SCM_MAX_FD of Linux include/net/scm.h is 253; no answer of ours comes near it.
MAX_FDS: Final = 64

Way = Literal["resolved", "redirect", "file"]
WAYS: Final[tuple[Way, ...]] = ("resolved", "redirect", "file")

#: The session's beat, and the silence after which the helper takes the laptop's DNS back (design: D11), in seconds.
BEAT_SECONDS: Final = 1.0
BEAT_LIMIT_SECONDS: Final = 3.0

T = TypeVar("T")
_MAX_TEXT: Final = 4096


# Answers


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing more to say."""

    @classmethod
    def read(cls, _: Fields) -> "Done":
        """Of an answer's object, as all ``read`` here."""
        return cls()


@dataclass(frozen=True, slots=True)
class TunOpened:
    """The device is there, down and without an address; beside it one descriptor a queue."""

    device: str
    offload: int

    @classmethod
    def read(cls, found: Fields) -> "TunOpened":
        return cls(_one(found, "device", values.interface), found.integer("offload", 0, 0xFFFF))


@dataclass(frozen=True, slots=True)
class AddressSet:
    """The device is up. ``guard``: a packet filter keeps unasked connections out; ``note`` says why there is none."""

    guard: bool
    note: str | None

    @classmethod
    def read(cls, found: Fields) -> "AddressSet":
        return cls(found.flag("guard"), found.text_or_none("note", _MAX_TEXT))


@dataclass(frozen=True, slots=True)
class Refused:
    """A route that the kernel did not take, in the kernel's words."""

    route: IPv4Network
    reason: str

    @classmethod
    def read(cls, found: Fields) -> "Refused":
        return cls(_one(found, "route", values.route), found.text("reason", _MAX_TEXT))


@dataclass(frozen=True, slots=True)
class RoutesSet:
    """What the kernel has now, and (the first MAX_REFUSED of) what it refused."""

    routes: tuple[IPv4Network, ...]
    refused: tuple[Refused, ...]

    @classmethod
    def read(cls, found: Fields) -> "RoutesSet":
        return cls(
            _many(found, "routes", values.route, MAX_ROUTES), _few(_inners(found, "refused", Refused.read), MAX_REFUSED)
        )


@dataclass(frozen=True, slots=True)
class Listener:
    """Where the forwarder listens; two descriptors: UDP, TCP."""

    address: IPAddress
    port: int

    @classmethod
    def read(cls, found: Fields) -> "Listener":
        return cls(_one(found, "address", values.address), found.integer("port", 1, 65535))


@dataclass(frozen=True, slots=True)
class Upstream:
    """A former resolver; so many descriptors: marked UDP sockets connected to its port 53 (0: no route to it)."""

    address: IPAddress
    sockets: int

    @classmethod
    def read(cls, found: Fields) -> "Upstream":
        return cls(_one(found, "address", values.address), found.integer("sockets", 0, MAX_FDS))


@dataclass(frozen=True, slots=True)
class DnsOpened:
    """The descriptors beside it stand in the order of ``listeners``, then of ``upstreams``."""

    listeners: tuple[Listener, ...]
    upstreams: tuple[Upstream, ...]

    @classmethod
    def read(cls, found: Fields) -> "DnsOpened":
        return cls(
            _few(_inners(found, "listeners", Listener.read), 2),
            _few(_inners(found, "upstreams", Upstream.read), MAX_UPSTREAMS),
        )


@dataclass(frozen=True, slots=True)
class Beat:
    """``active``: the laptop's DNS comes to us. The rest is what it would use without us, as it stands now."""

    active: bool
    nameservers: tuple[IPAddress, ...]
    search: tuple[str, ...]

    @classmethod
    def read(cls, found: Fields) -> "Beat":
        return cls(
            found.flag("active"),
            _many(found, "nameservers", values.address, MAX_UPSTREAMS),
            _many(found, "search", values.name, MAX_NAMES),
        )


Result = Done | TunOpened | AddressSet | RoutesSet | DnsOpened | Beat


# Requests


@dataclass(frozen=True, slots=True)
class OpenTun:
    """Make the device; once a helper."""

    op: ClassVar[str] = "open_tun"
    answer: ClassVar[type[Result]] = TunOpened
    queues: int

    @classmethod
    def read(cls, found: Fields) -> "OpenTun":
        return cls(found.integer("queues", 1, MAX_QUEUES))


@dataclass(frozen=True, slots=True)
class SetAddress:
    """Give the device its address and bring it up; again with another address: move there, without routes."""

    op: ClassVar[str] = "set_address"
    answer: ClassVar[type[Result]] = AddressSet
    address: IPv4Address
    mtu: int

    @classmethod
    def read(cls, found: Fields) -> "SetAddress":
        return cls(_one(found, "address", values.session_address), found.integer("mtu", 576, 65535))


@dataclass(frozen=True, slots=True)
class SetRoutes:
    """The routes that shall exist on the device, all of them."""

    op: ClassVar[str] = "set_routes"
    answer: ClassVar[type[Result]] = RoutesSet
    routes: tuple[IPv4Network, ...]

    @classmethod
    def read(cls, found: Fields) -> "SetRoutes":
        return cls(_many(found, "routes", values.route, MAX_ROUTES))


@dataclass(frozen=True, slots=True)
class AddRoutes:
    """Routes to add to those that exist: what one DNS answer needs, without telling all of them again.

    The answer's ``routes`` are those of the request that are in force.
    """

    op: ClassVar[str] = "add_routes"
    answer: ClassVar[type[Result]] = RoutesSet
    routes: tuple[IPv4Network, ...]

    @classmethod
    def read(cls, found: Fields) -> "AddRoutes":
        return cls(_many(found, "routes", values.route, MAX_ROUTES))


@dataclass(frozen=True, slots=True)
class DnsSockets:
    """Sockets for the forwarder; again: a fresh set, as after a change of network."""

    op: ClassVar[str] = "dns_sockets"
    answer: ClassVar[type[Result]] = DnsOpened
    upstreams: tuple[IPAddress, ...]

    @classmethod
    def read(cls, found: Fields) -> "DnsSockets":
        return cls(_many(found, "upstreams", values.address, MAX_UPSTREAMS))


@dataclass(frozen=True, slots=True)
class UpstreamTcp:
    """One marked, non-blocking TCP socket of the server's family, not connected."""

    op: ClassVar[str] = "upstream_tcp"
    answer: ClassVar[type[Result]] = Done
    server: IPAddress

    @classmethod
    def read(cls, found: Fields) -> "UpstreamTcp":
        return cls(_one(found, "server", values.address))


@dataclass(frozen=True, slots=True)
class SetDns:
    """Send the laptop's DNS to the forwarder; again: with other names.

    ``search`` is appended to short names (resolved, file); ``domains`` are asked here, "." for all (resolved only:
    the other ways bring every question).
    """

    op: ClassVar[str] = "set_dns"
    answer: ClassVar[type[Result]] = Done
    search: tuple[str, ...]
    domains: tuple[str, ...]

    @classmethod
    def read(cls, found: Fields) -> "SetDns":
        return cls(_many(found, "search", values.name, MAX_NAMES), _many(found, "domains", values.name, MAX_NAMES))


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The session is alive: without one for BEAT_LIMIT_SECONDS the laptop's DNS goes back, until the next."""

    op: ClassVar[str] = "heartbeat"
    answer: ClassVar[type[Result]] = Beat

    @classmethod
    def read(cls, _: Fields) -> "Heartbeat":
        return cls()


@dataclass(frozen=True, slots=True)
class Close:
    """Undo everything, answer, end. EOF does the same without an answer."""

    op: ClassVar[str] = "close"
    answer: ClassVar[type[Result]] = Done

    @classmethod
    def read(cls, _: Fields) -> "Close":
        return cls()


Request = OpenTun | SetAddress | SetRoutes | AddRoutes | DnsSockets | UpstreamTcp | SetDns | Heartbeat | Close
REQUESTS: Final[tuple[type[Request], ...]] = (
    OpenTun,
    SetAddress,
    SetRoutes,
    AddRoutes,
    DnsSockets,
    UpstreamTcp,
    SetDns,
    Heartbeat,
    Close,
)


# Lines


@dataclass(frozen=True, slots=True)
class Greeting:
    """The helper's first line. ``dns`` is the way that was chosen and ``why`` the one-line trace of that decision;
    ``nameservers`` and ``search`` are what the laptop uses without us."""

    pid: int
    uid: int
    dns: Way
    why: str
    nameservers: tuple[IPAddress, ...]
    search: tuple[str, ...]

    @classmethod
    def read(cls, found: Fields) -> "Greeting":
        return cls(
            found.integer("pid", 1, 1 << 22),  # PID_MAX_LIMIT
            found.integer("uid", 0, 1 << 32),
            found.choice("dns", WAYS),
            found.text("why", _MAX_TEXT),
            _many(found, "nameservers", values.address, MAX_UPSTREAMS),
            _many(found, "search", values.name, MAX_NAMES),
        )


@dataclass(frozen=True, slots=True)
class Fault:
    """An error on its way between two processes."""

    code: str
    message: str
    hint: str | None

    @classmethod
    def read(cls, found: Fields) -> "Fault":
        return cls(found.text("code", 64), found.text("message", _MAX_TEXT), found.text_or_none("hint", _MAX_TEXT))

    @classmethod
    def of(cls, error: MeshdevError) -> "Fault":
        """The same error, fit to travel."""
        return cls(error.code, error.message[:_MAX_TEXT], error.hint[:_MAX_TEXT] if error.hint else None)

    def as_error(self) -> MeshdevError:
        """The error class of that code, or LaptopError for one that this build does not know."""
        kinds: list[type[MeshdevError]] = [MeshdevError]
        for kind in kinds:
            if kind.code == self.code:
                return kind(self.message, hint=self.hint)
            kinds.extend(kind.__subclasses__())
        return LaptopError(self.message, hint=self.hint)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for the request of that number, and how many descriptors belong to it."""

    id: int
    result: Result | Fault
    fds: int = 0


def encode_request(number: int, request: Request) -> bytes:
    """The line of one request."""
    return encode({"id": number, "op": request.op, **_plain(request)})


def parse_request(line: bytes) -> tuple[int, Request]:
    """Number and request of a line. Raises ProtocolError on everything that is not exactly one."""
    found = decode(line, "The request")
    number = found.integer("id", 0, 1 << 53)
    op = found.choice("op", tuple(kind.op for kind in REQUESTS))
    request = next(kind for kind in REQUESTS if kind.op == op).read(found)
    found.end()
    return number, request


def encode_answer(answer: Answer) -> bytes:
    """The line of one answer."""
    key = "error" if isinstance(answer.result, Fault) else "ok"
    return encode({"id": answer.id, key: _plain(answer.result), "fds": answer.fds})


def parse_answer(line: bytes, expected: Callable[[int], type[Result] | None]) -> Answer:
    """An answer; *expected* names the kind of result for a request's number, None for a number never asked."""
    found = decode(line, "The answer")
    number, fds = found.integer("id", 0, 1 << 53), found.integer("fds", 0, MAX_FDS)
    kind = expected(number)
    if kind is None:
        raise ProtocolError(f"An answer to request {number}, which was not asked")
    read: Callable[[Fields], Result] = kind.read
    result = _inner(found, "error", Fault.read) if "error" in found else _inner(found, "ok", read)
    found.end()
    return Answer(number, result, fds)


def encode_greeting(greeting: Greeting | Fault) -> bytes:
    """The helper's first line, or the reason why there will be no helper."""
    if isinstance(greeting, Fault):
        return encode({"helper": VERSION, "error": _plain(greeting)})
    return encode({"helper": VERSION, **_plain(greeting)})


def parse_greeting(line: bytes) -> Greeting | Fault:
    """The helper's first line. Raises ProtocolError on another version: session and helper are one installation."""
    found = decode(line, "The greeting")
    found.integer("helper", VERSION, VERSION)
    greeting = _inner(found, "error", Fault.read) if "error" in found else Greeting.read(found)
    found.end()
    return greeting


# One value, several, an object within


def _inner(found: Fields, key: str, read: Callable[[Fields], T]) -> T:
    inner = found.inner(key)
    value = read(inner)
    inner.end()
    return value


def _inners(found: Fields, key: str, read: Callable[[Fields], T]) -> tuple[T, ...]:
    def whole(inner: Fields) -> T:
        value = read(inner)
        inner.end()
        return value

    return found.inners(key, whole)


def _one(found: Fields, key: str, load: Callable[[str], T]) -> T:
    return _checked(key, load, found.text(key, 255))


def _many(found: Fields, key: str, load: Callable[[str], T], limit: int) -> tuple[T, ...]:
    items = _few(tuple(_checked(key, load, text) for text in found.texts(key, 255)), limit)
    if len(set(items)) != len(items):
        raise ProtocolError(f"{key} repeats an entry")
    return items


def _few(items: tuple[T, ...], limit: int) -> tuple[T, ...]:
    if len(items) > limit:
        raise ProtocolError(f"A list of {len(items)} entries where {limit} are allowed")
    return items


def _checked(key: str, load: Callable[[str], T], text: str) -> T:
    try:
        return load(text)
    except ValueError as error:
        raise ProtocolError(f"{key}: {error}"[:500]) from None


def _plain(value: object) -> Any:  # noqa: ANN401 -- whatever JSON has
    match value:
        case None | bool() | int() | str():
            return value
        case IPv4Address() | IPv6Address() | IPv4Network():
            return str(value)
        case Iterable():
            return [_plain(item) for item in value]
        case _:
            # Every other value in a message is a dataclass, which `object` does not say.
            return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}  # type: ignore[arg-type]
