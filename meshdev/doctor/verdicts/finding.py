"""The outcome of one check."""

from dataclasses import dataclass
from typing import Final

from meshdev.wire.answers import CheckAnswer, CheckState
from meshdev.wire.message import dump

FindingState = CheckState
#: The worst last; a check that could not be made says nothing.
STATES: Final[tuple[FindingState, ...]] = ("skipped", "ok", "warning", "failed")


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, in a sentence without a full stop; *hint* is the way out: a command to type, mostly."""

    state: FindingState
    detail: str
    hint: str | None = None


def ok(detail: str) -> Finding:
    """As it should be."""
    return Finding("ok", detail)


def warning(detail: str, hint: str | None = None) -> Finding:
    """Something will not work as well as it could, or only in some cases."""
    return Finding("warning", detail, hint)


def failed(detail: str, hint: str | None = None) -> Finding:
    """Something that is needed does not work."""
    return Finding("failed", detail, hint)


def skipped(detail: str, hint: str | None = None) -> Finding:
    """It could not be examined, or does not apply; the detail is the reason."""
    return Finding("skipped", detail, hint)


@dataclass(frozen=True, slots=True)
class Examined:
    """A check's finding under its name."""

    check: str
    group: str
    finding: Finding

    def as_json(self) -> dict[str, object]:
        """An item of ``doctor -o json``."""
        found = self.finding
        return dump(CheckAnswer(self.check, found.state, found.detail, found.hint))
