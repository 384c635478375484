"""What one field of a message may hold: each codec checks a value decoded from JSON, and makes one to encode.

``load`` raises ValueError for everything that the codec does not describe, ``dump`` trusts its own process. Codecs are
immutable; from their attributes tests generate values (tests/wire/strategies.py). They are not dataclasses, because
each command loads this module: defining a dataclass takes 70 to 250 µs, a plain class 5.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

#: The longest text in a field: the message of an admission webhook fits.
MAX_TEXT: Final = 1 << 16
#: The longest text that stands for an address, a route or a name.
MAX_VALUE: Final = 255
#: The most items in a list.
MAX_ITEMS: Final = 8192

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
Chosen = TypeVar("Chosen", bound=str)


class InvalidValueError(ValueError):
    """What is wrong, and where: ``port of relays of The request has an invalid value``."""

    def __init__(self, fault: str = " has an invalid value") -> None:
        super().__init__(fault)
        self.fault = fault
        self.path: list[str] = []

    @classmethod
    def inside(cls, key: str, error: ValueError) -> "InvalidValueError":
        """*error*, located in the value at *key*."""
        found = error if isinstance(error, InvalidValueError) else cls(f": {error}")
        found.path.append(key)
        return found

    def __str__(self) -> str:
        return f"{' of '.join(self.path)}{self.fault}"[:500]


class Codec(ABC, Generic[T]):
    """The encoding of a value of type T."""

    @abstractmethod
    def load(self, value: object) -> T:
        """Decode the result of ``json.loads``. Raises ValueError."""

    def dump(self, value: T) -> object:
        """Encode for ``json.dumps``: the value itself where JSON has its type."""
        return value


class Flag(Codec[bool]):
    """True or false."""

    def load(self, value: object) -> bool:
        if value is True or value is False:
            return value
        raise InvalidValueError


class Integer(Codec[int]):
    """A whole number from *low* to *high*, both included."""

    def __init__(self, low: int, high: int) -> None:
        self.low = low
        self.high = high

    def load(self, value: object) -> int:
        # Not isinstance: True and False are instances of int.
        if type(value) is not int or not self.low <= value <= self.high:
            raise InvalidValueError
        return value


class Number(Codec[float]):
    """A number from *low* to *high*, both included, sent with at most *digits* decimal places."""

    def __init__(self, low: float, high: float, digits: int | None = None) -> None:
        self.low = low
        self.high = high
        self.digits = digits

    def load(self, value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            raise InvalidValueError  # NaN, too, which compares with nothing
        return float(value)

    def dump(self, value: float) -> object:
        return value if self.digits is None else round(value, self.digits)


class Text(Codec[str]):
    """A string of at most *limit* characters, without NUL."""

    def __init__(self, limit: int = MAX_TEXT) -> None:
        self.limit = limit

    def load(self, value: object) -> str:
        if not isinstance(value, str) or len(value) > self.limit or "\0" in value:
            raise InvalidValueError
        return value


class Parsed(Codec[T]):
    """A string of at most *limit* characters, decoded by *parse* (raises ValueError) and encoded by ``str``."""

    def __init__(self, parse: Callable[[str], T], limit: int = MAX_VALUE) -> None:
        self.parse = parse
        self.limit = limit

    def load(self, value: object) -> T:
        if not isinstance(value, str) or len(value) > self.limit or "\0" in value:
            raise InvalidValueError
        return self.parse(value)

    def dump(self, value: T) -> object:
        return str(value)


class Choice(Codec[Chosen]):
    """One of the *allowed* strings."""

    def __init__(self, allowed: tuple[Chosen, ...]) -> None:
        self.allowed = allowed

    def load(self, value: object) -> Chosen:
        for each in self.allowed:
            if each == value:
                return each
        raise InvalidValueError


class Nullable(Codec[T | None]):
    """What *item* allows, or null."""

    def __init__(self, item: Codec[T]) -> None:
        self.item = item

    def load(self, value: object) -> T | None:
        return None if value is None else self.item.load(value)

    def dump(self, value: T | None) -> object:
        return None if value is None else self.item.dump(value)


class Many(Codec[tuple[T, ...]]):
    """A list of at most *most* items, which all differ in *distinct* where that is set."""

    def __init__(self, item: Codec[T], most: int = MAX_ITEMS, distinct: Callable[[T], Hashable] | None = None) -> None:
        self.item = item
        self.most = most
        self.distinct = distinct

    def load(self, value: object) -> tuple[T, ...]:
        if not isinstance(value, list):
            raise InvalidValueError
        if len(value) > self.most:
            raise InvalidValueError(f" has more than {self.most:,} entries")
        load = self.item.load
        items = tuple([load(each) for each in value])
        if self.distinct is not None and len(set(map(self.distinct, items))) != len(items):
            raise InvalidValueError(" repeats an entry")
        return items

    def dump(self, value: tuple[T, ...]) -> object:
        if type(self.item).dump is Codec.dump:
            return value  # fast for long lists: json.dumps takes the items as they are
        dump = self.item.dump
        return [dump(each) for each in value]


class Pairs(Codec[tuple[tuple[K, T], ...]]):
    """An object of at most *most* keys, decoded by *key* (raises ValueError) and encoded by ``str``."""

    def __init__(self, key: Callable[[str], K], item: Codec[T], most: int = MAX_ITEMS) -> None:
        self.key = key
        self.item = item
        self.most = most

    def load(self, value: object) -> tuple[tuple[K, T], ...]:
        if not isinstance(value, dict):
            raise InvalidValueError(" is not an object")
        if len(value) > self.most:
            raise InvalidValueError(f" has more than {self.most:,} entries")
        return tuple([self._pair(name, each) for name, each in value.items()])

    def _pair(self, name: str, value: object) -> tuple[K, T]:
        try:
            return self.key(name), self.item.load(value)
        except ValueError as error:
            raise InvalidValueError.inside(name[:MAX_VALUE], error) from None

    def dump(self, value: tuple[tuple[K, T], ...]) -> object:
        return {str(key): self.item.dump(each) for key, each in value}


def itself(value: K) -> K:
    """For ``Many(…, distinct=itself)``: the items are all different."""
    return value


FLAG: Final = Flag()
PORT: Final = Integer(1, 65535)
