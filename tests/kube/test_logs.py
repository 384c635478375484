"""Logs of containers: what is there, what comes, nothing twice, and on through the pod that replaces another."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from meshdev.errors import ForbiddenError, InterceptError, ManagerError, MeshdevError, first_of_group
from meshdev.intercept.target import parse_target
from meshdev.kube import logs
from meshdev.kube.client import KubeApi
from meshdev.kube.logs import ContainerLog, LogFollower, RunningContainer, WantedLines
from meshdev.kube.replicas import MANAGER_VARIABLE
from meshdev.kube.workloads import Resolved, resolve
from meshdev.wire.log_lines import LogLine
from tests.kube.fake_api import FakeApi
from tests.kube.objects import pod as of_workload
from tests.kube.objects import put_workload, workload
from tests.kube.test_manager import RUNNING, pod, put_manager_pod
from tests.waiting import until

Object = dict[str, Any]


def lines(*seconds: int) -> bytes:
    """As the kubelet sends them."""
    return "".join(f"2026-11-29T19:15:{at:02}.{at}Z line {at}\n" for at in seconds).encode()


def manager_pod(name: str, instance: str = "one") -> Object:
    made = pod(name, {"state": RUNNING, "containerID": instance})
    made["spec"]["containers"] = [{"name": each, "image": "image:1"} for each in ("relay", "tunnel", "control", "x")]
    return made


def with_sidecars(name: str, *states: Object) -> Object:
    """A pod of Deployment b with ephemeral sidecars, the oldest first."""
    made = of_workload(name, workload())
    env = [{"name": MANAGER_VARIABLE, "value": "10.96.0.7:15010"}]
    made["spec"]["ephemeralContainers"] = [
        {"name": f"meshdev-{number}", "env": env} for number in range(1, len(states) + 1)
    ] + [{"name": "debugger"}]
    made["status"]["ephemeralContainerStatuses"] = [
        {"name": f"meshdev-{number}", "containerID": f"c{number}", "state": state}
        for number, state in enumerate(states, 1)
    ]
    return made


ENDED: Object = {"terminated": {"exitCode": 0}}


async def resolved(fake: FakeApi, api: KubeApi, *pods: Object) -> Resolved:
    put_workload(fake, workload())
    for each in pods:
        fake.put("pods", each)
    return await resolve(api, parse_target("deployment/b"), "default")


async def test_which_lines_are_asked_for(fake: FakeApi, api: KubeApi) -> None:
    fake.logs["m", "tunnel"] = lines(1, 2) + b"no time"
    log = ContainerLog("default", "m", "tunnel")
    found = await logs.read(api, log, WantedLines(tail=7, since=0.5, previous=True, most=1000))
    assert [each.line for each in found] == ["line 1", "line 2", "no time"]
    assert found[1] == LogLine("2026-11-29T19:15:02.200000000Z", "m/tunnel", "line 2")
    assert fake.log_queries == [
        {
            "container": "tunnel",
            "timestamps": "true",
            "limitBytes": "1000",
            "tailLines": "7",
            "sinceSeconds": "1",
            "previous": "true",
        }
    ]


async def test_the_managers(fake: FakeApi, api: KubeApi) -> None:
    with pytest.raises(ManagerError, match="no manager in namespace default"):
        await logs.manager_logs(api, "default")
    put_manager_pod(fake, manager_pod("m"))
    assert await logs.manager_logs(api, "default") == [
        ContainerLog("default", "m", name) for name in ("control", "relay", "tunnel")
    ]


async def test_the_sidecars_that_run_or_else_the_last_one(fake: FakeApi, api: KubeApi) -> None:
    found = await resolved(
        fake,
        api,
        with_sidecars("b-1", ENDED, RUNNING),
        with_sidecars("b-2", ENDED, ENDED),
        with_sidecars("b-3"),
    )
    assert [each.source for each in await logs.sidecar_logs(api, found)] == ["b-1/meshdev-2", "b-2/meshdev-2"]


async def test_no_sidecars(fake: FakeApi, api: KubeApi) -> None:
    with pytest.raises(InterceptError, match="has a sidecar"):
        await logs.sidecar_logs(api, await resolved(fake, api, with_sidecars("b-3")))


class Following:
    """What is shown."""

    def __init__(self, api: KubeApi) -> None:
        self.shown: list[str] = []
        self.troubles: list[MeshdevError] = []
        self.follower = LogFollower(
            api, lambda line: self.shown.append(f"{line.source} {line.line}"), self.troubles.append
        )

    @asynccontextmanager
    async def following(self, states: AsyncGenerator[frozenset[RunningContainer]]) -> AsyncIterator[None]:
        task = asyncio.ensure_future(self.follower.follow(states))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_nothing_is_shown_twice_and_nothing_left_out(fake: FakeApi, api: KubeApi) -> None:
    put_manager_pod(fake, manager_pod("m"))
    fake.logs["m", "tunnel"] = lines(1, 2)
    seen = Following(api)
    log = ContainerLog("default", "m", "tunnel")
    seen.follower.read(log, await logs.read(api, log, WantedLines()))
    fake.logs["m", "tunnel"] += lines(3)
    async with seen.following(logs.manager_instances(api, "default", seen.troubles.append)):
        await until(lambda: seen.shown == ["m/tunnel line 3"])
        # This server ends each answer at once, as one that restarts: it is asked again.
        fake.logs["m", "tunnel"] += lines(4)
        await until(lambda: seen.shown == ["m/tunnel line 3", "m/tunnel line 4"])
    assert fake.log_queries[1] == {
        "container": "tunnel",
        "follow": "true",
        "timestamps": "true",
        "sinceTime": "2026-11-29T19:15:02Z",
    }


async def test_a_pod_that_replaces_another_is_followed(fake: FakeApi, api: KubeApi) -> None:
    put_manager_pod(fake, manager_pod("m"))
    fake.logs["m", "tunnel"] = lines(1)
    seen = Following(api)
    async with seen.following(logs.manager_instances(api, "default", seen.troubles.append)):
        await until(lambda: seen.shown == ["m/tunnel line 1"])
        fake.remove("pods", "m")
        fake.logs = {("new", "tunnel"): lines(2)}
        put_manager_pod(fake, manager_pod("new"))
        await until(lambda: seen.shown == ["m/tunnel line 1", "new/tunnel line 2"])


async def test_a_container_that_starts_again_is_followed(fake: FakeApi, api: KubeApi) -> None:
    put_manager_pod(fake, manager_pod("m"))
    fake.logs["m", "tunnel"] = lines(1)
    seen = Following(api)
    async with seen.following(logs.manager_instances(api, "default", seen.troubles.append)):
        await until(lambda: seen.shown == ["m/tunnel line 1"])
        fake.logs["m", "tunnel"] = lines(2)
        put_manager_pod(fake, manager_pod("m", "two"))
        await until(lambda: seen.shown == ["m/tunnel line 1", "m/tunnel line 2"])


async def test_sidecars_are_followed_from_when_they_run(fake: FakeApi, api: KubeApi) -> None:
    found = await resolved(fake, api, with_sidecars("b-1", {"waiting": {}}))
    fake.logs["b-1", "meshdev-1"] = lines(1)
    seen = Following(api)
    async with seen.following(logs.sidecar_instances(api, found, seen.troubles.append)):
        await until(lambda: fake.watched("pods"))
        assert seen.shown == []
        fake.put("pods", with_sidecars("b-1", RUNNING))
        await until(lambda: seen.shown == ["b-1/meshdev-1 line 1"])


async def test_what_may_not_be_read_ends_it(fake: FakeApi, api: KubeApi) -> None:
    put_manager_pod(fake, manager_pod("m"))
    fake.allow = lambda asked: asked.resource != "pods/log"
    seen = Following(api)
    with pytest.raises(ExceptionGroup) as raised:
        await seen.follower.follow(logs.manager_instances(api, "default", seen.troubles.append))
    error = first_of_group(raised.value)
    assert isinstance(error, ForbiddenError)
    assert "get pods/log in namespace default" in error.message


async def test_a_log_that_cannot_be_read_now_is_tried_again(fake: FakeApi, api: KubeApi) -> None:
    put_manager_pod(fake, manager_pod("m"))
    seen = Following(api)
    async with seen.following(logs.manager_instances(api, "default", seen.troubles.append)):
        await until(lambda: seen.troubles)
        fake.logs["m", "tunnel"] = lines(1)
        await until(lambda: seen.shown == ["m/tunnel line 1"])
    assert "waiting to start" in seen.troubles[0].message
