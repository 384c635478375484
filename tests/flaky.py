"""``python -m tests.flaky [PYTEST ARGS…]``: pytest, and each test that failed once more, alone, at the end.

A test that passes then is named as flaky and does not fail the run. One that fails twice does, and so do more than
:data:`MOST_FLAKY`: a run with that many proves nothing. A flaky test is a bug until shown otherwise; this keeps it from
holding up what has nothing to do with it, and keeps its name in sight.
"""

import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import pytest

CHECKOUT: Final = Path(__file__).resolve().parents[1]
MOST_FLAKY: Final = 3


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


def judge(failed: Iterable[str], passes_alone: Callable[[str], bool]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Which of *failed* are flaky, and which fail the run. With too many, none is run again and all fail it."""
    failed = tuple(failed)
    if len(failed) > MOST_FLAKY:
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
    outcomes = Outcomes()
    code = int(pytest.main(arguments, plugins=[outcomes]))
    if code != pytest.ExitCode.TESTS_FAILED:  # passed; or interrupted, a wrong argument: nothing to try again
        return code
    flaky, broken = judge(outcomes.failed, _passes_alone)
    print(summary(outcomes.passed, flaky, broken), flush=True)
    return code if broken or not flaky else 0


def _passes_alone(test: str) -> bool:
    print(f"\nonce more, alone: {test}", flush=True)
    done = subprocess.run([sys.executable, "-m", "pytest", test], check=False)
    return done.returncode == pytest.ExitCode.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
