"""The manager's life in a cluster that keeps state."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from meshdev.config import MANAGER_LABELS, MANAGER_NAME
from meshdev.errors import AdmissionError, ClusterError, ForbiddenError, ImageError, ManagerError
from meshdev.kube import manager
from meshdev.kube.client import KubeApi
from meshdev.kube.errors import NotFoundError
from meshdev.kube.manager import Created, ensure, find_pod, undo, uninstall
from meshdev.kube.manifest import ManagerSpec, deployment, service
from meshdev.kube.podstate import ManagerPod
from tests.kube.fake_api import FakeApi, Object
from tests.kube.objects import HASH, controlled, replicaset
from tests.waiting import until

SPEC = ManagerSpec("default", "image:1")
RUNNING: Object = {"running": {}}


def waiting(reason: str, message: str = "") -> Object:
    return {"waiting": {"reason": reason, "message": message}}


def pod(name: str, state: Object, *, age: int = 0, **meta: str) -> Object:
    labels = {**MANAGER_LABELS, "pod-template-hash": HASH}
    annotations = {"meshdev.dev/protocol": "1", "meshdev.dev/version": "0.1.0"}
    created = f"2026-01-01T00:00:{59 - age:02}Z"
    container = {"name": "tunnel", "imageID": "sha256:1", **state}
    return {
        "metadata": {
            "name": name,
            "labels": labels,
            "annotations": annotations,
            "creationTimestamp": created,
            **meta,
        },
        "spec": {"nodeName": "n", "containers": [{"name": "tunnel", "image": "image:1"}]},
        "status": {"podIP": "10.0.0.1", "containerStatuses": [container]},
    }


def put_manager_pod(fake: FakeApi, made: Object, namespace: str = "default") -> Object:
    """The pod as the Deployment's own, which is made where there is none."""
    there = fake.objects.get(("apps", "deployments"), {}).get((namespace, MANAGER_NAME))
    installed = there or fake.put("deployments", deployment(SPEC), namespace, "apps")
    by = replicaset({**installed, "spec": {**installed["spec"], "template": {"spec": made["spec"]}}})
    owner = fake.put("replicasets", by, namespace, "apps")
    owned = {**made["metadata"], "ownerReferences": controlled(owner)}
    return fake.put("pods", {**made, "metadata": owned}, namespace)


def put_service(fake: FakeApi, owner: str, namespace: str = "default") -> Object:
    """The manager's Service, with an address."""
    made = service(namespace, owner)
    return fake.put("services", {**made, "spec": {**made["spec"], "clusterIP": "10.96.0.7"}}, namespace)


def controller(fake: FakeApi, *pods: Object) -> Callable[[str, Object], None]:
    """Sets off a pod for each Deployment that is created or replaced: the first ones first."""
    coming = list(pods)

    def created(resource: str, item: Object) -> None:
        if resource == "deployments" and coming:
            put_manager_pod(fake, coming.pop(0), item["metadata"]["namespace"])

    return created


