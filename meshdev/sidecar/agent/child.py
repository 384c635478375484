"""What the agent's child processes have in common: they end with it, and what they write is read."""

import asyncio
import logging
import os
import resource
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

#: Before a command: it is killed with us even where the pod's containers share one space of processes.
TIED: Final = ("setpriv", "--pdeathsig", "KILL", "--")
LONGEST_LINE: Final = 1 << 16


def environment(*names: str) -> dict[str, str]:
    """Only what a program needs to be found, and what is set of *names*."""
    passed = {name: os.environ[name] for name in names if name in os.environ}
    return {"PATH": os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin"), **passed}


async def lines(stream: asyncio.StreamReader | None) -> AsyncIterator[bytes]:
    """All but those that are too long. The stream is always read: a process stands still where it is not."""
    rest, whole = b"", True
    while stream is not None and (piece := await stream.read(LONGEST_LINE)):
        *found, rest = (rest + piece).split(b"\n")
        for line in found:
            if whole:
                yield line
            whole = True
        if len(rest) > LONGEST_LINE:
            rest, whole = b"", False


def raise_limits() -> None:
    """As many descriptors as the kernel lets us and our children have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def first_to_die(pid: int) -> None:
    """When the pod's memory is used up it is this process that is killed (proc_pid_oom_score_adj(5)).

    Not the agent: the rules would go with it. Not the passthrough worker: it has everybody's connections.
    """
    try:
        Path(f"/proc/{pid}/oom_score_adj").write_text("1000")
    except OSError as error:
        log.warning("oom_score_adj of process %d stays as it is: %s", pid, error)
