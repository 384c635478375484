"""What ends the processes of a command that is killed: a process of its own, which needs nothing but Python.

It reads which process groups there are (``+PGID SECONDS``, ``-PGID``) from a pipe that only the command holds open. At
its end, however that came, it sends SIGTERM to the groups that are left, and SIGKILL when their time is over. It holds
the descriptors that it inherits until then: a lock that is one of them stays locked as long as a process runs.

Each process writes its own line, between fork and exec: there is no moment at which it runs and nobody knows it.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final

#: How often it looks whether a group is gone: of processes that are not children there is no event.
LOOK_SECONDS: Final = 0.05
#: What a group that was killed may take to be gone.
KILL_SECONDS: Final = 2.0


class ProcessGuard:
    """The command's side."""

    def __init__(self, *inherited: int) -> None:
        """Start it; the descriptors *inherited* are open as long as it runs. Raises OSError."""
        theirs, self._pipe = os.pipe()
        self._closed = False
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__],
                cwd="/",
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=inherited,
                start_new_session=True,
            )
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(theirs)

    def announcing(self, seconds: float) -> Callable[[], None]:
        """What a process does between fork and exec, as the leader of its group, which has *seconds* to end."""
        return lambda: _write(self._pipe, f"+{os.getpid()} {seconds}\n")

    def gone(self, group: int) -> None:
        """Nothing of that group is left."""
        with contextlib.suppress(BrokenPipeError):  # it was killed, and ends nothing any more
            if not self._closed:
                _write(self._pipe, f"-{group}\n")

    def close(self, look: Callable[[], object]) -> None:
        """End what is left, and wait for it; *look* is called meanwhile: exits are the parent's to take notice of."""
        self._closed = True
        os.close(self._pipe)
        while self._process.poll() is None:
            look()
            time.sleep(LOOK_SECONDS)


def _write(descriptor: int, line: str) -> None:
    os.write(descriptor, line.encode())  # at once: it is shorter than PIPE_BUF


def alive(group: int) -> bool:
    """Whether a process of that group exists, be it a zombie."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def send(group: int, number: int) -> None:
    """Send a signal to those that there are and that may be sent one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _main() -> None:
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    groups: dict[int, float] = {}
    for line in sys.stdin.buffer:
        group, _, seconds = line[1:].partition(b" ")
        if line.startswith(b"+"):
            groups[int(group)] = float(seconds)
        else:
            groups.pop(int(group), None)
    for group in groups:
        send(group, signal.SIGTERM)
    started = time.monotonic()
    while groups:
        now = time.monotonic() - started
        for group, seconds in list(groups.items()):
            if now > seconds:
                send(group, signal.SIGKILL)
            if not alive(group) or now > seconds + KILL_SECONDS:
                del groups[group]
        time.sleep(LOOK_SECONDS)


if __name__ == "__main__":
    _main()
