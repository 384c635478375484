"""The lines themselves: the greeting, a request or an answer with its number, an error on its way."""

from collections.abc import Callable
from dataclasses import dataclass

from meshdev.errors import LaptopError, MeshdevError, ProtocolError, by_code
from meshdev.wire import values
from meshdev.wire.fields import Fields, plain
from meshdev.wire.helper.answers import Result
from meshdev.wire.helper.limits import MAX_FDS, MAX_NAMES, MAX_UPSTREAMS, MAX_WORDS, VERSION, WAYS, Way
from meshdev.wire.helper.requests import REQUESTS, Request
from meshdev.wire.jsonlines import decode, encode
from meshdev.wire.values import IPAddress


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
            found.text("why", MAX_WORDS),
            found.distinct("nameservers", values.address, MAX_UPSTREAMS),
            found.distinct("search", values.name, MAX_NAMES),
        )


@dataclass(frozen=True, slots=True)
class Fault:
    """An error on its way between two processes."""

    code: str
    message: str
    hint: str | None

    @classmethod
    def read(cls, found: Fields) -> "Fault":
        return cls(found.text("code", 64), found.text("message", MAX_WORDS), found.text_or_none("hint", MAX_WORDS))

    @classmethod
    def of(cls, error: MeshdevError) -> "Fault":
        """The same error, fit to travel."""
        return cls(error.code, error.message[:MAX_WORDS], error.hint[:MAX_WORDS] if error.hint else None)

    def as_error(self) -> MeshdevError:
        """The error class of that code, or LaptopError for one that this build does not know."""
        return (by_code(self.code) or LaptopError)(self.message, hint=self.hint)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for the request of that number, and how many descriptors belong to it."""

    id: int
    result: Result | Fault
    fds: int = 0


def encode_request(number: int, request: Request) -> bytes:
    """The line of one request."""
    return encode({"id": number, "op": request.op, **plain(request)})


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
    return encode({"id": answer.id, key: plain(answer.result), "fds": answer.fds})


def parse_answer(line: bytes, expected: Callable[[int], type[Result] | None]) -> Answer:
    """An answer; *expected* names the kind of result for a request's number, None for a number never asked."""
    found = decode(line, "The answer")
    number, fds = found.integer("id", 0, 1 << 53), found.integer("fds", 0, MAX_FDS)
    kind = expected(number)
    if kind is None:
        raise ProtocolError(f"An answer to request {number}, which was not asked")
    read: Callable[[Fields], Result] = kind.read
    result = found.inner("error").whole(Fault.read) if "error" in found else found.inner("ok").whole(read)
    found.end()
    return Answer(number, result, fds)


def encode_greeting(greeting: Greeting | Fault) -> bytes:
    """The helper's first line, or the reason why there will be no helper."""
    if isinstance(greeting, Fault):
        return encode({"helper": VERSION, "error": plain(greeting)})
    return encode({"helper": VERSION, **plain(greeting)})


def parse_greeting(line: bytes) -> Greeting | Fault:
    """The helper's first line. Raises ProtocolError on another version: session and helper are one installation."""
    found = decode(line, "The greeting")
    found.integer("helper", VERSION, VERSION)
    greeting = found.inner("error").whole(Fault.read) if "error" in found else Greeting.read(found)
    found.end()
    return greeting
