"""Fields of messages between machines: IPv4 addresses, identities, and text for people."""

import re
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from meshdev.wire.codecs import Codec, InvalidValueError, Parsed

MAX_TEXT: Final = 1024

_HEX_ID: Final = re.compile(r"[0-9a-f]{32}")
_KEY: Final = re.compile(r"[0-9a-f]{64}")


def for_people(text: str, limit: int = MAX_TEXT) -> str:
    """One printable line of at most *limit* characters."""
    line = " ".join(text.split())[:limit]
    return line if line.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in line)


def _identity(text: str) -> str:
    if not _HEX_ID.fullmatch(text):
        raise ValueError("not 32 hexadecimal digits")
    return text


def _digest(text: str) -> str:
    if not _KEY.fullmatch(text):
        raise ValueError("not 64 hexadecimal digits")
    return text


class Line(Codec[str]):
    """One printable line of at most *limit* characters."""

    def __init__(self, limit: int = MAX_TEXT) -> None:
        self.limit = limit

    def load(self, value: object) -> str:
        if not isinstance(value, str) or len(value) > self.limit or not value.isprintable():
            raise InvalidValueError
        return value


class ForPeople(Line):
    """The same, converted when it is sent: the text is a kernel's or another program's."""

    def dump(self, value: str) -> object:
        return for_people(value, self.limit)


#: 128 bits.
IDENTITY: Final = Parsed(_identity, MAX_TEXT)
#: A sha256.
DIGEST: Final = Parsed(_digest, MAX_TEXT)
IPV4: Final = Parsed(IPv4Address, MAX_TEXT)
NETWORK: Final = Parsed(IPv4Network, MAX_TEXT)
