"""JSON lines between two processes of one machine: cutting a byte stream into lines, and strict reading of objects.

The peer is another process of the same user, possibly of another version: every value is checked before it is used.
"""

import json
from collections.abc import Callable, Mapping
from typing import Final, Self, TypeVar

from meshdev.errors import ProtocolError

#: The longest line either side accepts. The largest honest one is a status with 8,192 routes: 180 KB.
MAX_LINE: Final = 1 << 20
#: The longest text in a field: an admission webhook's own words fit.
MAX_TEXT: Final = 1 << 16
#: The most items in a list.
MAX_ITEMS: Final = 8192

T = TypeVar("T")
Word = TypeVar("Word", bound=str)


def encode(value: Mapping[str, object]) -> bytes:
    """One line, newline included. Raises ProtocolError when it would be longer than the other side accepts."""
    line = json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"
    if len(line) > MAX_LINE:
        raise ProtocolError(f"A message of {len(line):,} bytes is longer than {MAX_LINE:,}")
    return line


def decode(line: bytes, what: str) -> "Fields":
    """The object in one line; *what* names it in errors."""
    return Fields(parse(line, what), what)


def parse(text: bytes, what: str) -> object:
    """The JSON value in *text*, whatever it is. Raises ProtocolError."""
    try:
        return json.loads(str(text, "utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise ProtocolError(f"{what} is not JSON") from None


def _no_number(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are Python's idea of JSON, nobody else's


class LineSplitter:
    """Bytes in, whole lines out; holds at most one unfinished line."""

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that *data* completes, without their newline. Raises ProtocolError on one beyond the limit."""
        self._rest += data
        *lines, rest = self._rest.split(b"\n")
        if max(map(len, (*lines, rest))) > self._limit:
            raise ProtocolError(f"A line is longer than {self._limit:,} bytes")
        self._rest = bytearray(rest)
        return [bytes(line) for line in lines]


class Fields:
    """A JSON object whose keys are taken one by one; what is missing, wrong or left over raises ProtocolError."""

    def __init__(self, value: object, what: str) -> None:
        if not isinstance(value, dict):
            raise ProtocolError(f"{what} is not an object")
        self._left: dict[str, object] = dict(value)
        self._what = what

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def end(self) -> None:
        """No key may be left."""
        if self._left:
            raise ProtocolError(f"{self._what} has unknown keys: {', '.join(sorted(self._left))[:200]}")

    def rest(self) -> dict[str, object]:
        """All keys that were not taken."""
        left, self._left = self._left, {}
        return left

    def text(self, key: str, limit: int = MAX_TEXT) -> str:
        """A string of at most *limit* characters, without NUL."""
        return self._checked_text(key, self._take(key), limit)

    def text_or_none(self, key: str, limit: int = MAX_TEXT) -> str | None:
        """The same, or null."""
        value = self._take(key)
        return None if value is None else self._checked_text(key, value, limit)

    def texts(self, key: str, limit: int = MAX_TEXT) -> tuple[str, ...]:
        """A list of strings."""
        return tuple(self._checked_text(key, item, limit) for item in self._list(key))

    def flag(self, key: str) -> bool:
        """True or false."""
        value = self._take(key)
        if not isinstance(value, bool):
            raise self._wrong(key)
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        """A whole number from *low* to *high*, both included."""
        value = self._take(key)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self._wrong(key)
        return value

    def integer_or_none(self, key: str, low: int, high: int) -> int | None:
        """The same, or null."""
        if key in self._left and self._left[key] is None:
            del self._left[key]
            return None
        return self.integer(key, low, high)

    def number(self, key: str, low: float, high: float) -> float:
        """A number from *low* to *high*, both included; NaN is none."""
        value = self._take(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self._wrong(key)
        return float(value)

    def number_or_none(self, key: str, low: float, high: float) -> float | None:
        """The same, or null."""
        if key in self._left and self._left[key] is None:
            del self._left[key]
            return None
        return self.number(key, low, high)

    def choice(self, key: str, allowed: tuple[Word, ...]) -> Word:
        """One of *allowed*."""
        value = self._take(key)
        for word in allowed:
            if word == value:
                return word
        raise self._wrong(key)

    def inner(self, key: str) -> Self:
        """An object inside."""
        return type(self)(self._take(key), f"{key} of {self._what}")

    def inners(self, key: str, read: Callable[[Self], T]) -> tuple[T, ...]:
        """A list of objects, each read by *read*."""
        return tuple(read(type(self)(item, f"{key} of {self._what}")) for item in self._list(key))

    def _list(self, key: str) -> list[object]:
        value = self._take(key)
        if not isinstance(value, list) or len(value) > MAX_ITEMS:
            raise self._wrong(key)
        return value

    def _take(self, key: str) -> object:
        try:
            return self._left.pop(key)
        except KeyError:
            raise ProtocolError(f"{self._what} has no {key}") from None

    def _checked_text(self, key: str, value: object, limit: int) -> str:
        if not isinstance(value, str) or len(value) > limit or "\0" in value:
            raise self._wrong(key)
        return value

    def _wrong(self, key: str) -> ProtocolError:
        return ProtocolError(f"{key} of {self._what} has an impossible value")
