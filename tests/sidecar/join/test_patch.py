"""A sidecar in the template: in, rolled out, and out again as if it had never been there."""

import asyncio
from copy import deepcopy
from typing import Any

import pytest

from meshdev.errors import AdmissionError, ClusterError, InterceptError
from meshdev.kube.client import KubeApi
from meshdev.kube.workloads import Resolved
from meshdev.sidecar.join import patch
from meshdev.sidecar.join.container import native
from tests.kube.fake_api import FakeApi
from tests.kube.objects import put_workload, resolved_b, template, workload
from tests.sidecar.join.conftest import SPEC

Object = dict[str, Any]
ID = "0" * 32
POD_SECURITY = 'pods "b-" is forbidden: violates PodSecurity "baseline:latest": non-default capabilities'


def stored(fake: FakeApi) -> Object:
    return fake.objects["apps", "deployments"]["default", "b"]


def init_containers(fake: FakeApi) -> list[str]:
    return [each["name"] for each in stored(fake)["spec"]["template"]["spec"].get("initContainers") or []]


def finish(fake: FakeApi) -> None:
    """As the Deployment's controller tells that all pods are new."""
    made = stored(fake)
    counts = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas"), made["spec"]["replicas"])
    fake.put(
        "deployments",
        {**made, "status": {"observedGeneration": made["metadata"]["generation"], **counts}},
        group="apps",
    )


def at_once(fake: FakeApi) -> None:
    """Rollouts take no time."""

    def created(resource: str, item: Object) -> None:
        observed = (item.get("status") or {}).get("observedGeneration")
        if resource == "deployments" and observed != item["metadata"]["generation"]:
            finish(fake)

    fake.created = created


async def enter(api: KubeApi, resolved: Resolved, intercept: str = ID, seconds: float = 5) -> list[str]:
    told: list[str] = []
    await patch.enter(api, resolved, SPEC, intercept, progress=told.append, seconds=seconds)
    return told


async def nobody() -> bool:
    return False


async def somebody() -> bool:
    return True


@pytest.mark.parametrize("init", [[], [{"name": "first", "image": "i"}]])
async def test_in_and_out_leaves_the_template_as_it_was(fake: FakeApi, api: KubeApi, init: list[Object]) -> None:
    made = template()
    if init:
        made["spec"]["initContainers"] = init
    put_workload(fake, workload(made_of=made))
    before = deepcopy(stored(fake))
    resolved = await resolved_b_again(fake, api, before)
    at_once(fake)
    await enter(api, resolved)
    assert init_containers(fake) == [*(each["name"] for each in init), "meshdev"]
    assert stored(fake)["spec"]["template"]["spec"]["initContainers"][-1] == native(SPEC, {})
    assert stored(fake)["metadata"]["annotations"] == {"meshdev.dev/patched-by": ID}
    assert patch.is_patched(stored(fake))
    assert await patch.leave(api, resolved, nobody) is True
    assert stored(fake)["spec"] == before["spec"]
    assert not stored(fake)["metadata"].get("annotations")
    assert await patch.leave(api, resolved, nobody) is False


async def resolved_b_again(fake: FakeApi, api: KubeApi, made: Object) -> Resolved:
    """Resolve a Deployment that is stored already."""
    resolved = await resolved_b(fake, api)
    fake.put("deployments", {**made, "metadata": {**made["metadata"], "uid": "uid-b"}}, group="apps")
    return resolved


async def test_what_others_change_meanwhile_stays(fake: FakeApi, api: KubeApi) -> None:
    resolved = await resolved_b(fake, api)
    at_once(fake)
    await enter(api, resolved)
    made = deepcopy(stored(fake))
    made["spec"]["template"]["metadata"]["labels"]["theirs"] = "x"
    made["spec"]["template"]["spec"]["containers"][0]["image"] = "app:2"
    made["spec"]["template"]["spec"]["initContainers"].insert(0, {"name": "theirs", "image": "i"})
    made["metadata"]["annotations"]["theirs"] = "x"
    fake.put("deployments", made, group="apps")
    await patch.leave(api, resolved, nobody)
    after = stored(fake)["spec"]["template"]
    assert after["metadata"]["labels"] == {"app": "b", "theirs": "x"}
    assert (after["spec"]["containers"][0]["image"], init_containers(fake)) == ("app:2", ["theirs"])
    assert stored(fake)["metadata"]["annotations"] == {"theirs": "x"}


async def test_the_second_to_come_rolls_nothing_out(fake: FakeApi, api: KubeApi) -> None:
    resolved = await resolved_b(fake, api)
    at_once(fake)
    await enter(api, resolved)
    generation = stored(fake)["metadata"]["generation"]
    await enter(api, resolved, "1" * 32)
    assert stored(fake)["metadata"]["generation"] == generation
    assert stored(fake)["metadata"]["annotations"] == {"meshdev.dev/patched-by": "1" * 32}


