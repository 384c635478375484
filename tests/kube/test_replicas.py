"""What a pod says of itself and of our sidecars in it."""

from typing import Any

import pytest

from meshdev.kube.replicas import Sidecar, finished, free_name, replica, sidecars
from tests.kube.objects import pod, workload

Object = dict[str, Any]


def ephemeral(name: str, manager: str = "m:1", namespace: str = "default", workload: str = "w") -> Object:
    env = [
        {"name": "MESHDEV_WORKLOAD_UID", "value": workload},
        {"name": "MESHDEV_MANAGER", "value": manager},
        {"name": "MESHDEV_MANAGER_NAMESPACE", "value": namespace},
    ]
    return {"name": name, "image": "i", "env": env}


def with_sidecars(*containers: Object, states: dict[str, Object] | None = None, **spec: Any) -> Object:
    made = pod("b-1", workload(), ephemeralContainers=list(containers), **spec)
    made["metadata"]["namespace"] = "default"
    made["status"]["ephemeralContainerStatuses"] = [
        {"name": name, "state": state} for name, state in (states or {}).items()
    ]
    return made


def test_a_pod_without_one() -> None:
    found = replica(with_sidecars({"name": "debugger-x", "image": "i"}, {"name": "meshdev-1", "image": "somebody's"}))
    assert (found.name, found.address, found.node, found.ready, found.leaving) == (
        "b-1",
        "10.244.0.9",
        "node1",
        True,
        False,
    )
    assert (found.sidecars, found.ended, found.to_join("m:1", "i", "w")) == ((), 0, True)


@pytest.mark.parametrize(
    ("state", "expected", "alive"),
    [
        (None, ("starting", "", False), True),
        ({"waiting": {"reason": "ContainerCreating"}}, ("starting", "ContainerCreating", False), True),
        ({"running": {}}, ("running", "", False), True),
        ({"terminated": {"reason": "Completed"}}, ("ended", "Completed", False), False),
        ({"terminated": {"message": "no nft\n"}}, ("ended", "no nft", False), False),
        ({"waiting": {"reason": "ErrImagePull", "message": "no such"}}, ("starting", "no such", True), True),
        (
            {"waiting": {"reason": "CreateContainerConfigError", "message": "no ConfigMap"}},
            ("starting", "no ConfigMap", True),
            True,
        ),
    ],
)
def test_states_of_an_ephemeral_one(state: Object | None, expected: tuple[str, str, bool], alive: bool) -> None:
    made = with_sidecars(ephemeral("meshdev-1"), states={"meshdev-1": state} if state else {})
    (found,) = sidecars(made)
    assert (found.state, found.reason, found.failed) == expected
    assert found.alive == alive
    assert (len(replica(made).sidecars), replica(made).ended) == ((1, 0) if alive else (0, 1))


def test_a_native_one_is_started_again_when_it_ends() -> None:
    native = {**ephemeral("meshdev"), "restartPolicy": "Always"}
    made = with_sidecars(initContainers=[{"name": "first"}, native])
    made["status"]["initContainerStatuses"] = [{"name": "meshdev", "state": {"terminated": {"reason": "OOMKilled"}}}]
    assert list(sidecars(made)) == [
        Sidecar("meshdev", "patch", "starting", "m:1", "default", "i", "OOMKilled", workload="w")
    ]


def test_the_manager_decides_which_is_ours() -> None:
    made = with_sidecars(ephemeral("meshdev-1", "old:1"), ephemeral("meshdev-2", "m:1"))
    found = replica(made)
    assert [each.name for each in found.sidecars] == ["meshdev-2", "meshdev-1"]
    assert (found.to_join("m:1", "i", "w"), found.to_join("old:1", "i", "w"), found.to_join("other:1", "i", "w")) == (
        False,
        False,
        True,
    )


def test_one_that_could_not_be_started_does_not_stand_in_the_way_of_another_image() -> None:
    made = with_sidecars(ephemeral("meshdev-1"), states={"meshdev-1": {"waiting": {"reason": "ImagePullBackOff"}}})
    assert (replica(made).to_join("m:1", "i", "w"), replica(made).to_join("m:1", "j", "w")) == (False, True)


def test_who_is_not_joined() -> None:
    leaving = with_sidecars()
    leaving["metadata"]["deletionTimestamp"] = "now"
    assert not replica(leaving).to_join("m:1", "i", "w")
    pending = with_sidecars(nodeName="")
    assert not replica(pending).to_join("m:1", "i", "w")
    done = with_sidecars()
    assert not finished(done)
    done["status"]["phase"] = "Succeeded"
    assert finished(done)


def test_the_first_free_name() -> None:
    assert free_name(with_sidecars()) == "meshdev-1"
    taken = with_sidecars(ephemeral("meshdev-1"), ephemeral("meshdev-3"), initContainers=[{"name": "meshdev-2"}])
    assert free_name(taken) == "meshdev-4"


def test_a_sidecar_of_another_workload_does_not_serve() -> None:
    """The one of the Service that selects the pod, when its own workload is intercepted by another name."""
    found = replica(with_sidecars(ephemeral("meshdev-1"), states={"meshdev-1": {"running": {}}}))
    assert (found.to_join("m:1", "i", "w"), found.to_join("m:1", "i", "another")) == (False, True)


@pytest.mark.parametrize(
    ("status", "stuck"),
    [
        ({}, ""),
        ({"containerStatuses": [{"name": "b", "state": {"running": {}}}]}, ""),
        ({"containerStatuses": [{"name": "b", "state": {"waiting": {"reason": "ContainerCreating"}}}]}, ""),
        (
            {"containerStatuses": [{"name": "b", "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]},
            "its container b waits: CrashLoopBackOff",
        ),
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]},
            "it is not scheduled: 0/1 nodes",
        ),
    ],
)
def test_why_a_pod_is_stuck(status: Object, stuck: str) -> None:
    assert replica({**with_sidecars(), "status": status}).stuck == stuck
