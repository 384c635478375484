"""The testbed's lock: who waits hears who has it, not for ever, and it is free when whoever took it lets go."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.lock import holders, locked_testbed


def _take(path: Path, said: list[str], seconds: float = 20) -> None:
    with locked_testbed(said.append, path, seconds, tell=0.2):
        pass


@contextmanager
def _started(*command: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Running as long as the block, with all that it starts."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as process:
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def _held(path: Path) -> Iterator[int]:
    """By flock(1), as by hand."""
    with _started("flock", str(path), "sh", "-c", "echo; exec sleep 600") as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid


def test_who_waits_hears_who_has_it_and_gives_up(tmp_path: Path) -> None:
    path, said = tmp_path / "lock", list[str]()
    with _held(path) as pid:
        assert any(one.startswith(f"{pid} flock {path} ") for one in holders(path))
        with pytest.raises(TimeoutError, match=rf"not free within 0\.5 s; it is held by .*{pid} flock"):
            _take(path, said, 0.5)
        assert all(f"waiting for {path}, held by " in each and f"{pid} flock" in each for each in said)
        assert said
    _take(path, said)
    assert holders(path) == []


def test_who_only_waits_holds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with _held(path) as pid, _started("flock", str(path), "sleep", "600") as waiting:
        found = {int(one.split()[0]) for one in holders(path)}
        assert pid in found
        assert waiting.pid not in found


def test_it_is_held_by_the_process_that_took_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locked_testbed(pytest.fail, path):
        assert [int(one.split()[0]) for one in holders(path)] == [os.getpid()]
        done = subprocess.run(["flock", "--nonblock", str(path), "true"], check=False)
        assert done.returncode == 1
    assert holders(path) == []


#: Takes the lock, forks a child that outlives it, and lets go.
_FORKS = """
import os, sys, time
from pathlib import Path
from tests.e2e.lock import locked_testbed
with locked_testbed(print, Path(sys.argv[1])):
    if not (child := os.fork()):
        time.sleep(600)
print(child, flush=True)
"""


def test_a_child_that_was_only_forked_does_not_keep_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", _FORKS, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
    try:
        _take(path, [], 0)
    finally:
        os.kill(child, signal.SIGKILL)
