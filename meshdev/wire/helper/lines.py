"""The lines: the greeting, a request or an answer with its number, an error."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from meshdev.errors import LaptopError, MeshdevError, by_code
from meshdev.wire.codecs import Choice, Integer, Nullable, Text
from meshdev.wire.helper.answers import Result
from meshdev.wire.helper.limits import (
    INTEGRATIONS,
    MAX_FDS,
    MAX_SENTENCE,
    NAMES,
    SENTENCE,
    SERVERS,
    VERSION,
    Integration,
)
from meshdev.wire.helper.requests import REQUESTS, Request
from meshdev.wire.jsonlines import encode
from meshdev.wire.message import Tagged, decode, dump, field, load, message, nested, take
from meshdev.wire.values import IPAddress

_NUMBER: Final = Integer(0, 1 << 53)
_FDS: Final = Integer(0, MAX_FDS)
_VERSION: Final = Integer(VERSION, VERSION)


@message()
class Greeting:
    """The helper's first line. ``dns`` is the chosen DNS integration and ``why`` a one-line trace of that decision;
    ``nameservers`` and ``search`` are what the laptop uses without us."""

    pid: int = field(Integer(1, 1 << 22))  # PID_MAX_LIMIT
    uid: int = field(Integer(0, 1 << 32))
    dns: Integration = field(Choice(INTEGRATIONS))
    why: str = field(SENTENCE)
    nameservers: tuple[IPAddress, ...] = field(SERVERS)
    search: tuple[str, ...] = field(NAMES)


@message()
class HelperFailure:
    """An error sent by the helper."""

    code: str = field(Text(64))
    message: str = field(SENTENCE)
    hint: str | None = field(Nullable(SENTENCE))

    @classmethod
    def of(cls, error: MeshdevError) -> "HelperFailure":
        """Convert *error*, cut to the limits of a line."""
        return cls(error.code, error.message[:MAX_SENTENCE], error.hint[:MAX_SENTENCE] if error.hint else None)

    def as_error(self) -> MeshdevError:
        """The error class of that code, or LaptopError for one that this build does not know."""
        return (by_code(self.code) or LaptopError)(self.message, hint=self.hint)


@dataclass(frozen=True, slots=True)
class HelperAnswer:
    """The answer to the request of that number, and how many descriptors belong to it."""

    id: int
    result: Result | HelperFailure
    fds: int = 0


_REQUESTS: Final = Tagged("op", {kind.op: kind for kind in REQUESTS})


def encode_request(number: int, request: Request) -> bytes:
    """The line of one request."""
    return encode({"id": number, **_REQUESTS.dump(request)})


def parse_request(line: bytes) -> tuple[int, Request]:
    """Number and request of a line. Raises ProtocolError on everything that is not exactly one."""
    return decode(line, "The request", lambda found: (take(found, "id", _NUMBER), _REQUESTS.load(found)))


def encode_answer(answer: HelperAnswer) -> bytes:
    """The line of one answer."""
    key = "error" if isinstance(answer.result, HelperFailure) else "ok"
    return encode({"id": answer.id, key: dump(answer.result), "fds": answer.fds})


def parse_answer(line: bytes, expected: Callable[[int], type[Result] | None]) -> HelperAnswer:
    """An answer; *expected* names the kind of result for a request's number, None for a number never sent."""

    def read(found: dict[str, object]) -> HelperAnswer:
        number, fds = take(found, "id", _NUMBER), take(found, "fds", _FDS)
        kind = expected(number)
        if kind is None:
            raise ValueError(f"request {number} was not sent")
        if "ok" in found and "error" in found:
            raise ValueError("a result and an error")
        result = take(found, "error", nested(HelperFailure)) if "error" in found else take(found, "ok", nested(kind))
        return HelperAnswer(number, result, fds)

    return decode(line, "The answer", read)


def encode_greeting(greeting: Greeting | HelperFailure) -> bytes:
    """The helper's first line, or the error that keeps it from serving."""
    body = {"error": dump(greeting)} if isinstance(greeting, HelperFailure) else dump(greeting)
    return encode({"helper": VERSION, **body})


def parse_greeting(line: bytes) -> Greeting | HelperFailure:
    """The helper's first line. Raises ProtocolError on another version: session and helper are one installation."""
    return decode(line, "The greeting", _greeting)


def _greeting(found: dict[str, object]) -> Greeting | HelperFailure:
    take(found, "helper", _VERSION)
    return take(found, "error", nested(HelperFailure)) if "error" in found else load(Greeting, found)
