"""More than one sidecar in a pod: of another manager, or a former one that has not gone yet."""

import signal
import time
from collections.abc import Iterator
from subprocess import Popen
from typing import Any

import pytest

from meshdev.wire.agent import PodPort
from tests.netns.sidecar import MINE, SidecarPod, claim, sidecar
from tests.waiting import until

WEB = PodPort(8080)


@pytest.fixture
def doomed() -> Iterator[list[Popen[bytes]]]:
    """Processes that are ended whatever happens."""
    processes: list[Popen[bytes]] = []
    yield processes
    for each in processes:
        each.kill()
        each.wait()


def another(pod: SidecarPod, doomed: list[Popen[bytes]], **patience: Any) -> Popen[bytes]:
    """Start one more; the one that was there."""
    first = pod.agent
    doomed.append(first)
    pod.start_agent(**patience)
    return first


async def test_a_second_one_waits_until_the_first_has_left(doomed: list[Popen[bytes]]) -> None:
    async with sidecar(UNWANTED_SECONDS=0.3) as pod:
        await pod.app(8080)
        await pod.laptop(20001)
        await pod.manager.claim(claim(MINE))
        await pod.manager.until(lambda state: WEB in state.redirected)
        first = another(pod, doomed)
        assert await pod.get(a="1") == "laptop"
        await pod.manager.claim()
        await until(lambda: first.poll() == 0)
        await until(lambda: len(pod.manager.peers) == 2)
        await pod.manager.claim(claim(MINE))
        await pod.manager.until(lambda state: WEB in state.redirected)
        assert [await pod.get(), await pod.get(a="1")] == ["original", "laptop"]


async def test_one_that_waits_ends_when_it_is_told_to(doomed: list[Popen[bytes]]) -> None:
    async with sidecar() as pod:
        await pod.app(8080)
        await pod.laptop(20001)
        await pod.manager.claim(claim(MINE))
        first = another(pod, doomed)
        await until(lambda: _waits(pod))
        pod.agent.send_signal(signal.SIGTERM)
        await until(lambda: pod.agent.poll() == 0)
        assert first.poll() is None
        assert await pod.get(a="1") == "laptop"


def _waits(pod: SidecarPod) -> bool:
    """Whether it handles SIGTERM already (proc(5): SigCgt)."""
    with open(f"/proc/{pod.agent.pid}/status") as status:  # noqa: PTH123 -- no path
        caught = next(line for line in status if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


async def test_one_that_nobody_wants_goes_soon_when_its_manager_goes() -> None:
    async with sidecar(IDLE_SECONDS=0.3) as pod:
        await pod.app(8080)
        await pod.manager.claim(claim(MINE))
        await pod.manager.until(lambda state: WEB in state.redirected)
        await pod.manager.claim()
        await pod.manager.until(lambda state: not state.redirected)
        await pod.manager.stop()
        await until(lambda: pod.agent.poll() == 0)


async def test_one_that_never_met_its_manager_goes_on_looking_for_it() -> None:
    async with sidecar() as pod:
        await pod.manager.stop()
        pod.agent.kill()
        pod.agent.wait()
        began = time.monotonic()
        pod.start_agent(IDLE_SECONDS=0.0, LOST_SECONDS=1.0)
        await until(lambda: pod.agent.poll() == 0)
        assert time.monotonic() - began > 1
