"""The figures of intercepts: medians, worst values, numbers of requests and errors, goals; as a table and as JSON."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from rich.table import Table

from bench.report import Goal


@dataclass
class Figure:
    """One figure and what it was measured by."""

    values: list[float] = field(default_factory=list)
    requests: int = 0
    errors: int = 0

    @property
    def median(self) -> float:
        """Of all values."""
        return statistics.median(self.values)


Figures = Mapping[str, Figure]

#: Ratios are told as such; for these the lowest or highest value counts, not the median.
WORST: Final = frozenset({"restarts"})

GOALS: Final[Mapping[str, Goal]] = {
    "first intercepted request, cold, s": Goal(2.5, absolute=True),
    "first intercepted request, warm, s": Goal(2.5, absolute=True),
    "restarts": Goal(0, absolute=True),
    "match added, ms": Goal(100, absolute=True),
    "match withdrawn, ms": Goal(100, absolute=True),
    "local program down, ms": Goal(100, absolute=True),
    "local program up, ms": Goal(100, absolute=True),
    **{f"requests/s ÷ bare, {many}": Goal(0.5, at_least=True, absolute=True) for many in (1, 16, 64)},
    **{f"p50 − bare, {many}, ms": Goal(0.4, absolute=True) for many in (1, 16, 64)},
    "sidecar, MB": Goal(130, absolute=True),
    "image unpacked, MB": Goal(450, absolute=True),
}


def counted(name: str, figure: Figure) -> float:
    """The value that is compared with the goal."""
    return max(figure.values) if name in WORST else figure.median


def missed(figures: Figures) -> list[str]:
    """The goals that were not met, and requests that failed, as sentences."""
    sentences = []
    for name, figure in figures.items():
        goal = GOALS.get(name)
        if goal and not goal.met(counted(name, figure)):
            sentences.append(f"intercepts: {name} is {counted(name, figure):.2f}, goal {goal}")
        if figure.errors:
            sentences.append(f"intercepts: {name}: {figure.errors} of {figure.requests} requests failed")
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
                "samples": figure.values,
            }
            for name, figure in figures.items()
        },
        "missed": missed(figures),
    }


def table(figures: Figures, machine: str) -> Table:
    """One row a figure."""
    result = Table(title=f"intercepts ({machine})", title_justify="left")
    for column in ("figure", "median", "min to max", "of", "requests", "errors", "goal"):
        result.add_column(column, justify="left" if column == "figure" else "right")
    for name, figure in figures.items():
        spread = f"{shown(min(figure.values))} to {shown(max(figure.values))}" if len(figure.values) > 1 else ""
        counts = (f"{figure.requests:,}", f"{figure.errors:,}") if figure.requests else ("", "")
        goal = GOALS.get(name)
        result.add_row(name, shown(figure.median), spread, str(len(figure.values)), *counts, str(goal) if goal else "")
    return result


def shown(value: float) -> str:
    """With as many digits as mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}"


def merged(*parts: Figures) -> dict[str, Figure]:
    """All of them, in this order."""
    return {name: figure for part in parts for name, figure in part.items()}


def total(figures: Iterable[Figure]) -> tuple[int, int]:
    """Requests and errors."""
    every: Sequence[Figure] = list(figures)
    return sum(each.requests for each in every), sum(each.errors for each in every)
