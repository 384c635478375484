"""What the agent's child processes have in common: no capability, an end with the agent, and their output is read."""

import asyncio
import contextlib
import logging
import os
import resource
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from meshdev import capabilities
from meshdev.wire.objects import for_people

log = logging.getLogger(__name__)

#: Before a command: it is killed with us even where the pod's containers share one space of processes.
TIED: Final = ("setpriv", "--pdeathsig", "KILL", "--")
_LONGEST_LINE: Final = 1 << 16
_QUOTED_KEY: Final = "(a line that quotes a private key)"


def environment(*names: str) -> dict[str, str]:
    """Only what a program needs to be found, and what is set of *names*."""
    passed = {name: os.environ[name] for name in names if name in os.environ}
    return {"PATH": os.environ.get("PATH", "/usr/local/bin:/usr/bin:/bin"), **passed}


async def start(
    command: Sequence[str], *, env: Mapping[str, str], pass_fds: Sequence[int]
) -> asyncio.subprocess.Process:
    """Start it without capabilities: it parses what anybody sends, and needs nothing of what the rules need.

    Its stderr is for :func:`log_lines`. Raises OSError.
    """
    return await asyncio.create_subprocess_exec(
        *TIED,
        *capabilities.without(command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env=env,
        pass_fds=pass_fds,
    )


async def ended(process: asyncio.subprocess.Process, seconds: float) -> None:
    """Return when it has ended; it is killed when it has not within *seconds*."""
    try:
        async with asyncio.timeout(seconds):
            await process.wait()
    except TimeoutError:
        kill(process)
        await process.wait()


def kill(process: asyncio.subprocess.Process) -> None:
    """Kill it unless it has ended."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()


async def log_lines(name: str, stream: asyncio.StreamReader | None) -> None:
    """Log each line until the end of *stream*, but none that quotes a private key."""
    async for line in lines(stream):
        text = _QUOTED_KEY if b"PRIVATE KEY" in line else line.decode("utf-8", "replace")
        log.warning("%s: %s", name, for_people(text, _LONGEST_LINE))


async def lines(stream: asyncio.StreamReader | None) -> AsyncIterator[bytes]:
    """All but those that are too long. The stream is always read: a process stands still where it is not."""
    rest, whole = b"", True
    while stream is not None and (piece := await stream.read(_LONGEST_LINE)):
        *found, rest = (rest + piece).split(b"\n")
        for line in found:
            if whole:
                yield line
            whole = True
        if len(rest) > _LONGEST_LINE:
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
