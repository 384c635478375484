"""Where a chunked body ends (RFC 9112, section 7.1), without keeping any of it.

Only what every recipient reads alike is followed: sizes of at most 15 hexadecimal digits, extensions right behind them,
lines that end with CR LF, trailers that are header lines.
"""

import re
from typing import Final

from meshdev.sidecar.passthrough.heads import HEAD_BYTES

#: Bytes of one chunk's extensions.
EXTENSION_BYTES: Final = 4 << 10
_DIGITS: Final = 15

_LAST: Final = b"0\r\n\r\n"
_PLAIN: Final = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")
_SIZE: Final = re.compile(rb"[0-9A-Fa-f]*+")
_TEXT: Final = re.compile(rb"[\t -~\x80-\xff]*+")
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]*+")

# Where in a chunk or in the trailers the next byte stands.
_BEGIN, _IN_SIZE, _IN_EXTENSION, _SIZE_LF, _IN_DATA, _DATA_CR, _DATA_LF = range(7)
_LINE, _IN_NAME, _IN_VALUE, _LINE_LF, _LAST_LF = range(7, 12)
#: One byte that must come, and what follows it.
_EXPECTED: Final = {
    _DATA_CR: (0x0D, _DATA_LF),
    _DATA_LF: (0x0A, _BEGIN),
    _LINE_LF: (0x0A, _LINE),
}


class ChunkedBody:
    """One body. ``done`` behind its last byte; ``failed`` before the first byte that is not as it should be."""

    __slots__ = ("_digits", "_left", "_state", "_text", "done", "failed")

    def __init__(self) -> None:
        self.done = False
        self.failed = False
        self._state = _BEGIN
        self._left = 0  # bytes of this chunk
        self._digits = 0
        self._text = 0  # bytes of this extension or of the trailers

    def follow(self, data: bytes, at: int) -> int:
        """The place in *data*, from *at* on, to which the body goes."""
        size = len(data)
        if self._state == _BEGIN and data.startswith(_LAST, at):
            self.done = True
            return at + len(_LAST)
        while at < size and not self.done and not self.failed:
            if self._state == _BEGIN and (found := _PLAIN.match(data, at)) is not None and int(found[1], 16):
                self._left, self._state, at = int(found[1], 16), _IN_DATA, found.end()
            elif self._state == _IN_DATA:
                step = min(self._left, size - at)
                self._left -= step
                at += step
                self._state = _IN_DATA if self._left else _DATA_CR
            elif self._state in _EXPECTED:
                byte, following = _EXPECTED[self._state]
                at = self._next(data[at] == byte, following, at)
            else:
                at = self._size(data, at) if self._state < _IN_DATA else self._trailers(data, at)
        return at

    def _next(self, right: bool, following: int, at: int) -> int:
        """Go on to *following* behind this byte, where it is *right*."""
        if right:
            self._state = following
            return at + 1
        self.failed = True
        return at

    def _size(self, data: bytes, at: int) -> int:
        if self._state == _BEGIN:
            self._left = self._digits = self._text = 0
            self._state = _IN_SIZE
        if self._state == _IN_SIZE:
            return self._in_size(data, at)
        if self._state == _IN_EXTENSION:
            return self._run(_TEXT, EXTENSION_BYTES, data, at) or self._next(data[at] == 0x0D, _SIZE_LF, at)
        return self._next(data[at] == 0x0A, _IN_DATA if self._left else _LINE, at)

    def _in_size(self, data: bytes, at: int) -> int:
        found = _SIZE.match(data, at, at + _DIGITS - self._digits)
        if found is not None and found[0]:
            self._left = self._left << 4 * len(found[0]) | int(found[0], 16)
            self._digits += len(found[0])
            return found.end()
        return self._next(self._digits > 0 and data[at] in b";\r", _SIZE_LF if data[at] == 0x0D else _IN_EXTENSION, at)

    def _trailers(self, data: bytes, at: int) -> int:
        if self._state == _LINE:
            if data[at] == 0x0D:
                return self._next(True, _LAST_LF, at)
            self._state = _IN_NAME
            return self._run(_NAME, HEAD_BYTES, data, at) or self._next(False, _LINE, at)
        if self._state == _IN_NAME:
            return self._run(_NAME, HEAD_BYTES, data, at) or self._next(data[at] == 0x3A, _IN_VALUE, at)
        if self._state == _IN_VALUE:
            return self._run(_TEXT, HEAD_BYTES, data, at) or self._next(data[at] == 0x0D, _LINE_LF, at)
        self.done = data[at] == 0x0A
        return self._next(self.done, _LAST_LF, at)

    def _run(self, pattern: re.Pattern[bytes], most: int, data: bytes, at: int) -> int:
        """Behind what *pattern* takes here, at most *most* bytes in all; 0 where it takes nothing."""
        found = pattern.match(data, at, at + most - self._text)
        if found is None or not found[0]:
            return 0
        self._text += len(found[0])
        return found.end()
