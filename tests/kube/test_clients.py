"""Whose pods the clients of a service are."""

from ipaddress import IPv4Address
from typing import Any

import pytest

from meshdev.kube.clients import ClientPod, WorkloadPod, client_pod, workload_of, workload_pod

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


READY = {"type": "Ready", "status": "True"}


@pytest.mark.parametrize(
    ("pod", "ready", "counts"),
    [
        (made(conditions=[{"type": "PodScheduled", "status": "True"}, READY]), True, True),
        (made(conditions=[{"type": "Ready", "status": "False"}]), False, True),
        (made(phase="Pending"), False, True),
        (made(phase="Succeeded", conditions=[READY]), False, False),
        (made(phase="Failed"), False, False),
        (made(host=True, conditions=[READY]), True, True),
    ],
)
def test_how_it_counts(pod: Object, *, ready: bool, counts: bool) -> None:
    found = workload_pod(pod)
    assert (found.workload, found.ready, found.counts) == ("pod/b-6c9-x7", ready, counts)
    assert found.addresses == client_pod(pod).addresses


def test_a_pod_that_ends_counts_no_more() -> None:
    pod = made(conditions=[READY], owner=("StatefulSet", "db"))
    pod["metadata"]["deletionTimestamp"] = "2026-11-29T12:00:00Z"
    assert workload_pod(pod) == WorkloadPod((IPv4Address("10.244.0.7"),), "statefulset/db", ready=False, counts=False)
