"""Ports on which nothing listens in the pods: told, and gone on without."""

import asyncio

import pytest

from meshdev.intercept.lease import LeaseStatus
from meshdev.kube import leases
from meshdev.kube.client import KubeApi
from meshdev.modes import pods
from meshdev.wire.session_intercepts import PendingListener
from tests.kube.fake_api import FakeApi
from tests.modes.world import World
from tests.waiting import until


async def test_a_port_on_which_nothing_listens_is_told_and_gone_on_without(
    fake: FakeApi, api: KubeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pods, "LISTENER_SECONDS", 0.05)
    world = World(fake, api, ports=("8080:9999",))

    async def lease_says(status: LeaseStatus) -> None:
        assert world.link.spec is not None
        async with asyncio.timeout(5):
            async for there in leases.watch_workload(api, world.link.spec.workload):
                if [each.status for each in there.records] == [status]:
                    return

    async with world.holding_it():
        await until(world.sidecars)
        world.link.report(pending=("9999",))
        await until(lambda: world.up)
        status = world.status()
        assert (status.state, status.acked, status.total) == ("pending", 0, 1)
        assert status.pending_listeners == (PendingListener(9999, "tcp", 1),)
        assert "! pending listener: nothing listens on port 9999/tcp in 1 of 1 pod" in world.progress.told
        await lease_says(LeaseStatus("pending", 0, 1, ("9999/tcp",)))
        world.link.report()
        await until(lambda: world.status().state == "active")
        status = world.status()
        assert (status.state, status.acked, status.pending_listeners) == ("active", 1, ())
        await lease_says(LeaseStatus("active", 1, 1))
