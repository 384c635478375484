"""Sidecars join running pods: the first free name, who is quicker, who waits, and all pods always."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from meshdev.errors import AdmissionError, ForbiddenError, InterceptError, MeshdevError
from meshdev.kube.client import KubeApi
from meshdev.kube.errors import NotFoundError
from meshdev.kube.replicas import Replica, replica
from meshdev.kube.workloads import Resolved
from meshdev.sidecar.join import ephemeral
from meshdev.sidecar.join.container import container
from meshdev.sidecar.join.ephemeral import join, keep_joined
from tests.kube.fake_api import FakeApi
from tests.kube.objects import pod, put_pod, resolved_b, workload
from tests.sidecar.join.conftest import SPEC

Object = dict[str, Any]
POD_SECURITY = 'pods "b-1" is forbidden: violates PodSecurity "baseline:latest": non-default capabilities'


def stored(fake: FakeApi, name: str = "b-1") -> Object:
    return fake.objects["", "pods"]["default", name]


def names(fake: FakeApi, name: str = "b-1") -> list[str]:
    return [each["name"] for each in stored(fake, name)["spec"].get("ephemeralContainers") or []]


def ends(fake: FakeApi, name: str = "b-1") -> None:
    """All sidecars of a pod end, as the kubelet tells it."""
    made = stored(fake, name)
    states = [{"name": each, "state": {"terminated": {"reason": "Error"}}} for each in names(fake, name)]
    fake.put("pods", {**made, "status": {**made["status"], "ephemeralContainerStatuses": states}})


async def test_it_joins_and_the_next_one_reuses_it(fake: FakeApi, api: KubeApi) -> None:
    there = replica(put_pod(fake, pod("b-1", workload())))
    assert await join(api, there, SPEC) == "meshdev-1"
    assert stored(fake)["spec"]["ephemeralContainers"] == [container(SPEC, "meshdev-1", {})]
    assert await join(api, there, replace(SPEC, image="sidecar:2")) == "meshdev-1"
    ends(fake)
    assert await join(api, there, SPEC) == "meshdev-2"
    assert names(fake) == ["meshdev-1", "meshdev-2"]


async def test_many_at_the_same_moment_make_one(fake: FakeApi, api: KubeApi) -> None:
    there = replica(put_pod(fake, pod("b-1", workload())))
    assert set(await asyncio.gather(*(join(api, there, SPEC) for _ in range(8)))) == {"meshdev-1"}
    assert names(fake) == ["meshdev-1"]


async def test_a_pod_that_changes_meanwhile_is_read_again(fake: FakeApi, api: KubeApi) -> None:
    there = replica(put_pod(fake, pod("b-1", workload())))
    changes = iter(range(3))

    def writing(_asked: object, item: Object) -> None:
        if next(changes, None) is not None:
            fake.put("pods", {**item, "status": {**item["status"], "phase": "Running"}})

    fake.writing = writing
    assert await join(api, there, SPEC) == "meshdev-1"
    changes = iter(range(100))
    with pytest.raises(MeshdevError, match="changes all the time"):
        await join(api, replica(put_pod(fake, pod("b-2", workload()))), SPEC)


async def test_another_pod_of_the_same_name_is_not_joined(fake: FakeApi, api: KubeApi) -> None:
    there = replica(put_pod(fake, pod("b-1", workload())))
    with pytest.raises(NotFoundError):
        await join(api, replace(there, uid="former"), SPEC)
    with pytest.raises(NotFoundError):
        await join(api, replace(there, name="b-9"), SPEC)
    assert names(fake) == []


async def test_a_sidecar_of_a_manager_elsewhere(fake: FakeApi, api: KubeApi) -> None:
    there = replica(put_pod(fake, pod("b-1", workload())))
    await join(api, there, replace(SPEC, manager="10.96.0.9:15010", manager_namespace="tools"))
    with pytest.raises(InterceptError, match="served by the manager in namespace tools already"):
        await join(api, there, SPEC)
    ends(fake)
    assert await join(api, there, SPEC) == "meshdev-2"


async def test_the_manager_moved(fake: FakeApi, api: KubeApi) -> None:
    """The old sidecar cannot be told; it goes by itself."""
    there = replica(put_pod(fake, pod("b-1", workload())))
    await join(api, there, replace(SPEC, manager="10.244.0.3:15010"))
    assert await join(api, there, SPEC) == "meshdev-2"


async def test_a_dry_run_changes_nothing(fake: FakeApi, api: KubeApi) -> None:
    made = put_pod(fake, pod("b-1", workload()))
    await ephemeral.dry_run(api, made, SPEC)
    fake.put("pods", made)  # changed meanwhile
    await ephemeral.dry_run(api, {**made, "metadata": {**made["metadata"], "resourceVersion": "1"}}, SPEC)
    assert names(fake) == []
    fake.refuse["patch pods/ephemeralcontainers"] = (403, POD_SECURITY)
    with pytest.raises(AdmissionError) as caught:
        await ephemeral.dry_run(api, made, SPEC)
    assert caught.value.message == POD_SECURITY


# -- all pods, always ------------------------------------------------------------------------------------------------


@dataclass
class Kept:
    """``keep_joined`` at work, and what it told."""

    state: Mapping[str, Replica] = field(default_factory=dict)
    failures: list[tuple[str, MeshdevError]] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5), self.changed:
            await self.changed.wait_for(condition)

    async def wake(self) -> None:
        async with self.changed:
            self.changed.notify_all()


@asynccontextmanager
async def keeping(api: KubeApi, resolved: Resolved) -> AsyncIterator[Kept]:
    kept = Kept()
    tasks: set[asyncio.Future[None]] = set()

    def told(step: Awaitable[None]) -> None:
        tasks.add(asyncio.ensure_future(step))

    def changed(state: Mapping[str, Replica]) -> None:
        kept.state = state
        told(kept.wake())

    def failed(pod: Replica, error: MeshdevError) -> None:
        kept.failures.append((pod.name, error))
        told(kept.wake())

    running = asyncio.ensure_future(keep_joined(api, resolved, SPEC, changed=changed, failed=failed))
    try:
        yield kept
    finally:
        running.cancel()
        await asyncio.gather(running, *tasks, return_exceptions=True)


def joined(kept: Kept, *pods: str) -> Callable[[], bool]:
    return lambda: (
        {
            each.name
            for each in kept.state.values()
            if not each.to_join(SPEC.manager, SPEC.image, SPEC.workload) and each.node
        }
        == set(pods)
    )


async def test_all_pods_are_joined_and_those_that_come(fake: FakeApi, api: KubeApi) -> None:
    resolved = await resolved_b(fake, api, "b-1", "b-2")
    async with keeping(api, resolved) as kept:
        await kept.until(joined(kept, "b-1", "b-2"))
        pending = pod("b-3", workload(), nodeName="")
        put_pod(fake, pending)
        await kept.until(lambda: len(kept.state) == 3)
        assert names(fake, "b-3") == []
        put_pod(fake, pod("b-3", workload()))
        await kept.until(joined(kept, "b-1", "b-2", "b-3"))
        fake.remove("pods", "b-1")
        await kept.until(joined(kept, "b-2", "b-3"))
        assert kept.failures == []


async def test_a_sidecar_that_ends_is_followed_by_another(fake: FakeApi, api: KubeApi) -> None:
    resolved = await resolved_b(fake, api, "b-1")
    async with keeping(api, resolved) as kept:
        await kept.until(joined(kept, "b-1"))
        ends(fake)
        await kept.until(joined(kept))
        await kept.until(joined(kept, "b-1"))
    assert names(fake) == ["meshdev-1", "meshdev-2"]


def test_sidecars_that_end_at_once_do_not_fill_the_pod() -> None:
    there = Replica("default", "b-1", "u", "", "node1", ready=True, leaving=False, ended=7)
    history = ephemeral._History()
    waited = [history.pause(replace(there, ended=7 + times)) for times in range(9)]
    assert waited == [0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [(403, POD_SECURITY, AdmissionError), (403, 'User "dev" cannot patch resource "pods/x"', ForbiddenError)],
)
async def test_a_refusal_is_told_once(
    fake: FakeApi, api: KubeApi, status: int, message: str, kind: type[MeshdevError]
) -> None:
    resolved = await resolved_b(fake, api, "b-1")
    fake.refuse["patch pods/ephemeralcontainers"] = (status, message)
    async with keeping(api, resolved) as kept:
        await kept.until(lambda: bool(kept.failures))
        put_pod(fake, pod("b-1", workload(), priority=1))
        put_pod(fake, pod("b-2", workload()))
        await kept.until(lambda: len(kept.failures) == 2)
    assert [(name, type(error)) for name, error in kept.failures] == [("b-1", kind), ("b-2", kind)]


async def test_what_passes_is_tried_again(fake: FakeApi, api: KubeApi) -> None:
    resolved = await resolved_b(fake, api, "b-1")
    fake.refuse["patch pods/ephemeralcontainers"] = (503, "starting")
    async with keeping(api, resolved) as kept:
        await kept.until(lambda: bool(kept.failures))
        fake.refuse.clear()
        await kept.until(joined(kept, "b-1"))


async def test_a_pod_that_goes_while_it_is_joined_is_forgotten(fake: FakeApi, api: KubeApi) -> None:
    resolved = await resolved_b(fake, api, "b-1", "b-2")
    fake.writing = lambda asked, _: fake.remove("pods", "b-1") if asked.name == "b-1" else None
    async with keeping(api, resolved) as kept:
        await kept.until(joined(kept, "b-2"))
        await kept.until(lambda: len(kept.state) == 1)
    assert [name for name, _ in kept.failures] in ([], ["b-1"])
