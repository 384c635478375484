"""Workloads, pods and Services as an API server has them, for tests."""

from typing import Any

from meshdev.intercept.target import parse_target
from meshdev.kube.client import KubeApi
from meshdev.kube.workloads import Resolved, resolve
from tests.kube.fake_api import FakeApi

Object = dict[str, Any]

HTTP: Object = {"name": "http", "containerPort": 8080}
HASH = "5d4f"


def template(name: str = "b", *, ports: list[Object] | None = None, **spec: Any) -> Object:
    container = {"name": name, "image": "app:1", "ports": [HTTP] if ports is None else ports}
    return {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container], **spec}}


def workload(kind: str = "Deployment", name: str = "b", *, replicas: int = 2, made_of: Object | None = None) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "uid": f"uid-{name}", "generation": 1},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": made_of or template(name),
        },
    }


def controlled(by: Object) -> list[Object]:
    meta = by["metadata"]
    return [{"apiVersion": "apps/v1", "kind": by["kind"], "name": meta["name"], "uid": meta["uid"], "controller": True}]


def replicaset(of: Object) -> Object:
    name = f"{of['metadata']['name']}-{HASH}"
    made = workload("ReplicaSet", name, made_of=of["spec"]["template"])
    return {**made, "metadata": {**made["metadata"], "ownerReferences": controlled(of)}}


def pod(name: str, of: Object | None = None, *, labels: Object | None = None, **spec: Any) -> Object:
    """A running pod of a workload; of a Deployment with its ReplicaSet in between."""
    made = of["spec"]["template"] if of else template("p")
    by = replicaset(of) if of and of["kind"] == "Deployment" else of
    hashed = {"pod-template-hash": HASH} if of and of["kind"] == "Deployment" else {}
    return {
        "kind": "Pod",
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "labels": {**made["metadata"]["labels"], **hashed, **(labels or {})},
            "ownerReferences": controlled(by) if by else [],
        },
        "spec": {"nodeName": "node1", **made["spec"], **spec},
        "status": {
            "phase": "Running",
            "podIP": "10.244.0.9",
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def service(name: str, ports: list[Object] | None = None, selector: Object | None = None) -> Object:
    return {
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "selector": {"app": name} if selector is None else selector,
            "ports": ports or [{"name": "http", "port": 80, "targetPort": 8080}],
        },
    }


def put_workload(fake: FakeApi, made: Object, *pods: str) -> Object:
    """A workload with these pods; the object as it is stored."""
    stored = fake.put(f"{made['kind'].lower()}s", made, group="apps")
    if made["kind"] == "Deployment":
        fake.put("replicasets", replicaset(made), group="apps")
    for name in pods:
        put_pod(fake, pod(name, made))
    return stored


def put_pod(fake: FakeApi, made: Object) -> Object:
    """As the server stores a pod; items of its lists do not say their kind."""
    return fake.put("pods", {key: value for key, value in made.items() if key != "kind"})


async def resolved_b(fake: FakeApi, api: KubeApi, *pods: str, kind: str = "Deployment") -> Resolved:
    """``b`` with these pods, resolved."""
    put_workload(fake, workload(kind), *pods)
    return await resolve(api, parse_target(f"{kind.lower()}/b"), "default")
