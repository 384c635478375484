"""``python -m tests.flaky [--every-cluster] [PYTEST ARGS…]``: pytest, and each test that failed once more, alone.

A test that passes then is named as flaky and does not fail the run. One that fails twice does, and so do more than
:data:`MOST_FLAKY`: a run with that many proves nothing. A flaky test is a bug until shown otherwise; this keeps it from
holding up what has nothing to do with it, and keeps its name in sight.

With ``--every-cluster`` a second run follows, of the tests marked ``every_cluster`` on a cluster of another kind; its
failures count together with those of the first.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.cluster import kinds

CHECKOUT: Final = Path(__file__).resolve().parents[1]
MOST_FLAKY: Final = 3
EVERY_CLUSTER: Final = "--every-cluster"


@dataclass(frozen=True)
class Phase:
    """One run of pytest, on a cluster of *kind*; *label* is behind its tests' names in the summary."""

    kind: kinds.ClusterKind
    selection: tuple[str, ...] = ()
    label: str = ""

    def name(self, test: str) -> str:
        """What the summary calls *test*."""
        return f"{test} ({self.label})" if self.label else test


ONE: Final = (Phase(kinds.DEFAULT),)
BOTH: Final = (*ONE, Phase(kinds.OTHER, ("-m", "every_cluster"), str(kinds.OTHER)))


class Outcomes:
    """A pytest plugin: which tests passed, and which failed in setup, call or teardown."""

    def __init__(self) -> None:
        self._failed: dict[str, None] = {}
        self._called: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Called by pytest for each phase of each test."""
        if report.failed:
            self._failed[report.nodeid] = None
        elif report.when == "call" and report.passed:
            self._called.add(report.nodeid)

    @property
    def failed(self) -> tuple[str, ...]:
        """Node ids, in the order of their failures."""
        return tuple(self._failed)

    @property
    def passed(self) -> int:
        """How many passed; not those whose teardown failed."""
        return len(self._called - self._failed.keys())


def judge(
    failed: Iterable[str], passes_alone: Callable[[str], bool], most: int = MOST_FLAKY
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which of *failed* are flaky, and which fail the run. More than *most*: none is run again and all fail it."""
    failed = tuple(failed)
    if len(failed) > most:
        return (), failed
    flaky = tuple(test for test in failed if passes_alone(test))
    return flaky, tuple(test for test in failed if test not in flaky)


def summary(passed: int, flaky: Sequence[str], broken: Sequence[str]) -> str:
    """The last lines of a run in which something failed; *passed* does not count the flaky ones yet."""
    lines = [f"flaky: {test} failed, and passed when it ran alone" for test in flaky]
    lines += [f"failed: {test}" for test in broken]
    return "\n".join([*lines, f"{passed + len(flaky)} passed, {len(broken)} failed"])


def main(arguments: list[str]) -> int:
    """The exit code: pytest's own, but 0 where all that failed is flaky."""
    phases = BOTH if EVERY_CLUSTER in arguments else ONE
    arguments = [argument for argument in arguments if argument != EVERY_CLUSTER]
    passed, flaky, broken = 0, list[str](), list[str]()
    for phase in phases:
        if phase.label:
            print(f"\non another cluster: {phase.label}", flush=True)
        os.environ[kinds.VARIABLE] = " ".join(phase.kind.options)
        outcomes = Outcomes()
        code = int(pytest.main([*arguments, *phase.selection], plugins=[outcomes]))
        if code not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
            return code  # interrupted, a wrong argument, no test at all: nothing to try again
        # The limit is the whole run's: those that failed on one cluster are taken off the other's.
        passes, fails = judge(outcomes.failed, _passes_alone, MOST_FLAKY - len(flaky) - len(broken))
        flaky += map(phase.name, passes)
        broken += map(phase.name, fails)
        passed += outcomes.passed
    if flaky or broken or len(phases) > 1:
        print(summary(passed, flaky, broken), flush=True)
    return int(pytest.ExitCode.TESTS_FAILED if broken else pytest.ExitCode.OK)


def _passes_alone(test: str) -> bool:
    print(f"\nonce more, alone: {test}", flush=True)
    done = subprocess.run([sys.executable, "-m", "pytest", test], check=False)
    return done.returncode == pytest.ExitCode.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
