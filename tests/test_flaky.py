"""The run of everything: what happens to a test that fails once, twice, and to many of them."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.flaky import CHECKOUT, MOST_FLAKY, judge, summary
from tests.outcomes import Outcomes

#: Tests that pass, that pass from their second run on, and that never pass.
_SUITE: Final = """
import os, pathlib, pytest

def first_time(name):
    mark = pathlib.Path(__file__).with_name(name)
    try:
        return not mark.exists()
    finally:
        mark.touch()

def test_good():
    pass

@pytest.mark.parametrize("number", range({flaky}))
def test_flaky(number):
    assert not first_time(f"flaky-{{number}}")

@pytest.mark.parametrize("number", range({bad}))
def test_bad(number):
    raise AssertionError

@pytest.mark.skipif(not {other}, reason="not asked for")
@pytest.mark.every_cluster
def test_everywhere():
    kind = os.environ["MESHDEV_TESTBED_KIND"]
    pathlib.Path(__file__).with_name("kinds").open("a").write(kind + "\\n")
    assert "1.32" not in kind or {other} == "passes"

@pytest.fixture
def untidy():
    yield
    assert not first_time("untidy")

@pytest.mark.skipif({teardown} == 0, reason="not asked for")
def test_untidy(untidy):
    pass
"""


def _run(
    folder: Path, *arguments: str, flaky: int = 0, bad: int = 0, teardown: int = 0, other: str = ""
) -> tuple[int, list[str]]:
    """The exit code of a run of the suite above, and the lines that it printed."""
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n  every_cluster\n")
    suite = folder / "test_suite.py"
    suite.write_text(_SUITE.format(flaky=flaky, bad=bad, teardown=teardown, other=repr(other)))
    done = _flaky(folder, *arguments, "test_suite.py")
    return done.returncode, done.stdout.splitlines()


#: What a process of its own is spared: a signal that stays blocked, a lock whose descriptor stays open.
_MESS: Final = """
import fcntl, os, pathlib, signal

