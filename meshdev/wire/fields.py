"""Strict reading of JSON objects, and values as JSON has them.

What is read was written by another process, possibly of another version: every value is checked before it is used.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any, Final, Self, TypeVar

from meshdev.errors import ProtocolError

#: The longest text in a field: an admission webhook's own words fit.
MAX_TEXT: Final = 1 << 16
#: The longest text that stands for an address, a route or a name.
MAX_VALUE: Final = 255
#: The most items in a list.
MAX_ITEMS: Final = 8192

T = TypeVar("T")
Word = TypeVar("Word", bound=str)


def parse(text: bytes, what: str) -> object:
    """The JSON value in *text*, whatever it is. Raises ProtocolError."""
    try:
        return json.loads(str(text, "utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise ProtocolError(f"{what} is not JSON") from None


def _no_number(name: str) -> None:
    raise ValueError(name)  # NaN and Infinity are Python's idea of JSON, nobody else's


def plain(value: object) -> Any:  # noqa: ANN401 -- whatever JSON has
    """*value* as JSON has it: a dataclass is an object, addresses and networks are text."""
    match value:
        case None | bool() | int() | str():
            return value
        case IPv4Address() | IPv6Address() | IPv4Network():
            return str(value)
        case Iterable():
            return [plain(item) for item in value]
    assert is_dataclass(value)  # noqa: S101 -- messages are made of nothing else
    return {item.name: plain(getattr(value, item.name)) for item in fields(value)}


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
        return None if self._null(key) else self.text(key, limit)

    def parsed(self, key: str, load: Callable[[str], T], limit: int = MAX_VALUE) -> T:
        """A string as *load* understands it; *load* raises ValueError."""
        return self._loaded(key, load, self.text(key, limit))

    def parsed_or_none(self, key: str, load: Callable[[str], T], limit: int = MAX_VALUE) -> T | None:
        """The same, or null."""
        return None if self._null(key) else self.parsed(key, load, limit)

    def all_parsed(
        self, key: str, load: Callable[[str], T], most: int = MAX_ITEMS, limit: int = MAX_VALUE
    ) -> tuple[T, ...]:
        """A list of at most *most* of them."""
        return tuple(self._loaded(key, load, self._checked_text(key, item, limit)) for item in self._list(key, most))

    def distinct(self, key: str, load: Callable[[str], T], most: int, limit: int = MAX_VALUE) -> tuple[T, ...]:
        """The same, all different."""
        items = self.all_parsed(key, load, most, limit)
        if len(set(items)) != len(items):
            raise ProtocolError(f"{key} of {self._what} repeats an entry")
        return items

    def texts(self, key: str, limit: int = MAX_TEXT, most: int = MAX_ITEMS) -> tuple[str, ...]:
        """A list of at most *most* strings."""
        return tuple(self._checked_text(key, item, limit) for item in self._list(key, most))

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
        return None if self._null(key) else self.integer(key, low, high)

    def number(self, key: str, low: float, high: float) -> float:
        """A number from *low* to *high*, both included; NaN is none."""
        value = self._take(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self._wrong(key)
        return float(value)

    def number_or_none(self, key: str, low: float, high: float) -> float | None:
        """The same, or null."""
        return None if self._null(key) else self.number(key, low, high)

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

    def inner_or_none(self, key: str) -> Self | None:
        """The same, or null."""
        return None if self._null(key) else self.inner(key)

    def inners(self, key: str, read: Callable[[Self], T], most: int = MAX_ITEMS) -> tuple[T, ...]:
        """A list of at most *most* objects, each read by *read*."""
        return tuple(read(type(self)(item, f"{key} of {self._what}")) for item in self._list(key, most))

    def wholes(self, key: str, read: Callable[[Self], T], most: int = MAX_ITEMS) -> tuple[T, ...]:
        """The same, and no key of an object may be left."""
        return self.inners(key, lambda inner: inner.whole(read), most)

    def whole(self, read: Callable[[Self], T]) -> T:
        """What *read* makes of this object; no key may be left."""
        value = read(self)
        self.end()
        return value

    def check(self, key: str, holds: bool) -> None:
        """What *key* must be beside the others."""
        if not holds:
            raise self._wrong(key)

    def _list(self, key: str, most: int = MAX_ITEMS) -> list[object]:
        value = self._take(key)
        if not isinstance(value, list) or len(value) > most:
            raise self._wrong(key)
        return value

    def _loaded(self, key: str, load: Callable[[str], T], text: str) -> T:
        try:
            return load(text)
        except ValueError as error:
            raise ProtocolError(f"{key} of {self._what}: {error}"[:500]) from None

    def _null(self, key: str) -> bool:
        """Whether it is null, which is then taken."""
        if key in self._left and self._left[key] is None:
            del self._left[key]
            return True
        return False

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