async def test_the_last_to_leave_takes_it_out(fake: FakeApi, api: KubeApi) -> None:
    resolved = await resolved_b(fake, api)
    at_once(fake)
    await enter(api, resolved)
    assert await patch.leave(api, resolved, somebody) is False
    assert init_containers(fake) == ["meshdev"]
    assert await patch.leave(api, resolved, nobody) is True
    assert init_containers(fake) == []


async def test_who_comes_while_the_last_leaves_keeps_it(fake: FakeApi, api: KubeApi) -> None:
    resolved = await resolved_b(fake, api)
    at_once(fake)
    await enter(api, resolved)
    answers = iter([False, True])

    async def others() -> bool:
        answer = next(answers)
        if not answer:
            await enter(api, resolved, "2" * 32)  # between the question and the patch
        return answer

    assert await patch.leave(api, resolved, others) is False
    assert init_containers(fake) == ["meshdev"]


async def test_another_workload_of_that_name_is_left_alone(fake: FakeApi, api: KubeApi) -> None:
    resolved = await resolved_b(fake, api)
    at_once(fake)
    await enter(api, resolved)
    made = stored(fake)
    fake.put("deployments", {**made, "metadata": {**made["metadata"], "uid": "another"}}, group="apps")
    assert await patch.leave(api, resolved, nobody) is False
    fake.remove("deployments", "b", group="apps")
    assert await patch.leave(api, resolved, nobody) is False


async def test_the_rollout_is_told_and_waited_for(fake: FakeApi, api: KubeApi) -> None:
    resolved = await resolved_b(fake, api, "b-1")
    told: list[str] = []

    def progress(line: str) -> None:
        told.append(line)
        made = stored(fake)
        if len(told) == 1:
            status = {"observedGeneration": 2, "replicas": 3, "updatedReplicas": 1, "availableReplicas": 2}
            fake.put("deployments", {**made, "status": status}, group="apps")
        else:
            finish(fake)

    await patch.enter(api, resolved, SPEC, ID, progress=progress, seconds=5)
    assert told == ["its controller has not seen the change yet", "1 of 2 pods are replaced"]


async def test_a_rollout_that_does_not_end_is_told_with_its_last_reason(fake: FakeApi, api: KubeApi) -> None:
    resolved = await resolved_b(fake, api)
    with pytest.raises(ClusterError, match="within 0 seconds: its controller has not seen the change yet"):
        await enter(api, resolved, seconds=0.3)
    assert init_containers(fake) == ["meshdev"]  # leave takes it out


async def test_pods_that_are_refused(fake: FakeApi, api: KubeApi) -> None:
    resolved = await resolved_b(fake, api)

    def created(_resource: str, item: Object) -> None:
        if "status" not in item:
            condition = {"type": "ReplicaFailure", "status": "True", "message": POD_SECURITY}
            status = {"observedGeneration": item["metadata"]["generation"], "conditions": [condition]}
            fake.put("deployments", {**item, "status": status}, group="apps")

    fake.created = created
    with pytest.raises(AdmissionError) as caught:
        await enter(api, resolved)
    assert caught.value.message == POD_SECURITY


async def test_a_dry_run_changes_nothing_and_asks_for_a_pod(fake: FakeApi, api: KubeApi) -> None:
    resolved = await resolved_b(fake, api)
    before = deepcopy(fake.objects)
    await patch.dry_run(api, resolved, SPEC)
    assert fake.objects == before
    assert [(each.verb, each.resource) for each in fake.asked[-2:]] == [("patch", "deployments"), ("create", "pods")]
    fake.refuse["create pods"] = (403, POD_SECURITY)
    with pytest.raises(AdmissionError) as caught:
        await patch.dry_run(api, resolved, SPEC)
    assert caught.value.message == POD_SECURITY


async def test_a_cluster_without_native_sidecars(fake: FakeApi, api: KubeApi) -> None:
    """There the container would be one that the pod waits for, for ever."""
    resolved = await resolved_b(fake, api)
    fake.patches.unknown = frozenset({"restartPolicy"})
    with pytest.raises(InterceptError, match="no native sidecars"):
        await patch.dry_run(api, resolved, SPEC)


async def test_who_may_not_create_pods_goes_on_without_that_dry_run(fake: FakeApi, api: KubeApi) -> None:
    resolved = await resolved_b(fake, api)
    fake.allow = lambda asked: (asked.verb, asked.resource) != ("create", "pods")
    await patch.dry_run(api, resolved, SPEC)


async def test_paused_and_bare_ones_are_refused_before_anything_is_asked(fake: FakeApi, api: KubeApi) -> None:
    resolved = await resolved_b(fake, api)
    resolved.object["spec"]["paused"] = True
    asked = len(fake.asked)
    with pytest.raises(InterceptError, match="paused"):
        await patch.dry_run(api, resolved, SPEC)
    with pytest.raises(InterceptError, match="paused"):
        await enter(api, resolved)
    assert len(fake.asked) == asked


async def test_cancelling_ends_the_wait(fake: FakeApi, api: KubeApi) -> None:
    resolved = await resolved_b(fake, api)
    begun = asyncio.Event()
    task = asyncio.ensure_future(patch.enter(api, resolved, SPEC, ID, progress=lambda _: begun.set(), seconds=60))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
