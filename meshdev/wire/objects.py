"""Fields of messages between machines: IPv4 addresses, identities, and text for people."""

import base64
import re
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from meshdev.wire.codecs import Codec, InvalidValueError, Parsed

MAX_TEXT: Final = 1024
#: Bytes of a certificate in DER. Ours, of an EC P-256 key, have 300 to 600.
MAX_CERTIFICATE: Final = 4096

_HEX_ID: Final = re.compile(r"[0-9a-f]{32}")
_KEY: Final = re.compile(r"[0-9a-f]{64}")


def for_people(text: str, limit: int = MAX_TEXT) -> str:
    """One printable line of at most *limit* characters: of one already, itself."""
    line = " ".join(text.split())[:limit].rstrip()
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


class Der(Codec[bytes]):
    """A certificate in DER, at most *limit* bytes, as base64. Only its size is checked here."""

    def __init__(self, limit: int = MAX_CERTIFICATE) -> None:
        self.limit = limit

    def load(self, value: object) -> bytes:
        if not isinstance(value, str) or not value or len(value) > 4 * (self.limit // 3 + 1):
            raise InvalidValueError
        try:
            found = base64.b64decode(value, validate=True)
        except ValueError:  # binascii.Error is one
            raise InvalidValueError(" is not base64") from None
        if not 0 < len(found) <= self.limit:
            raise InvalidValueError
        return found

    def dump(self, value: bytes) -> object:
        return base64.b64encode(value).decode("ascii")


#: 128 bits.
IDENTITY: Final = Parsed(_identity, MAX_TEXT)
#: A sha256.
DIGEST: Final = Parsed(_digest, MAX_TEXT)
CERTIFICATE: Final = Der()
IPV4: Final = Parsed(IPv4Address, MAX_TEXT)
NETWORK: Final = Parsed(IPv4Network, MAX_TEXT)
