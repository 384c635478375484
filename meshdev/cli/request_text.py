"""Requests for people: one line each, or a table that follows them on a terminal."""

from collections import deque
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from meshdev.text import visible
from meshdev.wire.access import ServedBy
from meshdev.wire.session_inspect import InspectedRequest

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

HEADINGS: Final = ("TIME", "FROM", "METHOD", "PATH", "STATUS", "TOOK", "TO", "WHY")
#: Of the columns but the last, so that lines stand below each other.
_WIDTHS: Final = (12, 22, 7, 30, 6, 8, 22)
_STYLES: Final[dict[ServedBy, str]] = {"laptop": "green", "fallback": "yellow", "meshdev": "red"}
#: Those that get the room that is left; and the columns of a terminal from which on all columns are shown.
_LONG: Final = frozenset({"PATH", "WHY"})
_WIDE: Final = 120
#: The columns from which on a line has room for all, and much of the last.
_LINE: Final = 140
#: On one line of a narrow terminal: at most so many characters of the client and the method, at least of the path.
_NARROW_CLIENT: Final = 16
_NARROW_METHOD: Final = 6
_NARROW_PATH: Final = 20
#: Lines of a terminal that the table's head, its frame and the prompt take.
_AROUND: Final = 5


class RequestRow(NamedTuple):
    """The texts of one request, as in :data:`HEADINGS`."""

    time: str
    client: str
    method: str
    path: str
    status: str
    took: str
    to: str
    why: str


def row(found: InspectedRequest) -> RequestRow:
    """The request, in the local time zone."""
    record = found.record
    return RequestRow(
        time=datetime.fromtimestamp(record.time / 1e6).astimezone().strftime("%H:%M:%S.%f")[:-3],
        client=visible(found.workload or str(record.source)),
        method=visible(record.method) or record.protocol,
        path=visible(record.path) or f":{record.port}",
        status=str(record.status or "-"),
        took=_duration(record.duration),
        to=visible(_to(found)),
        why=visible(record.reason),
    )


def line(found: InspectedRequest) -> str:
    """The request as one line; columns that are too long push the others aside."""
    return aligned(row(found))


def fitting_line(found: InspectedRequest, columns: int) -> str:
    """The same within so many *columns*. Where they are few it is shown why, and not to whom."""
    cells = row(found)
    if columns >= _LINE:
        return line(found)[:columns]
    client, method = _shortened(cells.client, _NARROW_CLIENT), _shortened(cells.method, _NARROW_METHOD)
    first = f"{cells.time[:8]} {client:<{_NARROW_CLIENT}} {method:<{_NARROW_METHOD}} "
    last = f" {cells.status:<3} {cells.took:<8} {cells.why}".rstrip()
    room = max(_NARROW_PATH, columns - len(first) - len(last))
    return f"{first}{_shortened(cells.path, room):<{room}}{last}"[:columns]


def _shortened(cell: str, limit: int) -> str:
    return cell if len(cell) <= limit else f"{cell[: limit - 1]}…"


def aligned(cells: Iterable[str]) -> str:
    """One line of as many cells as there are columns."""
    *first, last = cells
    padded = [f"{cell:<{width}}" for cell, width in zip(first, _WIDTHS, strict=True)]
    return "  ".join((*padded, last)).rstrip()


def _to(found: InspectedRequest) -> str:
    record = found.record
    match record.served_by:
        case "laptop":
            return record.holder or "laptop"
        case "meshdev":
            return "meshdev (error)"
        case _:
            return found.target


def _duration(microseconds: int) -> str:
    if microseconds < 1000:
        return f"{microseconds} µs"
    if microseconds < 1_000_000:
        return f"{microseconds / 1000:.1f} ms"
    return f"{microseconds / 1e6:.1f} s"


class RequestTable:
    """The last requests, as many as fit the terminal."""

    def __init__(self, console: "Console") -> None:
        self._console = console
        self._rows: deque[tuple[RequestRow, str]] = deque(maxlen=max(console.height - _AROUND, 1))
        self._count = self._dropped = 0

    def add(self, requests: Iterable[InspectedRequest], dropped: int) -> None:
        """These came, and *dropped* more that could not be kept."""
        for each in requests:
            self._rows.append((row(each), _STYLES.get(each.record.served_by, "")))
            self._count += 1
        self._dropped += dropped

    def __rich__(self) -> "RenderableType":
        from rich import box  # noqa: PLC0415 -- and the next: 0.1 s that only a terminal's table needs
        from rich.table import Table  # noqa: PLC0415 -- as above
        from rich.text import Text  # noqa: PLC0415 -- as above

        narrow = self._console.width < _WIDE
        lost = f", {self._dropped:,} more were too many to show" if self._dropped else ""
        caption = f"{self._count:,} requests{lost}. Ctrl-C ends."
        table = Table(
            box=box.SIMPLE_HEAD, expand=True, pad_edge=False, padding=(0, 0), caption=caption, caption_justify="left"
        )
        for name in _fitting(HEADINGS, narrow=narrow):
            long = name in _LONG
            table.add_column(name, no_wrap=True, overflow="ellipsis", ratio=1 if long else None)
        for cells, style in self._rows:
            fitting = _fitting((cells.time[:8] if narrow else cells.time, *cells[1:]), narrow=narrow)
            table.add_row(*(Text(cell, style=style) for cell in fitting))
        return table


def _fitting(cells: Sequence[str], *, narrow: bool) -> Sequence[str]:
    """Where there is little room it is shown why, and otherwise to whom."""
    *first, to, why = cells
    return (*first, why or to) if narrow else cells