class Run:
    """What ``ensure`` told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.created: list[Created] = []

    async def ensure(self, api: KubeApi, spec: ManagerSpec = SPEC, seconds: float = 5) -> ManagerPod:
        return await ensure(api, spec, progress=self.told.append, on_created=self.created.append, seconds=seconds)


async def test_a_running_manager_is_used_as_it_is(fake: FakeApi, api: KubeApi) -> None:
    put_manager_pod(fake, pod("m", {"state": RUNNING}))
    found = await Run().ensure(api, ManagerSpec("default", "another:2"))
    assert (found.name, found.address, found.node, found.protocol, found.image) == (
        "m",
        "10.0.0.1",
        "n",
        1,
        "image:1",
    )
    assert [(each.verb, each.resource) for each in fake.asked] == [
        ("list", "pods"),
        ("get", "replicasets"),
        ("get", "deployments"),
    ]


async def test_the_newest_running_pod_counts(fake: FakeApi, api: KubeApi) -> None:
    put_manager_pod(fake, pod("old", {"state": RUNNING}, age=9))
    put_manager_pod(fake, pod("new", {"state": RUNNING}, age=5))
    put_manager_pod(fake, pod("going", {"state": RUNNING}, age=1, deletionTimestamp="now"))
    put_manager_pod(fake, pod("coming", {"state": waiting("ContainerCreating")}))
    found = await find_pod(api, "default")
    assert found is not None
    assert found.name == "new"


async def test_created_where_there_is_none_and_waited_for(fake: FakeApi, api: KubeApi) -> None:
    fake.created = controller(fake, pod("m", {"state": waiting("ContainerCreating")}))
    run = Run()
    told = run.told.append

    def progress(line: str) -> None:
        told(line)
        if line.startswith("pod m starts"):
            put_manager_pod(fake, pod("m", {"state": RUNNING}))

    found = await ensure(api, SPEC, progress=progress, on_created=run.created.append)
    assert found.name == "m"
    assert run.told == ["creating the manager in namespace default", "pod m starts (ContainerCreating)"]
    assert [created.name for created in run.created] == [MANAGER_NAME]
    assert fake.names("services") == [f"default/{MANAGER_NAME}"]
    await undo(api, run.created[0])
    assert fake.names("deployments", "apps") == []
    assert fake.names("services") == []


async def test_undo_deletes_only_its_own(fake: FakeApi, api: KubeApi) -> None:
    fake.put("deployments", deployment(SPEC), group="apps")
    fake.put("services", service("default", "mine"))
    await undo(api, Created("default", MANAGER_NAME, "another"))
    assert fake.names("deployments", "apps") == [f"default/{MANAGER_NAME}"]
    assert fake.names("services") == [f"default/{MANAGER_NAME}"]
    await undo(api, Created("default", "gone", "x"))


@pytest.mark.parametrize(
    ("state", "kind", "words"),
    [
        ({"state": waiting("ErrImagePull", "no such image: x")}, ImageError, "cannot be had: no such image: x"),
        ({"state": waiting("ErrImageNeverPull")}, ImageError, "ErrImageNeverPull"),
        ({"state": waiting("CreateContainerError", "no seccomp")}, ManagerError, "cannot start: no seccomp"),
        (
            {"state": waiting("CrashLoopBackOff"), "lastState": {"terminated": {"message": "boom\n", "exitCode": 1}}},
            ManagerError,
            "starts and ends again: boom",
        ),
    ],
)
async def test_the_pods_own_reason_at_once(
    fake: FakeApi, api: KubeApi, state: Object, kind: type[Exception], words: str
) -> None:
    fake.created = controller(fake, pod("m", state))
    run = Run()
    with pytest.raises(kind, match=words):
        await run.ensure(api)
    assert len(run.created) == 1


async def test_pods_that_are_refused(fake: FakeApi, api: KubeApi) -> None:
    words = 'pods "m-1" is forbidden: violates PodSecurity "baseline:latest"'

    def refuse(resource: str, item: Object) -> None:
        condition = {"type": "ReplicaFailure", "status": "True", "message": words}
        if "status" not in item:
            fake.put(resource, {**item, "status": {"conditions": [condition]}}, group="apps")

    fake.created = refuse
    with pytest.raises(AdmissionError) as caught:
        await Run().ensure(api)
    assert caught.value.message == words


async def test_a_pod_that_cannot_be_scheduled_is_told_and_waited_for(fake: FakeApi, api: KubeApi) -> None:
    stuck = pod("m", {})
    condition = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available: 1 too small"}
    stuck["status"] = {"conditions": [condition]}
    fake.created = controller(fake, stuck)
    run = Run()
    with pytest.raises(ManagerError, match=r"within 0 seconds: pod m is not scheduled: 0/1 nodes"):
        await run.ensure(api, seconds=0.3)
    assert "pod m is not scheduled: 0/1 nodes are available: 1 too small" in run.told


async def test_one_that_cannot_run_is_replaced_by_another_image(fake: FakeApi, api: KubeApi) -> None:
    fake.put("deployments", deployment(ManagerSpec("default", "broken:1")), group="apps")
    put_manager_pod(fake, pod("old", {"state": waiting("ErrImagePull", "broken")}))
    fake.created = controller(fake, pod("new", {"state": RUNNING}, age=1))
    run = Run()
    assert (await run.ensure(api)).name == "new"
    assert run.created == []
    image = fake.objects["apps", "deployments"]["default", MANAGER_NAME]["spec"]["template"]["spec"]["containers"]
    assert image[0]["image"] == "image:1"


async def test_one_that_cannot_run_and_is_the_same_is_left_alone(fake: FakeApi, api: KubeApi) -> None:
    fake.put("deployments", deployment(SPEC), group="apps")
    put_manager_pod(fake, pod("old", {"state": waiting("ErrImagePull", "broken")}))
    with pytest.raises(ImageError):
        await Run().ensure(api)
    assert [asked.verb for asked in fake.asked if asked.verb in {"update", "create"}] == []


async def test_one_that_was_scaled_to_zero(fake: FakeApi, api: KubeApi) -> None:
    existing = deployment(SPEC)
    existing["spec"]["replicas"] = 0
    fake.put("deployments", existing, group="apps")
    with pytest.raises(ClusterError, match="scaled to zero"):
        await Run().ensure(api)


async def test_somebody_else_creates_it_at_the_same_time(fake: FakeApi, api: KubeApi) -> None:
    fake.refuse["create"] = (409, "already exists")
    run = Run()
    async with asyncio.TaskGroup() as tasks:
        found = tasks.create_task(run.ensure(api))
        await until(lambda: fake.watched("pods"))
        put_manager_pod(fake, pod("theirs", {"state": RUNNING}))
    assert found.result().name == "theirs"
    assert run.created == []


async def test_a_cancelled_connect_knows_what_it_created(fake: FakeApi, api: KubeApi) -> None:
    run = Run()
    begun = asyncio.Event()
    fake.created = lambda *_: begun.set()
    task = asyncio.ensure_future(run.ensure(api))
    await begun.wait()  # the server has it, the answer is on its way
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [created.name for created in run.created] == [MANAGER_NAME]


async def test_no_such_namespace(api: KubeApi) -> None:
    with pytest.raises(NotFoundError, match="there is no namespace nope"):
        await Run().ensure(api, ManagerSpec("nope", "image:1"))


async def test_who_may_not_create_is_told_the_rule(fake: FakeApi, api: KubeApi) -> None:
    fake.allow = lambda asked: asked.verb != "create"
    with pytest.raises(ForbiddenError, match=r"may not create deployments\.apps in namespace default"):
        await Run().ensure(api)


async def test_who_may_not_see_deployments_still_uses_a_manager_that_comes(fake: FakeApi, api: KubeApi) -> None:
    fake.allow = lambda asked: asked.resource == "pods"
    async with asyncio.TaskGroup() as tasks:
        found = tasks.create_task(manager.wait(api, "default", progress=lambda _: None, seconds=5))
        await until(lambda: fake.watched("pods"))
        put_manager_pod(fake, pod("m", {"state": RUNNING}))
    assert found.result().name == "m"


async def test_replace_waits_for_the_new_pod(fake: FakeApi, api: KubeApi) -> None:
    fake.put("deployments", deployment(SPEC), group="apps")
    put_manager_pod(fake, pod("old", {"state": RUNNING}, age=9))
    fake.created = controller(fake, pod("new", {"state": RUNNING}))
    spec = ManagerSpec("default", "image:2", version="0.2.0")
    found = await manager.replace(api, spec, progress=lambda _: None, seconds=5)
    assert found.name == "new"


async def test_uninstall_waits_for_the_pods(fake: FakeApi, api: KubeApi) -> None:
    assert await uninstall(api, "default") == []
    fake.put("deployments", deployment(SPEC), group="apps")
    put_manager_pod(fake, pod("m", {"state": RUNNING}))
    async with asyncio.TaskGroup() as tasks:
        removed = tasks.create_task(uninstall(api, "default"))
        await until(lambda: fake.watched("pods"))
        assert fake.names("deployments", "apps") == []
        assert not removed.done()
        fake.remove("pods", "m")
    assert removed.result() == [f"deployment/{MANAGER_NAME} in namespace default"]


async def test_uninstall_keeps_its_hands_off_others(fake: FakeApi, api: KubeApi) -> None:
    foreign = deployment(SPEC)
    foreign["metadata"]["labels"] = {}
    fake.put("deployments", foreign, group="apps")
    with pytest.raises(ClusterError, match="does not belong to meshdev"):
        await uninstall(api, "default")


async def test_upgrade_replaces_another_version_and_leaves_the_same_alone(fake: FakeApi, api: KubeApi) -> None:
    fake.put("deployments", deployment(SPEC), group="apps")
    put_manager_pod(fake, pod("old", {"state": RUNNING}, age=9))
    assert await manager.upgrade(api, SPEC, progress=lambda _: None) is None
    fake.created = controller(fake, pod("new", {"state": RUNNING}))
    found = await manager.upgrade(api, replace(SPEC, protocol=SPEC.protocol + 1), progress=lambda _: None, seconds=5)
    assert found is not None
    assert found.name == "new"


DIGEST = "ghcr.io/meshdev/traffic-manager@sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("resolved", "runs"),
    [
        (DIGEST, DIGEST),
        (f"docker-pullable://{DIGEST}", DIGEST),
        ("sha256:" + "ab" * 32, "image:1"),
        ("", "image:1"),
    ],
)
async def test_an_image_without_a_repository_is_asked_for_by_its_name(
    fake: FakeApi, api: KubeApi, resolved: str, runs: str
) -> None:
    put_manager_pod(fake, pod("m", {"state": RUNNING, "imageID": resolved}))
    found = await find_pod(api, "default")
    assert found is not None
    assert found.image == runs


async def test_a_service_of_a_former_deployment_is_replaced(fake: FakeApi, api: KubeApi) -> None:
    fake.put("services", service("default", "former"))
    fake.created = controller(fake, pod("m", {"state": RUNNING}))
    run = Run()
    await run.ensure(api)
    made = fake.objects["", "services"]["default", MANAGER_NAME]
    assert made["metadata"]["ownerReferences"][0]["uid"] == run.created[0].uid
