"""``python -m tests.flaky [--every-cluster] [PYTEST ARGS…]``: pytest, and each test that failed once more, alone.

A test that passes then is named as flaky and does not fail the run. One that fails twice does, and so do more than
:data:`MOST_FLAKY`: a run with that many proves nothing. A flaky test is a bug until shown otherwise; this keeps it from
holding up what has nothing to do with it, and keeps its name in sight.

With ``--every-cluster`` a second run follows, of the tests marked ``every_cluster`` on a cluster of another kind; its
failures count together with those of the first.

Each run is a process of its own: what the tests of one leave in theirs (descriptors, threads, signals, limits) is not
there in the next. A rerun has a time limit: where it hangs is printed, then it is ended and has failed.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests import outcomes
from tests.cluster import kinds
from tests.outcomes import Outcomes

CHECKOUT: Final = Path(__file__).resolve().parents[1]
MOST_FLAKY: Final = 3
EVERY_CLUSTER: Final = "--every-cluster"
#: A rerun has so long, in seconds, bringing the cluster up included (which is mostly up by then). The variable is for
#: slower machines.
RERUN_SECONDS: Final = float(os.environ.get("MESHDEV_RERUN_SECONDS", "900"))
#: Between a Ctrl-C and a kill: fixtures undo what they made.
_UNDO_SECONDS: Final = 120.0


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
BOTH: Final = (*ONE, Phase(kinds.OTHER, ("-m", kinds.OTHER.selection), str(kinds.OTHER)))


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
        code, told = _run(*arguments, *phase.selection)
        if code not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
            return code  # interrupted, a wrong argument, no test at all: nothing to try again
        # The limit is the whole run's: those that failed on one cluster are taken off the other's.
        passes, fails = judge(told.failed, _passes_alone, MOST_FLAKY - len(flaky) - len(broken))
        flaky += map(phase.name, passes)
        broken += map(phase.name, fails)
        passed += len(told.passed)
    if flaky or broken or len(phases) > 1:
        print(summary(passed, flaky, broken), flush=True)
    return int(pytest.ExitCode.TESTS_FAILED if broken else pytest.ExitCode.OK)


def _run(*arguments: str) -> tuple[int, Outcomes]:
    """A run of pytest: its exit code, and what became of the tests."""
    with tempfile.NamedTemporaryFile("r", prefix="meshdev-outcomes-") as file:
        environment = {**os.environ, outcomes.VARIABLE: file.name}
        code = _pytest("-p", outcomes.__name__, *arguments, environment=environment)
        return code, Outcomes.read(file)


def _passes_alone(test: str) -> bool:
    print(f"\nonce more, alone: {test}", flush=True)
    # Where it hangs is printed before it is interrupted; that time begins with the test, the other with the process.
    where = ("-o", f"faulthandler_timeout={RERUN_SECONDS / 2}")
    return _pytest(*where, test, seconds=RERUN_SECONDS) == pytest.ExitCode.OK


def _pytest(*arguments: str, seconds: float | None = None, environment: dict[str, str] | None = None) -> int:
    """The exit code of pytest; as a shell's where a signal ended it. Interrupted after *seconds*."""
    with subprocess.Popen([sys.executable, "-m", "pytest", *arguments], env=environment) as process:
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            print(f"no end after {seconds:g} s: it is interrupted", flush=True)
            process.send_signal(signal.SIGINT)
            code = _ended(process)
        except (KeyboardInterrupt, SystemExit) as error:
            if isinstance(error, SystemExit):  # of SIGTERM; a terminal's Ctrl-C has reached pytest, too
                process.send_signal(signal.SIGINT)
            _ended(process)
            raise
    return code if code >= 0 else 128 - code


def _ended(process: "subprocess.Popen[bytes]") -> int:
    """The exit code of a run that was interrupted; it is killed where it does not end."""
    try:
        process.wait(_UNDO_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
    return process.wait()


def _terminated(number: int, _: object) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _terminated)
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(pytest.ExitCode.INTERRUPTED)
