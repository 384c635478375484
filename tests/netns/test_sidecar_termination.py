"""A pod that is going to end waits for nobody without need, and its sidecar costs nothing meanwhile."""

import time
from pathlib import Path
from typing import Final

from tests.netns.sidecar import ask, intercepted, sidecar
from tests.waiting import until

_TICKS_PER_SECOND: Final = 100  # USER_HZ, time(7)
_GOES_ON: Final = b"1 connections that were redirected go on"


def cpu(pid: int) -> float:
    """Seconds that a process has used so far (proc_pid_stat(5): utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


async def test_while_an_app_answers_its_last_requests_the_agent_does_next_to_nothing() -> None:
    """Its manager still wants it, and says so at once whenever it is asked."""
    async with sidecar() as pod:
        app = await pod.app(8080)
        await intercepted(pod)
        reader, writer = await pod.connect(8080)
        assert await ask(reader, writer) == "original"
        pod.agent.terminate()
        assert app._server is not None
        app._server.close()  # takes no more, answers what it has
        await until(lambda: _GOES_ON in pod.log())
        before, until_then = cpu(pod.agent.pid), time.monotonic() + 1
        while time.monotonic() < until_then:
            assert await ask(reader, writer) == "original"
        assert cpu(pod.agent.pid) - before < 0.2
        writer.close()
        await until(lambda: pod.agent.poll() is not None)


async def test_a_pooled_connection_that_the_app_has_closed_does_not_hold_up_the_end_of_the_pod() -> None:
    """Its client does not look at it before it needs it again; the intercept was over before."""
    async with sidecar(UNWANTED_SECONDS=0.5) as pod:
        app = await pod.app(8080)
        await intercepted(pod)
        reader, writer = await pod.connect(8080)
        assert await ask(reader, writer) == "original"
        await pod.manager.claim()
        await until(lambda: _GOES_ON in pod.log())
        pod.agent.terminate()
        await app.stop()
        assert await reader.read() == b""
        await until(lambda: pod.agent.poll() is not None)
        assert pod.agent.returncode == 0
        writer.close()
