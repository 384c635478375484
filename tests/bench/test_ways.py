"""What is read from /proc."""

import subprocess
import sys

import pytest

from bench import ways


@pytest.mark.netns
def test_memory_that_processes_share_counts_once() -> None:
    command = (sys.executable, "-c", "print(flush=True); input()")
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other,
    ):
        for process in (one, other):
            assert process.stdout is not None
            process.stdout.readline()
        alone = [ways.together_mb([process.pid]) for process in (one, other)]
        together = ways.together_mb([one.pid, other.pid])
        assert together == ways.together_mb([one.pid, other.pid, one.pid])
        assert max(alone) < together < sum(alone) - 1
        for process in (one, other):
            process.kill()
