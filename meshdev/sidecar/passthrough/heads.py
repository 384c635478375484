"""Heads of HTTP/1 messages, read strictly and incrementally (RFC 9112, sections 2 to 5).

A head that every recipient reads alike is accepted. Anything else is a :data:`Reason` to follow the connection no
further: bare CR or LF, control characters, folded lines, blanks before the colon, names that are no tokens. The reason
depends on the bytes alone, not on the pieces in which they come, and is known at the first byte that is wrong wherever
the head would have to be waited for.

Each byte is looked at a bounded number of times, however small the pieces are.
"""

import re
from typing import Final, Literal, NamedTuple, get_args

#: Why a connection is followed no further from some head (or byte of a body) on: it is *raw*. Counted, never an error.
Reason = Literal[
    # the head, as bytes
    "request-line",
    "status-line",
    "bare-cr-or-lf",
    "control-character",
    "folded-line",
    "blank-before-colon",
    "header-line",
    "head-size",
    "head-time",
    # the framing of the body
    "length-and-coding",
    "length",
    "coding",
    "length-of-no-body",
    "until-close",
    "chunk",
    # the order of messages
    "connect",
    "upgraded",
    "early-response",
    "unasked-response",
    "after-close",
    "pipeline",
    # reported by the caller: the other direction, another protocol
    "other",
]
REASONS: Final[tuple[Reason, ...]] = get_args(Reason)

#: Bytes of a head, its empty line included: what is longer is raw.
HEAD_BYTES: Final = 64 << 10
_END: Final = b"\r\n\r\n"

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"  # RFC 9110, 5.6.2
#: RFC 9112, 3.2, and what browsers send beyond it (UTF-8).
_TARGET: Final = rb"[!-~\x80-\xff]"
_VALUE: Final = rb"[\t -~\x80-\xff]"  # RFC 9110, 5.5
# Runs of one set are possessive: where what follows them is wrong nothing is tried twice.
_LINES: Final = b"((?:%b++:%b*+\r\n)*)\r\n" % (_TOKEN, _VALUE)


def _growing(*parts: bytes) -> re.Pattern[bytes]:
    """An expression that takes the beginning of these parts, as far as it goes; group 1 is the last of them."""
    expression = b"(%b)?" % parts[-1]
    for part in reversed(parts[:-1]):
        expression = b"(?:%b%b)?" % (part, expression)
    return re.compile(expression)


class _Step(NamedTuple):
    """A part of a first line. Group 1 takes part where the step is complete.

    One that *resumes* goes on where it stopped; the others are a few bytes and begin anew.
    """

    pattern: re.Pattern[bytes]
    resumes: bool


class Syntax(NamedTuple):
    """Requests or responses: the whole head, its first line in steps, and what a bad first line is called."""

    whole: re.Pattern[bytes]
    steps: tuple[_Step, ...]
    bad_line: Reason


_VERSION: Final = (b"H", b"T", b"T", b"P", b"/", b"1", rb"\.", b"[01]")
#: Groups: method, target, minor version, header lines.
REQUEST: Final = Syntax(
    re.compile(rb"(%b++) (%b++) HTTP/1\.([01])\r\n%b" % (_TOKEN, _TARGET, _LINES)),
    (
        _Step(re.compile(b"%b*+((?<=%b) )?" % (_TOKEN, _TOKEN)), True),
        _Step(re.compile(b"%b*+((?<=%b) )?" % (_TARGET, _TARGET)), True),
        _Step(_growing(*_VERSION, b"\r", b"\n"), False),
    ),
    "request-line",
)
#: Groups: minor version, status, header lines. Some servers leave out the blank before an empty reason phrase.
RESPONSE: Final = Syntax(
    re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: %b*+)?\r\n%b" % (_VALUE, _LINES)),
    (_Step(_growing(*_VERSION, b" ", b"[1-9]", b"[0-9]", b"[0-9]", rb"(?=[ \r])"), False),),
    "status-line",
)
#: Bytes that no head has, and CR and LF where they are no line's end.
_BAD: Final = re.compile(rb"[^\t\r\n -~\x80-\xff]|(?<!\r)\n|\r(?!\n|\Z)")
#: The line that is wrong, of lines that are right but for their names.
_BAD_LINE: Final = re.compile(rb"\r\n(?!%b++:)(?:([ \t])|%b++([ \t])[ \t]*+:)?" % (_TOKEN, _TOKEN))


class HeadReader:
    """Reads one head after the other out of pieces, and keeps the beginning of an incomplete one: ``held`` bytes."""

    __slots__ = ("_at", "_held", "_step", "_syntax")

    def __init__(self, syntax: Syntax) -> None:
        self._syntax = syntax
        self._held = bytearray()
        self._step = 0  # of the first line; past the last one the header lines are looked at
        self._at = 0  # where that goes on

    @property
    def held(self) -> int:
        """Bytes kept of an incomplete head: at most :data:`HEAD_BYTES`."""
        return len(self._held)

    def taken(self) -> bytes:
        """What was held, which is then forgotten."""
        held, self._held, self._step, self._at = bytes(self._held), bytearray(), 0, 0
        return held

    def read(self, data: bytes, start: int) -> tuple[re.Match[bytes] | Reason | None, int]:
        """The head that is complete with *data* from *start* on, and where it ends there.

        None: all of *data* is held. A reason: nothing of *data* is taken, and what was held before still is.
        """
        if not self._held:
            end = data.find(_END, start, start + HEAD_BYTES)
            if end >= 0 and (found := self._syntax.whole.fullmatch(data, start, end + 4)) is not None:
                return found, end + 4
        return self._read_on(data, start)

    def _read_on(self, data: bytes, start: int) -> tuple[re.Match[bytes] | Reason | None, int]:
        held = self._held
        before = len(held)
        held += data[start : start + HEAD_BYTES - before]
        end = held.find(_END, max(before - 3, 0))
        size = end + 4 if end >= 0 else len(held)
        reason = self._bad(size) or (self._whole_bad(size) if end >= 0 else None)
        if reason is None and end < 0 and size == HEAD_BYTES:
            reason = "head-size"
        if reason is not None:
            del held[before:]
            return reason, start
        if end < 0:
            return None, len(data)
        return self._syntax.whole.fullmatch(self.taken(), 0, size), start + size - before

    def _bad(self, size: int) -> Reason | None:
        """What is wrong with the bytes up to *size*, as far as that is known before the head is complete."""
        held, steps = self._held, self._syntax.steps
        while self._step < len(steps):
            step = steps[self._step]
            found = step.pattern.match(held, self._at, size)
            end = found.end() if found else self._at
            if found and found[1] is not None:
                self._step, self._at = self._step + 1, end
            elif end == size:
                self._at = end if step.resumes else self._at
                return None
            else:
                return "bare-cr-or-lf" if held[end] == 0x0A else self._syntax.bad_line
        found = _BAD.search(held, self._at, size)
        self._at = size - 1 if held[size - 1] == 0x0D else size
        return None if found is None else "bare-cr-or-lf" if found[0] in b"\r\n" else "control-character"

    def _whole_bad(self, size: int) -> Reason | None:
        """What is wrong with the lines of a head that is complete."""
        if self._syntax.whole.fullmatch(self._held, 0, size) is not None:
            return None
        found = _BAD_LINE.search(self._held, 0, size - 4)
        if found is None:
            return "header-line"
        return "folded-line" if found[1] else "blank-before-colon" if found[2] else "header-line"
