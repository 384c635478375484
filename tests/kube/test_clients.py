"""Whose pods the clients of a service are."""

from ipaddress import IPv4Address
from typing import Any

import pytest

from meshdev.kube.clients import ClientPod, client_pod, workload_of

Object = dict[str, Any]


def made(*, owner: tuple[str, str] | None = None, **more: Any) -> Object:
    controller = [{"kind": "Node", "name": "n", "controller": False}]
    if owner is not None:
        controller.append({"kind": owner[0], "name": owner[1], "controller": True})
    return {
        "metadata": {"name": "b-6c9-x7", "labels": more.pop("labels", {}), "ownerReferences": controller},
        "spec": {"hostNetwork": more.pop("host", False)},
        "status": {"podIPs": [{"ip": "10.244.0.7"}, {"ip": "fd00::7"}, {}], "phase": "Running", **more},
    }


@pytest.mark.parametrize(
    ("pod", "workload"),
    [
        (made(), "pod/b-6c9-x7"),
        (made(owner=("ReplicaSet", "b-6c9"), labels={"pod-template-hash": "6c9"}), "deployment/b"),
        (made(owner=("ReplicaSet", "by-hand")), "replicaset/by-hand"),
        (made(owner=("ReplicaSet", "b-6c9"), labels={"pod-template-hash": "other"}), "replicaset/b-6c9"),
        (made(owner=("StatefulSet", "db")), "statefulset/db"),
        (made(owner=("Job", "load-29")), "job/load-29"),
        ({"metadata": {"name": "bare"}, "spec": {}}, "pod/bare"),
    ],
)
def test_workload(pod: Object, workload: str) -> None:
    assert workload_of(pod) == workload


def test_a_pod_is_known_by_its_own_addresses() -> None:
    pod = made(owner=("StatefulSet", "db"))
    assert client_pod(pod) == ClientPod((IPv4Address("10.244.0.7"),), "statefulset/db")


@pytest.mark.parametrize(
    "pod", [made(host=True), made(phase="Succeeded"), made(phase="Failed"), made(podIPs=[]), made(podIPs=None)]
)
def test_an_address_that_is_not_its_own_is_nobodys(pod: Object) -> None:
    assert client_pod(pod) == ClientPod((), "")
