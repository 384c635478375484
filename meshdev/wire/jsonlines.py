"""JSON lines between two processes of one machine: one object a line, and splitting a byte stream into lines."""

import json
from collections.abc import Mapping
from typing import Final

from meshdev.errors import ProtocolError

#: The longest line either side accepts. The largest expected one is a status: 8,192 routes take 180 KB, identities
#: of 1,000 pods 160 KB.
MAX_LINE: Final = 1 << 20


def encode(value: Mapping[str, object], limit: int = MAX_LINE) -> bytes:
    """One line with its newline. Raises ProtocolError when it is longer than the other side accepts."""
    line = json.dumps(value, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"
    if len(line) > limit:
        raise ProtocolError(f"A message of {len(line):,} bytes is longer than {limit:,}")
    return line


class LineSplitter:
    """Bytes in, complete lines out; holds at most one incomplete line."""

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
