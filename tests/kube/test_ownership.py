"""Which pods count as the manager's: copies, other owners, leftovers, rewritten images, and rights that are missing."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from meshdev.config import MANAGER_NAME
from meshdev.errors import ImageError, ManagerError
from meshdev.kube import manager
from meshdev.kube.client import KubeApi
from meshdev.kube.manager import find_pod, sidecar_terms, uninstall, wait
from meshdev.kube.ownership import foreign
from tests.kube.fake_api import FakeApi, Object
from tests.kube.objects import HASH, controlled
from tests.kube.test_manager import RUNNING, Run, controller, pod, put_manager_pod, put_service, waiting

Change = Callable[[Object], Any]


def copied(of: Object, name: str, change: Change) -> Object:
    """A pod made of *of*'s YAML, newer than it."""
    made = deepcopy(of)
    made["metadata"] |= {"name": name, "uid": f"uid-{name}", "creationTimestamp": "2026-01-01T00:00:59Z"}
    change(made)
    return made


def without_owner(made: Object) -> None:
    made["metadata"]["ownerReferences"] = []


def owned_by(kind: str, name: str, uid: str = "uid-x", *, controls: bool = True) -> Change:
    def change(made: Object) -> None:
        made["metadata"]["ownerReferences"] = [{"kind": kind, "name": name, "uid": uid, "controller": controls}]

    return change


def with_image(image: str) -> Change:
    """As one that was adopted, or changed in place."""

    def change(made: Object) -> None:
        made["spec"]["containers"][0]["image"] = image

    return change


LOOK_ALIKES: dict[str, tuple[Change, str]] = {
    "a copy": (without_owner, f"it does not belong to deployment/{MANAGER_NAME}"),
    "a DaemonSet's": (owned_by("DaemonSet", MANAGER_NAME), "it does not belong to"),
    "owned, not controlled": (
        owned_by("ReplicaSet", f"{MANAGER_NAME}-{HASH}", controls=False),
        "it does not belong to",
    ),
    "another Deployment's": (
        owned_by("ReplicaSet", f"{MANAGER_NAME}-canary-{HASH}"),
        f"it belongs to replicaset/{MANAGER_NAME}-canary-{HASH}, which is not of",
    ),
    "a former ReplicaSet's": (owned_by("ReplicaSet", f"{MANAGER_NAME}-{HASH}", "uid-former"), "its ReplicaSet is gone"),
    "another image": (with_image("nginx:1"), "its container tunnel runs nginx:1, not image:1 as deployment/"),
}


@pytest.mark.parametrize("which", LOOK_ALIKES)
async def test_a_look_alike_is_not_used_and_named(fake: FakeApi, api: KubeApi, which: str) -> None:
    """By those who look for a running manager, those who wait for one, and sidecars that are to run its image."""
    change, why = LOOK_ALIKES[which]
    there = put_manager_pod(fake, pod("m", {"state": RUNNING}, age=9))
    put_service(fake, "uid")
    fake.put("pods", copied(there, "copy", change))
    for find in (find_pod, lambda *of: wait(*of[:2], progress=lambda _: None, note=of[2])):
        notes: list[str] = []
        found = await find(api, "default", notes.append)
        assert found is not None
        assert found.name == "m"
        assert len(notes) == 1
        assert notes[0].startswith(f"pod copy has the manager's labels but is not used: {why}")
    assert (await sidecar_terms(api, "default")).image == "image:1"


@pytest.mark.parametrize("which", LOOK_ALIKES)
async def test_a_look_alike_alone_is_no_manager(fake: FakeApi, api: KubeApi, which: str) -> None:
    there = put_manager_pod(fake, pod("m", {"state": RUNNING}, age=9))
    fake.put("pods", copied(there, "copy", LOOK_ALIKES[which][0]))
    fake.remove("pods", "m")
    assert await find_pod(api, "default") is None
    with pytest.raises(ManagerError, match=r"did not start within 0 seconds: pod copy has the manager's labels but"):
        await wait(api, "default", progress=lambda _: None, seconds=0.3)
    with pytest.raises(ManagerError, match="no manager runs"):
        await sidecar_terms(api, "default")


async def test_beside_a_look_alike_a_manager_is_created(fake: FakeApi, api: KubeApi) -> None:
    fake.put("pods", copied(pod("x", {"state": RUNNING}), "copy", without_owner))
    fake.created = controller(fake, pod("m", {"state": RUNNING}, age=9))
    run = Run()
    assert (await run.ensure(api)).name == "m"
    assert len(run.created) == 1


async def test_a_look_alike_that_cannot_start_fails_nobodys_connect(fake: FakeApi, api: KubeApi) -> None:
    """Nor does it make the session replace the manager."""
    fake.put("pods", copied(pod("x", {"state": waiting("ErrImagePull")}), "copy", without_owner))
    fake.created = controller(fake, pod("m", {"state": RUNNING}, age=9))
    assert (await Run().ensure(api)).name == "m"
    assert [each.verb for each in fake.asked if each.verb == "update"] == []


async def test_the_managers_own_trouble_is_still_told(fake: FakeApi, api: KubeApi) -> None:
    put_manager_pod(fake, pod("m", {"state": waiting("ErrImagePull", "no such image")}))
    with pytest.raises(ImageError, match="no such image"):
        await wait(api, "default", progress=lambda _: None, seconds=5)


