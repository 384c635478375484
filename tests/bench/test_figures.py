"""Medians, worst values and goals of intercepts."""

from collections import Counter

from bench import figures
from bench.figures import Figure

FIGURES = {
    "match added, ms": Figure([40.0, 90.0, 250.0], 300),
    "restarts": Figure([0.0, 0.0, 1.0], 10),
    "sidecar, MB": Figure([131.0]),
    "requests/s ÷ bare, 16 connections": Figure([0.9, 0.4, 0.8], 1000, Counter({"closed": 2})),
    "without a goal": Figure([1.0]),
    "bare, 1 connection, cores of app": Figure([0.5]),
}


def test_missed_goals_and_failures_are_sentences() -> None:
    assert figures.missed(FIGURES) == [
        "intercepts: restarts is 1.00, goal ≤ 0",
        "intercepts: sidecar, MB is 131.00, goal ≤ 125",
        "intercepts: requests/s ÷ bare, 16 connections: 2 of 1000 requests: 2 × closed",
    ]


def test_the_table_has_a_row_a_figure_that_is_no_detail() -> None:
    assert figures.table(FIGURES, "a machine").row_count == len(FIGURES) - 1


def test_the_table_says_which_goals_are_met() -> None:
    *_, verdicts = figures.table(FIGURES, "a machine").columns
    assert list(verdicts.cells) == ["met", "missed", "missed", "met", ""]


def test_json_holds_every_value() -> None:
    found = figures.as_json({"match added, ms": FIGURES["match added, ms"]})
    assert found == {
        "figures": {
            "match added, ms": {
                "median": 90.0,
                "min": 40.0,
                "max": 250.0,
                "requests": 300,
                "errors": 0,
                "wrong": {},
                "samples": [40.0, 90.0, 250.0],
            }
        },
        "missed": [],
    }
