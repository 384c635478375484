"""Waiting until no other thread of this process runs, as the kernel says (proc(5): /proc/[pid]/task/[tid]/stat).

gRPC frees what a handshake is made from when it is given a new set of trust anchors, while another thread that has just
asked for the set may be about to use it: SslServerSecurityConnector::add_handshakers reads it without the lock. With
gRPC 1.85, 100 clients at once and a new set at each connection, the process died within 100 connections, each time. The
other thread needs microseconds and waits for nothing meanwhile, so it is seen running.
"""

import os
import threading
import time
from pathlib import Path
from typing import Final

_TASKS: Final = Path("/proc/self/task")
_LOOK_SECONDS: Final = 0.001
#: Times in a row that all others were seen asleep.
_LOOKS: Final = 3


def wait_for_rest(seconds: float) -> bool:
    """Whether all threads but this one and the main one, which makes no handshakes, came to rest within *seconds*."""
    excepted = {threading.get_native_id(), os.getpid()}
    deadline = time.monotonic() + seconds
    asleep = 0
    while asleep < _LOOKS:
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_SECONDS)
        asleep = 0 if _any_runs(excepted) else asleep + 1
    return True


def _any_runs(excepted: set[int]) -> bool:
    for task in _TASKS.iterdir():
        if int(task.name) in excepted:
            continue
        try:
            # The name before it, in parentheses, may have any characters.
            state = (task / "stat").read_bytes().rpartition(b")")[2].split()[0]
        except OSError:  # it has just ended
            continue
        if state != b"S":
            return True
    return False
