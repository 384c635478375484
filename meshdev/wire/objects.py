"""How objects of the tunnel's messages are read: more loosely than files, so that they can grow."""

import re
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from meshdev.wire.fields import Fields

MAX_TEXT: Final = 1024

_HEX_ID: Final = re.compile(r"[0-9a-f]{32}")
_KEY: Final = re.compile(r"[0-9a-f]{64}")


class Object(Fields):
    """An object of a message: unknown keys are skipped, texts are short and printable, addresses are IPv4."""

    def word(self, key: str, limit: int = MAX_TEXT) -> str:
        """One printable line."""
        return self.parsed(key, _printable, limit)

    def words(self, key: str) -> tuple[str, ...]:
        """A list of them."""
        return self.all_parsed(key, _printable, limit=MAX_TEXT)

    def identity(self, key: str) -> str:
        """128 bits."""
        return self.parsed(key, _identity, MAX_TEXT)

    def digest(self, key: str) -> str:
        """A sha256."""
        return self.parsed(key, _digest, MAX_TEXT)

    def digests(self, key: str, most: int) -> tuple[str, ...]:
        """A list of at most *most* of them, all different."""
        return self.distinct(key, _digest, most, MAX_TEXT)

    def address(self, key: str) -> IPv4Address:
        """An IPv4 address."""
        return self.parsed(key, IPv4Address, MAX_TEXT)

    def optional_address(self, key: str) -> IPv4Address | None:
        """The same; None where it is null or missing."""
        return None if key not in self or self._null(key) else self.address(key)

    def addresses(self, key: str) -> tuple[IPv4Address, ...]:
        """A list of them."""
        return self.all_parsed(key, IPv4Address, limit=MAX_TEXT)

    def networks(self, key: str) -> tuple[IPv4Network, ...]:
        """A list of networks."""
        return self.all_parsed(key, IPv4Network, limit=MAX_TEXT)


def for_people(text: str, limit: int = MAX_TEXT) -> str:
    """One printable line of at most *limit* characters."""
    line = " ".join(text.split())[:limit]
    return line if line.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in line)


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("not printable")
    return text


def _identity(text: str) -> str:
    if not _HEX_ID.fullmatch(text):
        raise ValueError("not 32 hexadecimal digits")
    return text


def _digest(text: str) -> str:
    if not _KEY.fullmatch(text):
        raise ValueError("not 64 hexadecimal digits")
    return text
