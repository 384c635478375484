"""PNG (RFC 2083) as Chromium makes it, and as small as documentation wants it: with a palette of 256 colours."""

import struct
import zlib
from collections import Counter
from typing import NamedTuple

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {2: 3, 6: 4}
_COLOURS = 256


class Picture(NamedTuple):
    """Rows of pixels, each three bytes: red, green, blue."""

    width: int
    height: int
    rows: list[bytes]


def decode(png: bytes) -> Picture:
    """A picture of 8 bits a channel, not interlaced, whose opacity is ignored."""
    assert png.startswith(_SIGNATURE)
    data, at = b"", len(_SIGNATURE)
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        if png[at + 4 : at + 8] == b"IDAT":
            data += png[at + 8 : at + 8 + length]
        at += 12 + length
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", png[16:29])
    assert (depth, interlaced) == (8, 0)
    size = _CHANNELS[kind]
    rows = _unfiltered(zlib.decompress(data), width * size, size)
    if size == 4:
        rows = [bytes(value for at, value in enumerate(row) if at % 4 != 3) for row in rows]
    return Picture(width, height, rows)


def _unfiltered(raw: bytes, length: int, size: int) -> list[bytes]:
    """Section 6: each row begins with the number of its filter."""
    rows, above = [], bytes(length)
    for start in range(0, len(raw), length + 1):
        row = bytearray(raw[start + 1 : start + 1 + length])
        match raw[start]:
            case 0:
                pass
            case 1:
                for at in range(size, length):
                    row[at] = (row[at] + row[at - size]) & 255
            case 2:
                for at in range(length):
                    row[at] = (row[at] + above[at]) & 255
            case 3:
                for at in range(length):
                    row[at] = (row[at] + ((row[at - size] if at >= size else 0) + above[at]) // 2) & 255
            case _:
                for at in range(length):
                    left, corner = (row[at - size], above[at - size]) if at >= size else (0, 0)
                    row[at] = (row[at] + _paeth(left, above[at], corner)) & 255
        above = bytes(row)
        rows.append(above)
    return rows


def _paeth(left: int, above: int, corner: int) -> int:
    estimate = left + above - corner
    return min((left, above, corner), key=lambda value: abs(estimate - value))


def encode(picture: Picture) -> bytes:
    """With the most frequent colours of different kinds; each other one becomes the nearest of them."""
    pixels = [[row[at : at + 3] for at in range(0, len(row), 3)] for row in picture.rows]
    counted = Counter(pixel for row in pixels for pixel in row)
    kinds = Counter[bytes]()
    first: dict[bytes, bytes] = {}
    for colour, count in counted.most_common():
        kind = bytes(value >> 3 for value in colour)
        kinds[kind] += count
        first.setdefault(kind, colour)
    palette = [first[kind] for kind, _ in kinds.most_common(_COLOURS)]
    index = {colour: at for at, colour in enumerate(palette)}
    for colour in counted:
        if colour not in index:
            index[colour] = min(range(len(palette)), key=lambda at: _distance(palette[at], colour))
    raw = b"".join(b"\0" + bytes(index[pixel] for pixel in row) for row in pixels)
    head = struct.pack(">IIBBBBB", picture.width, picture.height, 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"PLTE", b"".join(palette)), (b"IDAT", zlib.compress(raw, 9)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(name, body) for name, body in chunks)


def _distance(one: bytes, other: bytes) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
