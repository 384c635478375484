"""Who the clients of a service are: pods by their addresses, and the workloads that these belong to."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from ipaddress import AddressValueError, IPv4Address
from typing import NamedTuple

from meshdev.errors import MeshdevError
from meshdev.kube.client import KubeApi, Object
from meshdev.kube.watching import follow

#: These never have an address that is theirs alone again (pod phases of the core/v1 API).
_ENDED = frozenset({"Succeeded", "Failed"})


class ClientPod(NamedTuple):
    """A pod that may be a client; *workload* as people name it."""

    addresses: tuple[IPv4Address, ...]
    workload: str


class WorkloadPod(NamedTuple):
    """A pod of *workload*: the addresses that are its own, and how it counts there, as kubectl counts it."""

    addresses: tuple[IPv4Address, ...]
    workload: str
    ready: bool
    counts: bool
    """It has not ended, and is not about to."""


def workload_of(pod: Object) -> str:
    """The workload that a pod says it belongs to: ``deployment/b``; without an owner itself, ``pod/x``.

    The owner of a ReplicaSet is its Deployment where the name is made of the template's hash, as Deployments do.
    """
    meta = pod["metadata"]
    owner = next((each for each in meta.get("ownerReferences") or [] if each.get("controller")), None)
    if owner is None:
        return f"pod/{meta['name']}"
    kind, name = owner["kind"].lower(), owner["name"]
    suffix = f"-{(meta.get('labels') or {}).get('pod-template-hash')}"
    if kind == "replicaset" and name.endswith(suffix):
        return f"deployment/{name.removesuffix(suffix)}"
    return f"{kind}/{name}"


def client_pod(pod: Object) -> ClientPod:
    """Its IPv4 addresses, and whose pod it is. None of one that shares its node's address, or has ended."""
    status = pod.get("status") or {}
    if pod["spec"].get("hostNetwork") or status.get("phase") in _ENDED:
        return ClientPod((), "")
    found = []
    for each in status.get("podIPs") or []:
        try:
            found.append(IPv4Address(each.get("ip", "")))
        except AddressValueError:
            continue  # of the other family
    return ClientPod(tuple(found), workload_of(pod) if found else "")


def workload_pod(pod: Object) -> WorkloadPod:
    """Its workload also where it has no address of its own."""
    status = pod.get("status") or {}
    conditions = status.get("conditions") or []
    ready = any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)
    counts = status.get("phase") not in _ENDED and "deletionTimestamp" not in pod["metadata"]
    return WorkloadPod(client_pod(pod).addresses, workload_of(pod), ready and counts, counts)


async def watch_workload_pods(
    api: KubeApi, namespace: str, trouble: Callable[[MeshdevError], None]
) -> AsyncGenerator[Mapping[str, WorkloadPod]]:
    """The pods of that namespace by uid, whenever they change; the mapping is live.

    Never ends by itself. Raises ForbiddenError where pods may not be listed; what a retry may cure goes to *trouble*.
    """
    path = f"/api/v1/namespaces/{namespace}/pods"
    async with aclosing(follow(api, path, {}, workload_pod, trouble)) as states:
        async for state in states:
            yield state


async def watch_clients(
    api: KubeApi, namespace: str, trouble: Callable[[MeshdevError], None]
) -> AsyncGenerator[Mapping[IPv4Address, str]]:
    """Workloads by the addresses of their pods in that namespace, whenever these change.

    Never ends by itself. Raises ForbiddenError where pods may not be listed; what a retry may cure goes to *trouble*.
    """
    async with aclosing(watch_workload_pods(api, namespace, trouble)) as states:
        async for state in states:
            yield {address: pod.workload for pod in state.values() for address in pod.addresses}
