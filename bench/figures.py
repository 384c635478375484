"""The figures of intercepts: medians, worst values, numbers of requests and errors, goals; as a table and as JSON."""

import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from rich.table import Table

from bench.report import Goal


@dataclass
class Figure:
    """One figure, and the requests by which it was measured; *wrong* counts what was not as it should be."""

    values: list[float] = field(default_factory=list)
    requests: int = 0
    wrong: Counter[str] = field(default_factory=Counter)

    @property
    def median(self) -> float:
        """Of all values."""
        return statistics.median(self.values)

    @property
    def errors(self) -> int:
        """How many requests went wrong."""
        return self.wrong.total()


Figures = Mapping[str, Figure]

#: One is too much: the highest value counts, not the median.
WORST: Final = frozenset({"restarts"})

GOALS: Final[Mapping[str, Goal]] = {
    "first intercepted request, cold, s": Goal(1.0, absolute=True),
    "first intercepted request, warm, s": Goal(1.0, absolute=True),
    "restarts": Goal(0, absolute=True),
    "match added, ms": Goal(100, absolute=True),
    "match withdrawn, ms": Goal(100, absolute=True),
    "local program down, ms": Goal(100, absolute=True),
    "local program up, ms": Goal(100, absolute=True),
    "requests/s ÷ bare, 1 connection": Goal(0.55, at_least=True),
    "requests/s ÷ bare, 16 connections": Goal(0.7, at_least=True),
    "requests/s ÷ bare, 64 connections": Goal(0.7, at_least=True),
    "p50 − bare, 1,000 a second, ms": Goal(0.06, absolute=True),
    "nginx, requests/s ÷ bare, 1 connection": Goal(0.5, at_least=True),
    "nginx, requests/s ÷ bare, 16 connections": Goal(0.33, at_least=True),
    "nginx, requests/s ÷ bare, 64 connections": Goal(0.38, at_least=True),
    "body of 1 GB, MB/s ÷ bare": Goal(0.65, at_least=True),
    # 0.8 of what Envoy alone gave: 0.88 (docs/design/0020-passthrough.md).
    "gRPC, requests/s ÷ bare, 16 calls at a time": Goal(0.7, at_least=True),
    # While nobody watches, the goals above are those of a sidecar that cannot be watched.
    "watched, requests/s ÷ unwatched, 16 connections": Goal(0.85, at_least=True),
    "watched, gRPC, requests/s ÷ unwatched, 16 calls at a time": Goal(0.85, at_least=True),
    "watched, matched, requests/s ÷ unwatched, 16 connections": Goal(0.85, at_least=True),
    "matched, requests/s ÷ link, 16 connections": Goal(0.8, at_least=True),
    "sidecar, MB": Goal(125, absolute=True),
    "image unpacked, MB": Goal(450, absolute=True),
}


#: Parts of names: these figures explain others, and stand in the JSON only.
_DETAILS: Final = (", p99 ", ", cores of ", ", shown a second")


def counted(name: str, figure: Figure) -> float:
    """The value that is compared with the goal."""
    return max(figure.values) if name in WORST else figure.median


def missed(figures: Figures) -> list[str]:
    """The goals that were not met, and what went wrong, as sentences."""
    sentences = []
    for name, figure in figures.items():
        goal = GOALS.get(name)
        if goal and not goal.met(counted(name, figure)):
            sentences.append(f"intercepts: {name} is {counted(name, figure):.2f}, goal {goal}")
        if figure.errors:
            why = ", ".join(f"{count} × {text}" for text, count in figure.wrong.most_common(3))
            sentences.append(f"intercepts: {name}: {figure.errors} of {figure.requests} requests: {why}")
    return sentences


def as_json(figures: Figures) -> dict[str, object]:
    """Everything, for later comparison."""
    return {
        "figures": {
            name: {
                "median": figure.median,
                "min": min(figure.values),
                "max": max(figure.values),
                "requests": figure.requests,
                "errors": figure.errors,
                "wrong": dict(figure.wrong),
                "samples": figure.values,
            }
            for name, figure in figures.items()
        },
        "missed": missed(figures),
    }


def table(figures: Figures, machine: str) -> Table:
    """One row a figure, less those that only explain others."""
    result = Table(title=f"intercepts ({machine})", title_justify="left")
    for column in ("figure", "median", "min to max", "of", "requests", "errors", "goal", ""):
        result.add_column(column, justify="left" if column in {"figure", ""} else "right")
    for name, figure in figures.items():
        if any(detail in name for detail in _DETAILS):
            continue
        spread = f"{_shown(min(figure.values))} to {_shown(max(figure.values))}" if len(figure.values) > 1 else ""
        counts = (f"{figure.requests:,}", f"{figure.errors:,}") if figure.requests else ("", "")
        goal = GOALS.get(name)
        verdict = (str(goal), "met" if goal.met(counted(name, figure)) else "missed") if goal else ("", "")
        result.add_row(name, _shown(figure.median), spread, str(len(figure.values)), *counts, *verdict)
    return result


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"
