"""What a bug report says of the cluster: our objects, the pods that they are in, and the logs of our containers."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from meshdev.config import FIELD_MANAGER, MANAGER_LABELS, MANAGER_NAME
from meshdev.errors import ClusterError, MeshdevError
from meshdev.gather import allowed
from meshdev.gather.parts import Files, Reasons
from meshdev.intercept.target import parse_target
from meshdev.kube import logs
from meshdev.kube.client import KubeApi, deployments_path, leases_path, pods_path
from meshdev.kube.errors import NotFoundError
from meshdev.kube.logs import ContainerLog, WantedLines
from meshdev.kube.watching import as_is, listed
from meshdev.kube.workloads import is_of, pods_query, resolve
from meshdev.wire.log_lines import LogLine

Object = Mapping[str, Any]

_MANAGER: Final = {"labelSelector": ",".join(f"{name}={value}" for name, value in sorted(MANAGER_LABELS.items()))}
_OURS: Final = {"labelSelector": f"app.kubernetes.io/managed-by={FIELD_MANAGER}"}
#: Fields of the answer to /version that say what runs there.
_VERSION: Final = ("gitVersion", "platform")
#: The most events of a namespace that are looked through, and the newest of them that are taken.
_LISTED_EVENTS: Final = 3000
_MAX_EVENTS: Final = 100
#: Of each log its end.
MAX_LINES: Final = 3000
_MAX_BYTES: Final = 2 << 20


async def manager(api: KubeApi, namespace: str, reasons: Reasons) -> Files:
    """The API server's version, the manager's Deployment, its pods, and what happened to them."""
    version = await _object(api, "/version", reasons)
    deployment = await _object(api, deployments_path(namespace, MANAGER_NAME), reasons)
    found: dict[str, Any] = {
        "version": {key: version.get(key) for key in _VERSION},
        "namespace": namespace,
        "deployment": allowed.manager_deployment(deployment) if deployment else None,
    }
    pods, _ = await listed(api, pods_path(namespace), _MANAGER, as_is)
    found["pods"] = [allowed.manager_pod(pod) for pod in pods.values()]
    names = {MANAGER_NAME, *(pod["metadata"]["name"] for pod in pods.values())}
    found["events"] = await _events(
        api, namespace, lambda name: name in names or name.startswith(MANAGER_NAME), reasons
    )
    return {"cluster/manager.json": found}


async def workloads(api: KubeApi, targets: Sequence[tuple[str, str]], reasons: Reasons) -> Files:
    """The pods of what is intercepted from here (or was named), and the Leases of their namespaces."""
    found: dict[str, Any] = {}
    for target, namespace in targets:
        try:
            found[f"cluster/workloads/{namespace}/{target.replace('/', '-')}.json"] = await _workload(
                api, target, namespace, reasons
            )
        except MeshdevError as error:
            reasons.note(error)
    return found


async def leases(api: KubeApi, namespaces: Sequence[str], reasons: Reasons) -> Files:
    """The Leases of meshdev in those namespaces."""
    found: list[Object] = []
    for namespace in namespaces:
        try:
            items, _ = await listed(api, leases_path(namespace), _OURS, as_is)
            found += [allowed.lease(each) for each in items.values()]
        except MeshdevError as error:
            reasons.note(error)
    return {"cluster/leases.json": found}


async def manager_logs(api: KubeApi, namespace: str, reasons: Reasons) -> Files:
    """Of the manager's containers."""
    return await _logs(api, await logs.manager_logs(api, namespace), reasons)


async def sidecar_logs(api: KubeApi, targets: Sequence[tuple[str, str]], reasons: Reasons) -> Files:
    """Of the sidecars in those workloads' pods."""
    found: dict[str, Any] = {}
    for target, namespace in targets:
        try:
            resolved = await resolve(api, parse_target(target), namespace)
            found |= await _logs(api, await logs.sidecar_logs(api, resolved), reasons)
        except MeshdevError as error:
            reasons.note(error)
    return found


def log_text(lines: Sequence[LogLine]) -> str:
    """As a file: each line with its time, as `meshdev logs --timestamps` has it."""
    return "\n".join(f"{each.time or '-'} {each.line}" for each in lines)


async def _logs(api: KubeApi, found: Sequence[ContainerLog], reasons: Reasons) -> Files:
    """What they have written, and their instances before the last restart."""
    files: dict[str, str] = {}
    for log in found:
        path = f"logs/{log.namespace}/{log.source}"
        try:
            files[f"{path}.txt"] = log_text(await logs.read(api, log, WantedLines(MAX_LINES, most=_MAX_BYTES)))
        except ClusterError as error:
            reasons.note(error)
        with suppress(ClusterError):  # mostly there is none
            former = await logs.read(api, log, WantedLines(MAX_LINES, previous=True, most=_MAX_BYTES))
            files[f"{path}.previous.txt"] = log_text(former)
    return files


async def _workload(api: KubeApi, target: str, namespace: str, reasons: Reasons) -> Object:
    resolved = await resolve(api, parse_target(target), namespace)
    workload = resolved.workload
    pods, _ = await listed(api, pods_path(namespace), pods_query(resolved), as_is)
    mine = [pod for pod in pods.values() if is_of(workload, pod)]
    names = {workload.name, *(pod["metadata"]["name"] for pod in mine)}
    return {
        "workload": str(workload),
        "namespace": namespace,
        "pods": [allowed.workload_pod(pod) for pod in mine],
        "events": await _events(api, namespace, names.__contains__, reasons),
    }


async def _object(api: KubeApi, path: str, reasons: Reasons) -> Object:
    """Empty, with the reason noted, where it cannot be read."""
    try:
        return await api.get(path)
    except MeshdevError as error:
        reasons.note(error)
        return {}


async def _events(api: KubeApi, namespace: str, about: Callable[[str], bool], reasons: Reasons) -> list[Object]:
    """Those about objects of such names, where events may be listed."""
    try:
        page = await api.get(f"/api/v1/namespaces/{namespace}/events", {"limit": str(_LISTED_EVENTS)})
    except NotFoundError:
        return []
    except MeshdevError as error:
        reasons.note(error)
        return []
    items = page.get("items") or []
    found = [each for each in items if about(str((each.get("involvedObject") or {}).get("name")))]
    return [allowed.event(each) for each in sorted(found, key=_when)[-_MAX_EVENTS:]]


def _when(event: Object) -> str:
    return str(event.get("lastTimestamp") or event.get("eventTime") or event.get("firstTimestamp") or "")
