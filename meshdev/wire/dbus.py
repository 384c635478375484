"""The part of the D-Bus wire protocol that reading properties needs. Pure.

Method calls have strings as arguments; of replies only kind, serial and body are read, the body as bytes: bodies are
compared, never decoded. Source: D-Bus specification, "Message Protocol" and "Authentication Protocol".
"""

import struct
from dataclasses import dataclass
from typing import Final, Literal

from meshdev.errors import ProtocolError

METHOD_RETURN: Final = 2
ERROR: Final = 3

_METHOD_CALL: Final = 1
_NO_AUTO_START: Final = 2
_VERSION: Final = 1
_FIXED: Final = struct.Struct("<4BIII")  # order, type, flags, version, length of the body, serial, length of fields
_FIXED_BIG: Final = struct.Struct(">4BIII")
#: The specification allows 128 MiB; properties of a link take a few hundred bytes.
_LARGEST: Final = 1 << 20

# Header fields and their signatures.
_PATH: Final = (1, b"o")
_INTERFACE: Final = (2, b"s")
_MEMBER: Final = (3, b"s")
_DESTINATION: Final = (6, b"s")
_SIGNATURE: Final = (8, b"g")
_REPLY_SERIAL: Final = 5
_FIELD_KINDS: Final = frozenset(b"osgu")


@dataclass(frozen=True, slots=True)
class DBusMessage:
    """A message of the bus; *size* is its length in the stream, in bytes. *answers*: the serial of the call to which it
    is the reply; None for other messages.
    """

    kind: int
    body: bytes
    size: int
    answers: int | None = None

    @property
    def text(self) -> str:
        """The first string of the body: the message of an error."""
        length = int.from_bytes(self.body[:4], "little")
        return self.body[4 : 4 + length].decode(errors="replace") if len(self.body) >= 4 + length else ""


def external(uid: int) -> bytes:
    """The client's authentication as that user; the server answers with a line that begins with ``OK``."""
    return b"\0AUTH EXTERNAL " + str(uid).encode().hex().encode() + b"\r\n"


def begin() -> bytes:
    """Sent after ``OK``; messages follow."""
    return b"BEGIN\r\n"


def call(serial: int, destination: str, path: str, interface: str, member: str, *arguments: str) -> bytes:
    """A method call with strings as arguments, without starting the service."""
    texts = [(_PATH, path), (_DESTINATION, destination), (_INTERFACE, interface), (_MEMBER, member)]
    fields = b""
    for (code, signature), value in texts:
        fields = _padded(fields, 8) + bytes([code]) + _signature(signature)
        fields = _padded(fields, 4) + _string(value)
    body = b""
    for argument in arguments:
        body = _padded(body, 4) + _string(argument)
    if arguments:
        code, signature = _SIGNATURE
        fields = _padded(fields, 8) + bytes([code]) + _signature(signature) + _signature(b"s" * len(arguments))
    head = _FIXED.pack(ord("l"), _METHOD_CALL, _NO_AUTO_START, _VERSION, len(body), serial, len(fields))
    return _padded(head + fields, 8) + body


def parse(data: bytes) -> DBusMessage | None:
    """The first message in *data*; None while it is incomplete. Raises ProtocolError."""
    if len(data) < _FIXED.size:
        return None
    layout = {ord("l"): _FIXED, ord("B"): _FIXED_BIG}.get(data[0])
    if layout is None:
        raise ProtocolError("the system bus does not speak D-Bus")
    order, kind, _, version, body, _, fields = layout.unpack_from(data)
    start = _FIXED.size + fields + -(_FIXED.size + fields) % 8
    if version != _VERSION or start + body > _LARGEST:
        raise ProtocolError("the system bus sent a message that is invalid or too long")
    if len(data) < start + body:
        return None
    header = data[_FIXED.size : _FIXED.size + fields]
    answers = _reply_serial(header, "little" if order == ord("l") else "big")
    return DBusMessage(kind, data[start : start + body], start + body, answers)


def _reply_serial(fields: bytes, order: Literal["little", "big"]) -> int | None:
    """REPLY_SERIAL in a header's fields, which are aligned as in the message; None without one."""
    at = 0
    while at + 4 <= len(fields):  # code, and the signature of one letter
        code, length, kind = fields[at], fields[at + 1], fields[at + 2]
        value = at + 4
        if length != 1 or kind not in _FIELD_KINDS:
            return None  # not a field of the specification; its end is unknown
        if kind == ord("g"):
            end = value + 2 + int.from_bytes(fields[value : value + 1])
        else:
            number = int.from_bytes(fields[value : value + 4], order)
            if kind == ord("u") and code == _REPLY_SERIAL and value + 4 <= len(fields):
                return number
            end = value + 4 + (number + 1 if kind != ord("u") else 0)
        at = end + -end % 8
    return None


def link_path(index: int) -> str:
    """systemd-resolved's object of a network device: sd_bus_path_encode(3) of its number."""
    number = str(index)
    return f"/org/freedesktop/resolve1/link/_{ord(number[0]):02x}{number[1:]}"


def _string(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<I", len(data)) + data + b"\0"


def _signature(value: bytes) -> bytes:
    return bytes([len(value)]) + value + b"\0"


def _padded(data: bytes, boundary: int) -> bytes:
    return data + bytes(-len(data) % boundary)
