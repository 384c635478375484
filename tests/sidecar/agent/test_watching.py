"""The agent and a real worker while somebody watches: what it saw, and for how long."""

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshdev.sidecar.agent import passthrough, worker_channel
from meshdev.sidecar.agent.passthrough import Passthrough
from meshdev.wire.access import AccessRecords, Watch
from tests.sidecar.agent.test_passthrough import Pod, running
from tests.waiting import until


@pytest.fixture
async def pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pod]:
    monkeypatch.setattr(worker_channel, "ASK_SECONDS", 0.02)
    monkeypatch.setattr(worker_channel, "HUNG_QUESTIONS", 500)
    async with running(tmp_path) as pod:
        yield pod


async def test_a_watch_is_the_worker_s_and_that_of_the_next_one(pod: Pod) -> None:
    found: list[AccessRecords] = []
    pod.passthrough.on_records = found.append
    pod.passthrough.set_ports(pod.claims)
    pod.passthrough.watch(Watch(on=True, all=True))
    await pod.until(lambda counts: counts.answers)
    assert await pod.ask(pod.client()) == b"ap"
    await until(lambda: [record.reason for each in found for record in each.records] == ["no header a"])
    first = pod.passthrough.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    found.clear()
    assert await pod.ask(pod.client()) == b"ap"
    await until(lambda: [record.reason for each in found for record in each.records] == ["no header a"])
    pod.passthrough.watch(Watch())
    await pod.passthrough.recount()
    found.clear()
    assert await pod.ask(pod.client()) == b"ap"
    await pod.passthrough.recount()
    assert found == []


async def test_a_new_worker_s_watch_ends_when_the_first_one_s_would_have(
    pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[Watch] = []
    watch = Passthrough.watch

    def noted(self: Passthrough, found: Watch) -> None:
        ended.append(found)
        watch(self, found)

    monkeypatch.setattr(passthrough, "WATCH_SECONDS", 0.5)
    await pod.until(lambda counts: counts.answers)
    pod.passthrough.watch(Watch(on=True))
    monkeypatch.setattr(Passthrough, "watch", noted)
    first = pod.passthrough.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: ended == [Watch()])


async def test_a_watch_that_is_over_is_not_the_next_worker_s(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[AccessRecords] = []
    pod.passthrough.on_records = found.append
    monkeypatch.setattr(passthrough, "WATCH_SECONDS", 0.0)
    await pod.until(lambda counts: counts.answers)
    pod.passthrough.watch(Watch(on=True, all=True))
    first = pod.passthrough.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: pod.passthrough.pid not in {None, first})
    pod.passthrough.set_ports(pod.claims)
    await pod.passthrough.recount()
    assert await pod.ask(pod.client()) == b"ap"
    await pod.passthrough.recount()
    assert found == []
