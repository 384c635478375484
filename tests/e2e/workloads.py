"""Workloads for intercepts, beside the sample's: every kind, every shape of Service, with and without rights.

They live in a namespace of their own that goes with the tests, because ended sidecars stay in the status of pods.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

from tests.cluster.addresses import CLUSTER_DOMAIN
from tests.cluster.images import SAMPLE_IMAGE
from tests.cluster.manifests import HTTP, SAMPLE, App, Manifest, Port, service, workload
from tests.e2e.accounts import apply
from tests.e2e.conftest import control, kubectl, until

#: A pod that asks: a client inside the cluster.
CLIENT: Final = "client"
_BY_NAME: Final = {app.name: app for app in SAMPLE}
_KINDS: Final = "deployments,statefulsets,replicasets,daemonsets,replicationcontrollers,jobs"
GRPC: Final = Port("grpc", 50051, app_protocol="grpc")


def sample(name: str, **changes: Any) -> App:
    """One of the testbed's own, with changes."""
    return replace(_BY_NAME[name], **changes)


def of(app: App, namespace: str, **pod: Any) -> list[Manifest]:
    """Workload and Service of *app* there, with changes to its pods' spec."""
    made = [workload(app, "sha256:0"), service(app)]
    for each in made:
        each["metadata"]["namespace"] = namespace
    made[0]["spec"]["template"]["spec"] |= pod
    return made


def container(manifest: Manifest) -> Manifest:
    """The only container of a workload's pods."""
    found: Manifest = manifest["spec"]["template"]["spec"]["containers"][0]
    return found


def says_its_pod(manifest: Manifest) -> Manifest:
    """The pods answer their own name."""
    made = container(manifest)
    made["env"] = [{"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    made["args"] = ["--name=$(POD)" if word.startswith("--name=") else word for word in made["args"]]
    return manifest


def as_daemonset(manifest: Manifest) -> Manifest:
    """The same pods on every node."""
    spec = {key: manifest["spec"][key] for key in ("selector", "template")}
    return {**manifest, "kind": "DaemonSet", "spec": spec}


def as_replicaset(manifest: Manifest) -> Manifest:
    """The same without a Deployment."""
    spec = {key: manifest["spec"][key] for key in ("selector", "template", "replicas")}
    return {**manifest, "kind": "ReplicaSet", "spec": spec}


def as_replicationcontroller(manifest: Manifest) -> Manifest:
    """The same pods, of an owner whose kind is none of apps/v1."""
    spec = {key: manifest["spec"][key] for key in ("template", "replicas")}
    selector = manifest["spec"]["selector"]["matchLabels"]
    return {**manifest, "apiVersion": "v1", "kind": "ReplicationController", "spec": {**spec, "selector": selector}}


def as_job(manifest: Manifest) -> Manifest:
    """The same program as a Job that does not end."""
    template = manifest["spec"]["template"]
    made = {**template, "spec": {**template["spec"], "restartPolicy": "Never"}}
    spec = {"parallelism": manifest["spec"]["replicas"], "template": made}
    return {**manifest, "apiVersion": "batch/v1", "kind": "Job", "spec": spec}


def as_pod(manifest: Manifest) -> Manifest:
    """A pod that nothing looks after."""
    template, meta = manifest["spec"]["template"], manifest["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**meta, "labels": template["metadata"]["labels"]},
        "spec": template["spec"],
    }


def client(namespace: str) -> Manifest:
    """A bare pod that asks others."""
    run = {"name": CLIENT, "image": SAMPLE_IMAGE, "imagePullPolicy": "Never", "args": ["--name=client", "--port=8080"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": CLIENT, "namespace": namespace},
        "spec": {"enableServiceLinks": False, "terminationGracePeriodSeconds": 1, "containers": [run]},
    }


def http(name: str, replicas: int = 1, **changes: Any) -> App:
    """A program that answers its name, port 80 → 8080."""
    return App(name, (f"--name={name}", "--port=8080"), (HTTP,), replicas, **changes)


@contextmanager
def namespace(name: str, *manifests: Manifest, labels: dict[str, str] | None = None) -> Iterator[str]:
    """A namespace with these and a client, all of them ready; it goes at the end, and nobody waits for that."""
    kubectl("delete", "namespace", name, "--ignore-not-found")
    meta = {"name": name, "labels": labels or {}}
    apply(json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": meta}))
    try:
        apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": [client(name), *manifests]}))
        ready(name)
        # After a restart of the API server CoreDNS looks again after 30 s at most (client-go's reflector).
        until("the cluster's DNS has all Services", lambda: _resolves(name, *manifests), 45)
        yield name
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


def ready(namespace: str, seconds: int = 60) -> None:
    """Every pod there is ready, and there are as many as wanted."""
    until("all pods are there", lambda: not _missing(namespace), seconds)
    kubectl("-n", namespace, "wait", "--for=condition=Ready", "pod", "--all", f"--timeout={seconds}s")


def _resolves(namespace: str, *manifests: Manifest) -> bool:
    """Those that have an address. For longer than a negative answer stays in a cache: 5 s."""
    services = [each for each in manifests if each["kind"] == "Service" and each["spec"].get("clusterIP") != "None"]
    names = [f"{each['metadata']['name']}.{namespace}.svc.{CLUSTER_DOMAIN}." for each in services]
    script = "import socket, sys; [socket.getaddrinfo(name, None) for name in sys.argv[1:]]"
    asked = control(
        "kubectl", "-n", namespace, "exec", CLIENT, "--", "python3", "-c", f"{script}; print(True)", *names, check=False
    )
    return asked == "True\n"


def _missing(namespace: str) -> list[str]:
    there = json.loads(kubectl("-n", namespace, "get", _KINDS, "-o", "json"))
    return [each["metadata"]["name"] for each in there["items"] if not _complete(each)]


def _complete(made: Manifest) -> bool:
    status = made.get("status") or {}
    if made["kind"] == "DaemonSet":
        return bool(status.get("desiredNumberScheduled", 0) == status.get("currentNumberScheduled") != 0)
    if made["kind"] == "Job":
        return bool(status.get("active", 0) == made["spec"]["parallelism"])
    return bool(status.get("replicas", 0) == made["spec"]["replicas"])
