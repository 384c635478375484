"""TLS in recorded streams: whether there is nothing else in one, and what its handshake shows to everybody. Pure.

RFC 5246: in TLS 1.2 the certificates of both ends travel in the clear, before ChangeCipherSpec.
"""

from collections.abc import Iterator
from typing import Final

_HEADER: Final = 5
_CHANGE_CIPHER_SPEC: Final = 20
_HANDSHAKE: Final = 22
#: Alert and application data are the others.
_KINDS: Final = range(_CHANGE_CIPHER_SPEC, 24)
_MAJOR: Final = 3
_MAX_RECORD: Final = (16 << 10) + 2048
_CERTIFICATE: Final = 11


def records(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and content of each TLS record of one direction; the last may be cut off. ValueError for anything else."""
    at = 0
    while at < len(stream):
        head = stream[at : at + _HEADER]
        size = int.from_bytes(head[3:5], "big") if len(head) == _HEADER else 0
        if head[0] not in _KINDS or (len(head) > 1 and head[1] != _MAJOR) or size > _MAX_RECORD:
            raise ValueError(f"byte {at} begins no TLS record: {stream[at : at + 40]!r}")
        yield head[0], stream[at + _HEADER : at + _HEADER + size]
        at += _HEADER + size


def first_record(stream: bytes) -> bytes:
    """The bytes of the first record: a client's hello."""
    return stream[: _HEADER + len(next(records(stream))[1])]


def certificates(stream: bytes) -> list[bytes]:
    """The certificates (DER) that this direction's handshake shows in the clear, its end's own first."""
    found: list[bytes] = []
    for kind, body in _messages(stream):
        if kind == _CERTIFICATE:
            left = body[3:]  # the length of all
            while left:
                size = int.from_bytes(left[:3], "big")
                found.append(left[3 : 3 + size])
                left = left[3 + size :]
    return found


def _messages(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """The handshake's messages up to where encryption begins: a record may hold several, or a part of one."""
    plain = bytearray()
    for kind, body in records(stream):
        if kind != _HANDSHAKE:
            break
        plain += body
    at = 0
    while at + 4 <= len(plain):
        size = int.from_bytes(plain[at + 1 : at + 4], "big")
        yield plain[at], bytes(plain[at + 4 : at + 4 + size])
        at += 4 + size
