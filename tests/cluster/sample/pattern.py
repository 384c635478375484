"""Bytes that both ends can make: no two kilobytes of a mebibyte alike, so that a swapped or lost piece is seen."""

import hashlib

BLOCK_SIZE = 1 << 20


def _make_block() -> bytes:
    return b"".join(hashlib.sha512(number.to_bytes(4, "big")).digest() for number in range(BLOCK_SIZE // 64))


BLOCK = _make_block()
_DOUBLE = memoryview(BLOCK + BLOCK)


def piece(offset: int, length: int) -> memoryview:
    """Up to one block of the endless pattern from OFFSET on, without a copy."""
    start = offset % BLOCK_SIZE
    return _DOUBLE[start : start + min(length, BLOCK_SIZE)]


def pattern(offset: int, length: int) -> bytes:
    """LENGTH bytes of the endless pattern from OFFSET on."""
    found = bytearray()
    while len(found) < length:
        found += piece(offset + len(found), length - len(found))
    return bytes(found)


def pattern_sha256(length: int) -> bytes:
    """The SHA-256 of the first LENGTH bytes."""
    digest = hashlib.sha256()
    sent = 0
    while sent < length:
        part = piece(sent, length - sent)
        digest.update(part)
        sent += len(part)
    return digest.digest()
