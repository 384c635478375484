"""How sending one signal fares, as a value for status and metrics. Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from meshdev.telemetry.endpoint import Signal

_NOUNS: Final[dict[Signal, str]] = {"traces": "spans", "logs": "logs"}


@dataclass(frozen=True)
class SignalState:
    """``endpoint`` has no secrets. Items are ``sent``; lost are those that ``failed``, since the receiver did not take
    them, and those that were ``dropped``, since too many waited. ``unrecorded`` are requests of which there was no
    record, since there were too many. ``trouble`` is why the receiver takes none now, ``since`` when (seconds since
    1970), ``advice`` what to do."""

    signal: Signal
    endpoint: str
    sent: int = 0
    failed: int = 0
    dropped: int = 0
    unrecorded: int = 0
    trouble: str | None = None
    since: float | None = None
    advice: str | None = None

    @property
    def noun(self) -> str:
        """What is sent, in the plural."""
        return _NOUNS[self.signal]

    @property
    def lost(self) -> int:
        """Both kinds."""
        return self.failed + self.dropped

    def text(self) -> str:
        """One line for people: what is wrong, and since when."""
        if self.trouble is None:
            return f"{self.lost:,} {self.noun} were lost, of {self.sent + self.lost:,} for {self.endpoint}"
        since = f" since {datetime.fromtimestamp(self.since).astimezone():%H:%M:%S}" if self.since is not None else ""
        lost = f"; {self.lost:,} were lost" if self.lost else ""
        advice = f" ({self.advice})" if self.advice else ""
        return f"{self.noun} do not reach {self.endpoint}{since}: {self.trouble}{advice}{lost}"

    def note(self) -> str | None:
        """What status shows: nothing while nothing was lost."""
        parts = [self.text()] if self.trouble is not None or self.lost else []
        if self.unrecorded:
            parts.append(f"{self.unrecorded:,} requests were too many to be recorded, and have no {self.noun}")
        return "; ".join(parts) or None