async def test_pods_of_a_deployment_that_was_deleted_do_not_count(fake: FakeApi, api: KubeApi) -> None:
    put_manager_pod(fake, pod("m", {"state": RUNNING}))
    fake.remove("deployments", MANAGER_NAME, group="apps")
    notes: list[str] = []
    assert await find_pod(api, "default", notes.append) is None
    assert notes == [
        f"pod m has the manager's labels but is not used: there is no deployment/{MANAGER_NAME}",
    ]


async def test_nor_those_of_a_former_one_of_the_same_name(fake: FakeApi, api: KubeApi) -> None:
    put_manager_pod(fake, pod("m", {"state": RUNNING}))
    there = fake.objects["apps", "deployments"]["default", MANAGER_NAME]
    fake.put("deployments", {**there, "metadata": {**there["metadata"], "uid": "uid-new"}}, group="apps")
    notes: list[str] = []
    assert await find_pod(api, "default", notes.append) is None
    assert "its ReplicaSet does not belong to this deployment/" in notes[0]


async def test_uninstalling_waits_for_its_own_pods_only(fake: FakeApi, api: KubeApi) -> None:
    there = put_manager_pod(fake, pod("m", {"state": RUNNING}))
    fake.put("pods", copied(there, "copy", without_owner))
    fake.deleted = lambda _: fake.remove("pods", "m")
    assert await uninstall(api, "default") == [f"deployment/{MANAGER_NAME} in namespace default"]
    assert fake.names("pods") == ["default/copy"]


@pytest.mark.parametrize("resources", [["deployments"], ["replicasets"], ["replicasets", "deployments"]])
async def test_where_it_may_not_be_read_it_is_not_checked_and_told(
    fake: FakeApi, api: KubeApi, resources: list[str]
) -> None:
    """What the pod itself tells is checked all the same."""
    there = put_manager_pod(fake, pod("m", {"state": RUNNING}, age=9))
    fake.put("pods", copied(there, "copy", without_owner))
    fake.allow = lambda asked: asked.resource not in resources
    notes: list[str] = []
    found = await find_pod(api, "default", notes.append)
    assert found is not None
    assert found.name == "m"
    assert "pod copy has the manager's labels but is not used" in notes[0]
    unchecked = f"whether the manager's pod belongs to deployment/{MANAGER_NAME} is not checked"
    missing = "; ".join(f"you (dev) may not get {each}.apps in namespace default" for each in resources)
    assert notes[1:] == [f"{unchecked}: {missing}"]


async def test_an_api_server_that_fails_for_a_moment_ends_no_waiting(fake: FakeApi, api: KubeApi) -> None:
    put_manager_pod(fake, pod("m", {"state": RUNNING}))
    fake.refuse["get replicasets"] = (500, "etcd is away")
    told: list[str] = []

    def progress(line: str) -> None:
        told.append(line)
        fake.refuse.clear()
        fake.end_watches()
        fake.put("pods", fake.objects["", "pods"]["default", "m"])

    found = await wait(api, "default", progress=progress, seconds=5)
    assert found.name == "m"
    assert "etcd is away" in told[0]


async def test_one_that_is_adopted_while_it_is_waited_for_is_used(fake: FakeApi, api: KubeApi) -> None:
    there = put_manager_pod(fake, pod("m", {"state": RUNNING}))
    without_owner(there)
    fake.put("pods", there)

    def adopt(_: str) -> None:
        put_manager_pod(fake, there)

    assert (await manager.wait(api, "default", progress=adopt, seconds=5)).name == "m"


TAGGED = "ghcr.io/meshdev/traffic-manager:0.1.0"
DIGEST, OTHER_DIGEST = f"@sha256:{'ab' * 32}", f"@sha256:{'cd' * 32}"


def verdict(declared: str, runs: str) -> str | None:
    """Of a pod of the Deployment's ReplicaSet, into which something was injected."""
    deployment: Object = {"kind": "Deployment", "metadata": {"uid": "d", "name": MANAGER_NAME}}
    replicaset: Object = {
        "kind": "ReplicaSet",
        "metadata": {"uid": "r", "name": f"{MANAGER_NAME}-{HASH}", "ownerReferences": controlled(deployment)},
        "spec": {"template": {"spec": {"containers": [{"name": "tunnel", "image": declared}]}}},
    }
    containers = [{"name": "injected", "image": "x"}, {"name": "tunnel", "image": runs}]
    made = {"metadata": {"uid": "p", "ownerReferences": controlled(replicaset)}, "spec": {"containers": containers}}
    return foreign(made, replicaset, deployment)


@pytest.mark.parametrize(
    ("declared", "runs", "same"),
    [
        (TAGGED, TAGGED, True),
        (TAGGED, "mirror.corp:5000/ghcr/meshdev/traffic-manager:0.1.0", True),
        (TAGGED, f"ghcr.io/meshdev/traffic-manager{DIGEST}", True),
        (TAGGED, f"{TAGGED}{DIGEST}", True),
        (f"{TAGGED}{DIGEST}", TAGGED, True),
        (TAGGED, "ghcr.io/meshdev/traffic-manager:0.2.0", False),
        (TAGGED, "ghcr.io/meshdev/traffic-manager-debug:0.1.0", False),
        (TAGGED, "ghcr.io/traffic-manager/meshdev:0.1.0", False),
        (f"{TAGGED}{DIGEST}", f"{TAGGED}{OTHER_DIGEST}", False),
        (TAGGED, "", False),
    ],
)
def test_what_admission_makes_of_an_image_is_the_same(declared: str, runs: str, same: bool) -> None:
    assert (verdict(declared, runs) is None) is same
