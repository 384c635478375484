"""Durations as Go writes them (time.ParseDuration), which is how kubectl takes them: ``10s``, ``1m30s``, ``500ms``."""

import re
from typing import Final

_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
_PART: Final = r"(\d+(?:\.\d*)?|\.\d+)(h|ms|us|µs|ns|m|s)"


def parse(text: str) -> float:
    """Seconds. Raises ValueError."""
    total, at = 0.0, 0
    while part := re.compile(_PART).match(text, at):
        total += float(part[1]) * _UNITS[part[2]]
        at = part.end()
    if not text or at < len(text):
        raise ValueError(f"{text!r} is no duration")
    return total