def test_mess():
    lock = pathlib.Path(__file__).with_name("lock")
    first = not lock.exists()
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    fcntl.flock(os.open(lock, os.O_CREAT | os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not first
"""

#: Fails, and hangs when it runs again: in a fixture, as what has no time limit does.
_HANGING: Final = """
import pathlib, pytest, time

@pytest.fixture
def hanging():
    mark = pathlib.Path(__file__).with_name("mark")
    if mark.exists():
        hang()
    mark.touch()

def hang():
    try:
        print("it hangs", flush=True)
        time.sleep(600)
    finally:
        pathlib.Path(__file__).with_name("left").touch()

def test_it(hanging):
    raise AssertionError
"""


def _flaky(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.flaky", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), **variables},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_what_passes_is_left_alone(tmp_path: Path) -> None:
    code, lines = _run(tmp_path)
    assert code == 0
    assert not [line for line in lines if line.startswith("once more")]


def test_a_flaky_test_is_named_and_fails_nothing(tmp_path: Path) -> None:
    code, lines = _run(tmp_path, flaky=1, teardown=1)
    assert code == 0
    assert lines[-3:] == [
        "flaky: test_suite.py::test_flaky[0] failed, and passed when it ran alone",
        "flaky: test_suite.py::test_untidy failed, and passed when it ran alone",
        "3 passed, 0 failed",
    ]


def test_a_test_that_fails_twice_fails_the_run(tmp_path: Path) -> None:
    code, lines = _run(tmp_path, flaky=1, bad=1)
    assert code == 1
    assert lines[-3:] == [
        "flaky: test_suite.py::test_flaky[0] failed, and passed when it ran alone",
        "failed: test_suite.py::test_bad[0]",
        "2 passed, 1 failed",
    ]


def test_too_many_fail_the_run_without_another_try(tmp_path: Path) -> None:
    code, lines = _run(tmp_path, flaky=MOST_FLAKY + 1)
    assert code == 1
    assert lines[-1] == f"1 passed, {MOST_FLAKY + 1} failed"
    assert not [line for line in lines if line.startswith("once more")]


def test_marked_tests_run_on_the_other_cluster_too(tmp_path: Path) -> None:
    code, lines = _run(tmp_path, "--every-cluster", other="passes")
    assert (code, lines[-1]) == (0, "3 passed, 0 failed")
    default, other = (tmp_path / "kinds").read_text().splitlines()
    assert default == "--kubernetes 1.35 --nodes 1 --kube-proxy nftables"
    assert other == "--kubernetes 1.32 --nodes 2 --kube-proxy iptables --masquerade-all"


def test_failures_of_both_clusters_are_in_one_summary(tmp_path: Path) -> None:
    code, lines = _run(tmp_path, "--every-cluster", flaky=1, other="fails")
    assert code == 1
    assert lines[-3:] == [
        "flaky: test_suite.py::test_flaky[0] failed, and passed when it ran alone",
        "failed: test_suite.py::test_everywhere (Kubernetes 1.32, 2 nodes, kube-proxy iptables --masquerade-all)",
        "3 passed, 1 failed",
    ]


def test_failures_of_the_first_cluster_leave_fewer_tries_to_the_other(tmp_path: Path) -> None:
    code, lines = _run(tmp_path, "--every-cluster", bad=MOST_FLAKY, other="fails")
    assert code == 1
    assert lines[-1] == f"2 passed, {MOST_FLAKY + 1} failed"
    assert len([line for line in lines if line.startswith("once more")]) == MOST_FLAKY


def test_no_marked_test_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  every_cluster\n")
    (tmp_path / "test_suite.py").write_text("def test_good(): pass")
    done = _flaky(tmp_path, "--every-cluster", "test_suite.py")
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED


def test_a_run_without_tests_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text("")
    assert _flaky(tmp_path, "test_suite.py").returncode == pytest.ExitCode.NO_TESTS_COLLECTED


def test_what_a_test_leaves_in_its_process_does_not_meet_its_rerun(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(_MESS)
    done = _flaky(tmp_path, "test_suite.py")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1] == "1 passed, 0 failed"


def test_a_rerun_that_hangs_fails_and_says_where(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(_HANGING)
    done = _flaky(tmp_path, "test_suite.py", MESHDEV_RERUN_SECONDS="10")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "0 passed, 1 failed")
    assert "no end after 10 s" in done.stdout
    assert re.search(r'test_suite\.py", line \d+ in hang\n', done.stderr)
    assert (tmp_path / "left").exists()  # it was interrupted, not killed


def test_sigterm_ends_what_runs(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(_HANGING)
    (tmp_path / "mark").touch()
    command = [sys.executable, "-m", "tests.flaky", "-s", "test_suite.py"]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("it hangs" in line for line in iter(process.stdout.readline, ""))
        process.terminate()
        process.stdout.read()  # to the end: nobody has it any more
        assert process.wait(30) == 128 + signal.SIGTERM
    assert (tmp_path / "left").exists()


def test_outcomes() -> None:
    lines = [
        '{"test": "a", "when": "setup", "outcome": "passed"}',
        '{"test": "a", "when": "call", "outcome": "passed"}',
        '{"test": "b", "when": "call", "outcome": "passed"}',
        '{"test": "c", "when": "setup", "outcome": "failed"}',
        '{"test": "b", "when": "teardown", "outcome": "failed"}',
        '{"test": "d", "when": "setup", "outcome": "skipped"}',
    ]
    assert Outcomes.read(lines) == Outcomes(passed=("a",), failed=("c", "b"))


def test_the_limit() -> None:
    tests = tuple("abc")
    assert judge(tests, lambda _: True) == (tests, ())
    assert judge(tests, lambda test: test == "b") == (("b",), ("a", "c"))
    assert judge((*tests, "d"), lambda _: True) == ((), (*tests, "d"))


def test_summary() -> None:
    assert summary(5, ["a"], []) == "flaky: a failed, and passed when it ran alone\n6 passed, 0 failed"
