"""Daemons: start them detached in a namespace, know them again, and stop exactly them.

A process is identified by pid *and* start time, so a number that the kernel gave to someone else is never signalled.
"""

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster import cgroups
from tests.cluster.hashing import text_hash
from tests.cluster.paths import NETNS, log_file
from tests.cluster.run import TestbedError
from tests.cluster.state import ProcessRecord, State

_KILL_WAIT = 5.0


@dataclass(frozen=True)
class Daemon:
    """A program that runs until it is stopped. `enter` is the nsenter prefix of where it runs; `inputs` are texts
    that it reads at start: another text, another fingerprint, and `ensure` restarts it."""

    name: str
    argv: tuple[str, ...]
    enter: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    stop_seconds: float = 10.0

    @property
    def fingerprint(self) -> str:
        """Differs when a restart is needed."""
        return text_hash((*self.argv, *self.enter, *sorted(f"{k}={v}" for k, v in self.env.items()), *self.inputs))

    def command(self) -> list[str]:
        """Every wrapper replaces itself, so the pid we start is the daemon's own."""
        return [*self.enter, *self.argv]


def in_network(namespace: str) -> tuple[str, ...]:
    """Run in a network namespace, with the machine's files.

    nsenter, not `ip netns exec`: that one remounts /sys and hides the cgroups from containerd and kubelet.
    """
    return ("nsenter", f"--net={NETNS / namespace}", "--")


def beside(pid: int) -> tuple[str, ...]:
    """Run as root in every namespace that makes a laptop, of which PID is the holder."""
    return ("nsenter", f"--target={pid}", "--mount", "--net", "--uts", "--")


def start_time(pid: int) -> int | None:
    """The kernel's start time of PID in ticks, or None when it is gone or only waits to be reaped."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the name in parentheses may hold spaces
    return None if fields[0] in {"Z", "X"} else int(fields[19])


def is_alive(record: ProcessRecord | None) -> bool:
    """Whether this very process still runs."""
    return record is not None and start_time(record.pid) == record.start_time


def spawn(name: str, argv: list[str], env: Mapping[str, str], fingerprint: str) -> ProcessRecord:
    """Start ARGV detached: own session, log file, no descriptor of ours, and in the testbed's tracking cgroup."""
    path = log_file(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as log:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={"PATH": os.environ["PATH"], "HOME": "/root", "LANG": "C.UTF-8", **env},
            start_new_session=True,
        )
    cgroups.track(process.pid)
    started = start_time(process.pid)
    if started is None:
        raise TestbedError(f"{name} ended at once: {tail(path)}")
    process.returncode = 0  # ours to leave running: no ResourceWarning, no wait at exit
    return ProcessRecord(process.pid, started, fingerprint)


def tail(path: Path, lines: int = 15) -> str:
    """The end of a log."""
    if not path.exists():
        return ""
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def ensure(state: State, daemon: Daemon) -> bool:
    """Have DAEMON running as described; True when it had to be started."""
    record = state.processes.get(daemon.name)
    if record is not None and is_alive(record):
        if record.fingerprint == daemon.fingerprint:
            return False
        stop(state, daemon.name, daemon.stop_seconds)
    state.processes[daemon.name] = spawn(daemon.name, daemon.command(), daemon.env, daemon.fingerprint)
    state.save()
    return True


def stop(state: State, name: str, seconds: float = 10.0) -> None:
    """End the daemon NAME: SIGTERM, and SIGKILL after SECONDS. Nothing happens when it is not running."""
    record = state.processes.pop(name, None)
    if record is not None:
        end(record, seconds)
        state.save()


def end(record: ProcessRecord, seconds: float) -> None:
    """SIGTERM, wait on the process itself, SIGKILL. The pidfd is opened before the check, so it cannot be reused."""
    try:
        descriptor = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return
    try:
        if not is_alive(record):
            return
        for number, wait in ((signal.SIGTERM, seconds), (signal.SIGKILL, _KILL_WAIT)):
            signal.pidfd_send_signal(descriptor, number)
            if select.select([descriptor], [], [], wait)[0]:
                reap(record.pid)
                return
        raise TestbedError(f"process {record.pid} survives SIGKILL")
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)


def reap(pid: int) -> None:
    """Take the exit status when PID is our own child; otherwise init does."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def kill_in_network(namespace: Path) -> None:
    """SIGKILL to whatever still runs in NAMESPACE: commands of `exec` and what they left in the background."""
    wanted = namespace.stat().st_ino
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if (entry / "ns/net").stat().st_ino == wanted and int(entry.name) != os.getpid():
                os.kill(int(entry.name), signal.SIGKILL)
