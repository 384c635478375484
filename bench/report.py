"""Medians, ratios against ``kubectl port-forward`` and goals, as a table and as JSON."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from rich.table import Table

from bench.ways import KUBECTL

Samples = Mapping[str, Mapping[str, Sequence[float]]]
"""way → figure → values of all rounds."""


@dataclass(frozen=True)
class Goal:
    """*limit* of the ratio to kubectl (or of the value itself), and which side is good."""

    limit: float
    at_least: bool = False
    absolute: bool = False

    def met(self, value: float) -> bool:
        """Whether *value* is on the good side."""
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}{'' if self.absolute else ' ×'}"


GOALS: Final[Mapping[str, Goal]] = {
    "up, 1 connection, MB/s": Goal(0.9, at_least=True),
    "up, 4 connections, MB/s": Goal(0.9, at_least=True),
    "down, 1 connection, MB/s": Goal(0.9, at_least=True),
    "down, 4 connections, MB/s": Goal(0.9, at_least=True),
    "round trip p50, µs": Goal(1.15),
    "connect + first byte p50, ms": Goal(0.7),
    "connect warm, s": Goal(1.5, absolute=True),
    "connect cold, s": Goal(8.0, absolute=True),
    "session + helper, MB": Goal(120.0, absolute=True),
    "manager tunnel, MB": Goal(60.0, absolute=True),
}


def medians(samples: Samples) -> dict[str, dict[str, float]]:
    """The median of each figure."""
    return {
        way: {name: statistics.median(values) for name, values in figures.items()} for way, figures in samples.items()
    }


def ratios(samples: Samples) -> dict[str, dict[str, float]]:
    """Each figure of meshdev over kubectl's, where both have it."""
    found = medians(samples)
    base = found.get(KUBECTL, {})
    return {
        way: {name: value / base[name] for name, value in figures.items() if base.get(name)}
        for way, figures in found.items()
        if way != KUBECTL
    }


def as_json(samples: Samples, machine: str) -> dict[str, object]:
    """Everything, for later comparison."""
    return {
        "machine": machine,
        "samples": samples,
        "medians": medians(samples),
        "ratios": ratios(samples),
        "missed": missed(samples),
    }


def missed(samples: Samples) -> list[str]:
    """The goals that were not met, as sentences."""
    found, relative = medians(samples), ratios(samples)
    sentences = []
    for way in relative:
        for name, goal in GOALS.items():
            value = (found if goal.absolute else relative)[way].get(name)
            if value is not None and not goal.met(value):
                sentences.append(f"{way}: {name} is {value:.2f}, goal {goal}")
    return sentences


def table(samples: Samples, machine: str) -> Table:
    """One row a figure: the median of each way, its spread, and the ratio."""
    found, relative = medians(samples), ratios(samples)
    result = Table(title=f"meshdev against {KUBECTL} ({machine})", title_justify="left")
    result.add_column("figure (median, min to max)")
    for way in samples:
        result.add_column(way, justify="right")
    for way in relative:
        result.add_column(f"{way} ÷ kubectl", justify="right")
    result.add_column("goal")
    for name in dict.fromkeys(name for figures in samples.values() for name in figures):
        goal = GOALS.get(name)
        cells = [_cell(samples[way].get(name), found[way].get(name)) for way in samples]
        compared = [_ratio(relative[way].get(name)) for way in relative]
        result.add_row(name, *cells, *compared, str(goal) if goal else "")
    return result


def _cell(values: Sequence[float] | None, median: float | None) -> str:
    if not values or median is None:
        return ""
    show: Callable[[float], str] = (lambda value: f"{value:,.0f}") if median >= 100 else (lambda value: f"{value:.2f}")
    return show(median) if len(values) == 1 else f"{show(median)} ({show(min(values))} to {show(max(values))})"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
