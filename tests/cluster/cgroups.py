"""The testbed's cgroups: kubelet's root for pods, and a folder that remembers every process of ours.

containerd's shims outlive containerd and pods outlive everything; the tracking folder is how `down` still finds them
without guessing by name. Both cgroup v1 and v2 machines are served.
"""

import contextlib
import os
import signal
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.paths import CGROUP

_MOUNTS = Path("/sys/fs/cgroup")


def is_v2() -> bool:
    """Whether the machine has one unified hierarchy."""
    return (_MOUNTS / "cgroup.controllers").exists()


def hierarchies() -> list[Path]:
    """The root of every hierarchy that the kubelet uses."""
    if is_v2():
        return [_MOUNTS]
    return [path for path in sorted(_MOUNTS.iterdir()) if (path / "cgroup.procs").exists() and path.name != "unified"]


def tracking() -> Path:
    """The hierarchy that we look processes up in. On v1 `pids`: it accounts for nothing but numbers."""
    return _MOUNTS / CGROUP if is_v2() else _MOUNTS / "pids" / CGROUP


def create(kubelet_roots: Sequence[str]) -> None:
    """Make our folder and KUBELET_ROOTS in every hierarchy; a kubelet wants its root to exist."""
    for root in hierarchies():
        for name in (CGROUP, *kubelet_roots):
            _make(root / name)
    (tracking() / "system").mkdir(exist_ok=True)


def _make(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for name in ("cpuset.cpus", "cpuset.mems"):  # v1: a cpuset starts empty, and nothing may run in it
        if not is_v2() and (folder / name).exists() and not (folder / name).read_text().strip():
            (folder / name).write_text((folder.parent / name).read_text())


def track(pid: int) -> None:
    """Put PID (and what it will start) into the tracking folder. A process that is gone needs none."""
    with contextlib.suppress(ProcessLookupError):
        (tracking() / "system" / "cgroup.procs").write_text(str(pid))


def processes(root: str = CGROUP) -> list[int]:
    """Every process below ROOT: of the testbed, pods included, or of one node's pods."""
    found: list[int] = []
    for folder, _, files in os.walk(tracking().parent / root):
        if "cgroup.procs" in files:
            with contextlib.suppress(OSError):
                found += [int(line) for line in (Path(folder) / "cgroup.procs").read_text().split()]
    return sorted(set(found) - {os.getpid()})


def kill(root: str = CGROUP) -> None:
    """SIGKILL to every process that is left below ROOT."""
    for pid in processes(root):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def remove() -> None:
    """Remove our (empty) folders, the deepest first. runc also makes them in v1's side hierarchy `unified`."""
    for root in (*hierarchies(), _MOUNTS / "unified"):
        for folder, _, _ in os.walk(root / CGROUP, topdown=False):
            with contextlib.suppress(OSError):  # a process that is still dying; the next `down` gets it
                Path(folder).rmdir()
