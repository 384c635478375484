"""Medians, ratios and goals."""

from bench import report
from bench.ways import KUBECTL

SAMPLES = {
    KUBECTL: {"up, 1 connection, MB/s": [100.0, 120.0, 110.0], "round trip p50, µs": [500.0, 600.0, 550.0]},
    "meshdev spdy": {
        "up, 1 connection, MB/s": [88.0, 90.0, 77.0],
        "round trip p50, µs": [550.0, 500.0, 600.0],
        "connect warm, s": [1.2],
        "session + helper, MB": [130.0],
    },
}


def test_a_ratio_compares_medians() -> None:
    assert report.ratios(SAMPLES) == {"meshdev spdy": {"up, 1 connection, MB/s": 88 / 110, "round trip p50, µs": 1.0}}


def test_missed_goals_are_sentences() -> None:
    assert report.missed(SAMPLES) == [
        "meshdev spdy: up, 1 connection, MB/s is 0.80, goal ≥ 0.9 ×",
        "meshdev spdy: session + helper, MB is 130.00, goal ≤ 120",
    ]


def test_the_table_has_a_row_a_figure() -> None:
    assert report.table(SAMPLES, "a machine").row_count == 4


def test_json_holds_everything() -> None:
    assert set(report.as_json(SAMPLES, "a machine")) == {"machine", "samples", "medians", "ratios", "missed"}
