"""The lock of the testbed: one test run at a time has it. Killing the API server is everybody's business."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

#: ``flock FILE COMMAND`` takes it, too.
LOCK: Final = Path("/run/meshdev-e2e.lock")
#: Whoever has it may run everything, twice: on two kinds of cluster.
LOCK_SECONDS: Final = 5400.0
#: How often it is told who has it, in seconds.
TELL_SECONDS: Final = 30.0

_held: set[int] = set()


def _let_go() -> None:
    """A lock of flock(2) goes with the last copy of its descriptor. Children that only fork have none."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def locked_testbed(
    say: Callable[[str], None], path: Path = LOCK, seconds: float = LOCK_SECONDS, tell: float = TELL_SECONDS
) -> Iterator[None]:
    """Hold it as long as the block. Who has it is said each *tell* seconds; TimeoutError after *seconds*."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    _held.add(descriptor)
    try:
        _take(descriptor, path, say, seconds, tell)
        yield
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def _take(descriptor: int, path: Path, say: Callable[[str], None], seconds: float, tell: float) -> None:
    # flock(1) locks our open file, and it has the time limit that flock(2) has not. It is one process all the time:
    # who comes later waits behind it.
    command = ["flock", "--timeout", str(seconds), str(descriptor)]
    with subprocess.Popen(command, pass_fds=(descriptor,)) as taking:
        try:
            while (code := _ended(taking, tell)) is None:
                say(f"waiting for {path}, held by {_whose(path)}")
        finally:
            taking.kill()
    if code:
        raise TimeoutError(f"{path} was not free within {seconds:g} s; it is held by {_whose(path)}")


def _ended(process: "subprocess.Popen[bytes]", seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def _whose(path: Path) -> str:
    return "; ".join(holders(path)) or "a process that cannot be seen from here"


def holders(path: Path) -> list[str]:
    """The processes that hold a lock on *path*, as ``pid COMMAND LINE``: copies of one descriptor are several."""
    there = path.stat()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if any(_locks(folder, entry, there) for entry in (folder / "fd").iterdir()):
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                found.append(f"{folder.name} {line}")
        except OSError:
            continue  # it ended meanwhile, or is none of ours
    return found


def _locks(folder: Path, entry: Path, there: os.stat_result) -> bool:
    """Whether that descriptor is the file, and has a lock (proc_pid_fdinfo(5): ``lock:``)."""
    return os.path.samestat(entry.stat(), there) and "\nlock:" in (folder / "fdinfo" / entry.name).read_text()


def to_stderr(text: str) -> None:
    """Say it at once."""
    print(text, file=sys.stderr, flush=True)
