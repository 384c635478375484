"""Between ``meshdev up``, which runs a project, and other commands about the same project: JSON lines on its socket.

::

    command → up   {"op": "status"}   →  {"phase": …}      now
                   {"op": "settled"}  →  {"phase": …}      once it is no longer starting
                   {"op": "down"}     →  {"phase": …}      at once, and the end of file when all is undone
"""

from typing import Final, Literal

from meshdev.wire.codecs import Choice, Integer, Number, Pairs, Text
from meshdev.wire.jsonlines import encode
from meshdev.wire.message import decode, dump, field, load, message

ProjectOperation = Literal["status", "settled", "down"]
ProjectPhaseName = Literal["starting", "up", "ending", "ended"]

_OPERATIONS: Final[tuple[ProjectOperation, ...]] = ("status", "settled", "down")
PROJECT_PHASES: Final[tuple[ProjectPhaseName, ...]] = ("starting", "up", "ending", "ended")
_MAX_NAME: Final = 256


def part_name(text: str) -> str:
    """The name of a part of a project: ``process b``. Raises ValueError."""
    if not 0 < len(text) <= _MAX_NAME:
        raise ValueError(f"{text[:_MAX_NAME]!r} is no name")
    return text


_PAIRS: Final = Pairs(part_name, Text(_MAX_NAME), 256)


@message(strict=True)
class ProjectRequest:
    """What is asked for."""

    op: ProjectOperation = field(Choice(_OPERATIONS))


@message()
class ProjectStatus:
    """How a project stands."""

    phase: ProjectPhaseName = field(Choice(PROJECT_PHASES))
    pid: int = field(Integer(1, 1 << 22))
    undo_s: float = field(Number(0, 1e6))
    """The longest that undoing all of it may take."""
    digests: tuple[tuple[str, str], ...] = field(_PAIRS)
    """By the name of each part of the file: equal where it is as it was."""
    processes: tuple[tuple[str, str], ...] = field(_PAIRS)
    """The phase of each."""
    intercepts: tuple[tuple[str, str], ...] = field(_PAIRS)


def encode_project_request(request: ProjectRequest) -> bytes:
    """One line."""
    return encode(dump(request))


def parse_project_request(line: bytes) -> ProjectRequest:
    """The request in one line. Raises ProtocolError."""
    return decode(line, "The request", lambda found: load(ProjectRequest, found))


def encode_project_status(status: ProjectStatus) -> bytes:
    """One line."""
    return encode(dump(status))


def parse_project_status(line: bytes) -> ProjectStatus:
    """The status in one line. Raises ProtocolError."""
    return decode(line, "The answer", lambda found: load(ProjectStatus, found))
