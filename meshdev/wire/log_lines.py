"""Lines of logs as ``meshdev logs`` shows them: each with its time and its source, and many logs in one order.

Two kinds of logs are read: files of this machine, whose lines begin with the local time (logging's ``asctime``) or
with none, and logs of containers, where the kubelet puts the time before each line (``timestamps=true``; RFC 3339).
"""

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, tzinfo
from operator import itemgetter
from typing import Final

from meshdev.wire.codecs import MAX_TEXT, Nullable, Text
from meshdev.wire.message import field, message

#: A line of more bytes is cut.
MAX_LOG_LINE: Final = 1 << 15

_LOCAL: Final = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) ")
_RFC3339: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ?")


@message()
class LogLine:
    """One line, and what wrote it: ``session``, ``helper``, or pod and container, as ``b-7d4f/meshdev-1``."""

    time: str | None = field(Nullable(Text(64)))
    """RFC 3339, in UTC, to the nanosecond, so that times compare as texts. None where the line has none."""
    source: str = field(Text(1024))
    line: str = field(Text(MAX_TEXT))


class LogSplitter:
    """Bytes in, complete lines out; of a line that is longer than MAX_LOG_LINE the beginning."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[str]:
        """The lines that *data* completes."""
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:MAX_LOG_LINE]
        return [_text(line) for line in lines]

    def last(self) -> list[str]:
        """What stands behind the last newline, where the log has ended."""
        rest, self._rest = self._rest, b""
        return [_text(rest)] if rest else []


def of_file(source: str, line: str, zone: tzinfo | None = None) -> LogLine:
    """A line of a file; its time is of *zone* (None: this machine's), and stays part of the text."""
    found = _LOCAL.match(line)
    if found is None:
        return LogLine(None, source, line)
    try:
        local = datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=zone)
    except ValueError:
        return LogLine(None, source, line)
    return LogLine(timestamp(local, f"{found[2]}000000"), source, line)


def of_container(source: str, line: str) -> LogLine:
    """A line as the kubelet sends it; the time is taken out of the text."""
    found = _RFC3339.match(line)
    if found is None:
        return LogLine(None, source, line)
    try:
        moment = datetime.fromisoformat(found[1] + found[3])
    except ValueError:
        return LogLine(None, source, line)
    return LogLine(timestamp(moment, (found[2] or "").ljust(9, "0")), source, line[found.end() :])


def timestamp(moment: datetime, nanoseconds: str = "0" * 9) -> str:
    """A whole second, and nine digits of its fraction, as :attr:`LogLine.time` has it."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds}Z"


def in_order(logs: Iterable[Sequence[LogLine]]) -> list[LogLine]:
    """The lines of all *logs* by their times; each log stays in its own order, whatever its clock did.

    A line without a time, of a traceback, belongs to the one before it.
    """
    lines = [pair for log in logs for pair in _timed(log)]
    return [line for _, line in sorted(lines, key=itemgetter(0))]


def since(log: Sequence[LogLine], earliest: str) -> list[LogLine]:
    """What was written at the time *earliest* or later. Lines without a time before all others count as old."""
    return [line for time, line in _timed(log) if time >= earliest]


def _timed(log: Sequence[LogLine]) -> list[tuple[str, LogLine]]:
    latest, found = "", []
    for line in log:
        latest = max(latest, line.time or "")
        found.append((latest, line))
    return found


def _text(line: bytes) -> str:
    return line[:MAX_LOG_LINE].decode("utf-8", "replace").replace("\0", "\\x00").rstrip("\r")
