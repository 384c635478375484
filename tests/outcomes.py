"""A pytest plugin (``-p tests.outcomes``): each report of a test as a line of JSON in the file that a variable names.

For :mod:`tests.flaky`, whose pytest is another process. A line at a time: a run that is killed has said what it knew.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

#: Names the file; without it nothing is written.
VARIABLE: Final = "MESHDEV_TEST_OUTCOMES"


@dataclass(frozen=True)
class Outcomes:
    """Node ids of a run, in the order in which they passed, or failed in setup, call or teardown."""

    passed: tuple[str, ...]
    failed: tuple[str, ...]

    @classmethod
    def read(cls, lines: Iterable[str]) -> "Outcomes":
        """From what a run wrote. One that passed and whose teardown failed has failed."""
        called, failed = dict[str, None](), dict[str, None]()
        for line in lines:
            report = json.loads(line)
            if report["outcome"] == "failed":
                failed[report["test"]] = None
            elif (report["when"], report["outcome"]) == ("call", "passed"):
                called[report["test"]] = None
        return cls(tuple(test for test in called if test not in failed), tuple(failed))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Called by pytest for each phase of each test."""
    if path := os.environ.get(VARIABLE):
        line = json.dumps({"test": report.nodeid, "when": report.when, "outcome": report.outcome})
        with Path(path).open("a") as file:
            file.write(line + "\n")
