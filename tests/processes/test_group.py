"""Process groups and the guard that ends them, with real processes."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from meshdev.processes import guard
from meshdev.processes.group import ProcessGroup
from meshdev.processes.guard import ProcessGuard
from tests.loops import DEADLINE_SECONDS


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def guarding() -> Iterator[ProcessGuard]:
    made = ProcessGuard()
    yield made
    made.close(lambda: None)


def started(guarding: ProcessGuard, script: str, stop_seconds: float = 10) -> ProcessGroup:
    return ProcessGroup(
        ["sh", "-c", script], directory="/", env=dict(os.environ), stop_seconds=stop_seconds, guard=guarding
    )


def until_gone(group: ProcessGroup) -> int:
    codes: list[int | None] = []

    def gone() -> bool:
        codes.append(group.exit_code())
        return codes[-1] is not None

    until(gone)
    group.close()
    assert codes[-1] is not None
    return codes[-1]


def until_printed(group: ProcessGroup, text: bytes) -> None:
    seen: list[bytes] = []

    def printed() -> bool:
        seen.append(group.read() or b"")
        return text in b"".join(seen)

    until(printed)


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_exit_codes(guarding: ProcessGuard, script: str, code: int) -> None:
    assert until_gone(started(guarding, script)) == code


def test_output_and_errors_are_one_stream_with_an_end(guarding: ProcessGuard) -> None:
    group = started(guarding, "echo out; echo err >&2; cat")
    until_printed(group, b"out\nerr\n")
    until(lambda: group.read() is None)
    assert until_gone(group) == 0


def test_what_the_program_leaves_behind_is_ended_before_its_exit_counts(guarding: ProcessGuard) -> None:
    group = started(guarding, "sleep 60 & echo started; exit 3")
    until_printed(group, b"started")
    assert until_gone(group) == 3
    assert not guard.alive(group.pid)


def test_what_ignores_sigterm_is_killed_when_its_time_is_over(guarding: ProcessGuard) -> None:
    group = started(guarding, "sh -c 'trap \"\" TERM; echo deaf; sleep 60; sleep 60' & sleep 60", stop_seconds=0.3)
    until_printed(group, b"deaf")
    group.signal(kill=False)
    assert until_gone(group) == 143
    assert not guard.alive(group.pid)


#: Starts two groups, one of which ignores SIGTERM, says their pids, and waits.
COMMAND = """
import os, sys
from meshdev.processes.group import ProcessGroup
from meshdev.processes.guard import ProcessGuard
guard = ProcessGuard(int(sys.argv[1]))
for script in ("sleep 61 & sleep 61", "trap '' TERM; while true; do sleep 61; done"):
    group = ProcessGroup(["sh", "-c", script], directory="/", env=dict(os.environ), stop_seconds=0.5, guard=guard)
    print(group.pid, flush=True)
sys.stdin.read()
"""


def test_a_command_that_is_killed_leaves_no_process_and_then_no_lock(tmp_path: Path) -> None:
    lock = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    command = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(COMMAND), str(lock)],
        pass_fds=(lock,),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    os.close(lock)
    assert command.stdout is not None
    groups = [int(command.stdout.readline()) for _ in range(2)]
    assert all(map(guard.alive, groups))
    command.send_signal(signal.SIGKILL)
    command.communicate()
    holders = f"/proc/*/fd/{lock}"
    until(lambda: not any(map(guard.alive, groups)))
    until(lambda: not [path for path in Path("/").glob(holders[1:]) if _is(path, tmp_path / "lock")])


def _is(path: Path, target: Path) -> bool:
    try:
        return path.readlink() == target
    except OSError:  # it has ended
        return False
