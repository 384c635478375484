"""What tests leave behind of networks that they entered: nothing (tests/conftest.py)."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

_SUITE: Final = """
import ctypes, os

def test_stays():
    assert ctypes.CDLL(None).unshare(0x40000000) == 0  # CLONE_NEWNET

def test_next():
    assert os.readlink("/proc/thread-self/ns/net") == os.environ["HERE"]
"""


def test_a_test_that_stays_in_another_network_fails_and_the_next_is_at_home(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(_SUITE)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "test_suite.py"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "HERE": str(Path("/proc/thread-self/ns/net").readlink()),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines()[-1].startswith("2 passed, 1 error"), done.stdout
    assert "Failed: it has left its thread in a network namespace" in done.stdout
