"""The state of a manager pod: running, waiting for something, or failed for a reason. Pure."""

from dataclasses import dataclass
from typing import Any, Final

from meshdev.errors import AdmissionError, ClusterError, ImageError, ManagerError
from meshdev.kube.errors import admission_hint
from meshdev.kube.manifest import TUNNEL_CONTAINER, protocol_of, version_of
from meshdev.kube.startup import CRASHES, IMAGE_REASONS, START_REASONS, Where, hint_for

Object = dict[str, Any]

_POD_SECURITY_HINT: Final = (
    "the manager needs the capabilities NET_ADMIN and MKNOD; it can run in a namespace that allows them: "
    "--manager-namespace"
)
_ELSEWHERE_HINT: Final = "or put the manager into another namespace: --manager-namespace"


@dataclass(frozen=True)
class ManagerPod:
    """A running manager pod. *image* is what sidecars run to be the same: its digest, where a registry has it."""

    namespace: str
    name: str
    uid: str
    address: str
    node: str
    protocol: int | None
    version: str
    image: str


@dataclass(frozen=True)
class Waiting:
    """Not there yet, and why: a sentence for people."""

    reason: str


def examine(pod: Object) -> ManagerPod | Waiting:
    """The pod's state. Raises ImageError or ManagerError with the pod's own reason where waiting does not help."""
    meta, status = pod["metadata"], pod.get("status") or {}
    name = meta["name"]
    if meta.get("deletionTimestamp"):
        return Waiting(f"pod {name} is terminating")
    if status.get("phase") == "Failed":
        return Waiting(f"pod {name} failed: {status.get('message') or status.get('reason') or 'no reason given'}")
    container = _container(status)
    state = container.get("state") or {}
    if "running" in state:
        return ManagerPod(
            meta["namespace"],
            name,
            meta["uid"],
            status.get("podIP") or "",
            pod["spec"].get("nodeName") or "",
            protocol_of(pod),
            version_of(pod),
            _runs(pod, container),
        )
    if "terminated" in state:
        return Waiting(f"pod {name} ended and is started again: {_end(state['terminated'])}")
    return _waiting(pod, container, state.get("waiting") or {})


def _waiting(pod: Object, container: Object, waiting: Object) -> Waiting:
    name, reason, message = pod["metadata"]["name"], waiting.get("reason") or "", waiting.get("message") or ""
    hint = hint_for(
        reason, message, Where(pod["metadata"]["namespace"], name, TUNNEL_CONTAINER, _image(pod), "manager")
    )
    if reason in IMAGE_REASONS:
        raise ImageError(f"the image of the manager cannot be had: {message or reason}", hint=hint)
    if reason in START_REASONS:
        raise ManagerError(f"the manager's pod {name} cannot start: {message or reason}", hint=hint)
    if reason == CRASHES:
        last = (container.get("lastState") or {}).get("terminated") or {}
        raise ManagerError(f"the manager's pod {name} starts and ends again: {_end(last)}", hint=hint)
    for condition in (pod.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return Waiting(f"pod {name} is not scheduled: {condition.get('message') or condition.get('reason')}")
    return Waiting(f"pod {name} starts{f' ({reason})' if reason else ''}")


def _container(status: Object) -> Object:
    for container in status.get("containerStatuses") or []:
        if container.get("name") == TUNNEL_CONTAINER:
            found: Object = container
            return found
    return {}


def _runs(pod: Object, status: Object) -> str:
    """``repository@sha256:…`` as the node resolved it. An image that was put on the node by hand has no repository,
    only an id by which it cannot be pulled; then it is the image of the pod's spec.
    """
    resolved = str(status.get("imageID") or "").removeprefix("docker-pullable://")
    if "@sha256:" in resolved:
        return resolved
    return next((each["image"] for each in pod["spec"]["containers"] if each["name"] == TUNNEL_CONTAINER), "")


def _image(pod: Object) -> str:
    return ", ".join(sorted({container.get("image", "") for container in pod["spec"].get("containers") or []}))


def _end(terminated: Object) -> str:
    message = (terminated.get("message") or "").strip()
    return message or f"{terminated.get('reason') or 'ended'}, exit code {terminated.get('exitCode', 'unknown')}"


def examine_deployment(deployment: Object) -> Waiting | None:
    """Why there may be no pod at all. Raises AdmissionError verbatim where pods are refused, ClusterError at zero."""
    if deployment["spec"].get("replicas") == 0:
        meta = deployment["metadata"]
        raise ClusterError(
            f"the manager in namespace {meta['namespace']} is scaled to zero",
            hint=f"kubectl -n {meta['namespace']} scale deployment {meta['name']} --replicas 1",
        )
    return replica_failure(deployment, _POD_SECURITY_HINT, elsewhere=_ELSEWHERE_HINT)


def replica_failure(deployment: Object, pod_security: str, elsewhere: str | None = None) -> Waiting | None:
    """Why its pods cannot be created. Raises AdmissionError verbatim where they are refused.

    *pod_security* is the hint where it is Pod Security that refuses, *elsewhere* for the other policies.
    """
    status = deployment.get("status") or {}
    if status.get("observedGeneration") != deployment["metadata"].get("generation"):
        return None  # the conditions speak of what was before
    for condition in status.get("conditions") or []:
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            message = condition.get("message") or "the pod cannot be created"
            if "forbidden" in message or "denied" in message:
                hint = admission_hint(message, deployment["metadata"].get("namespace") or "")
                raise AdmissionError(
                    message, hint=pod_security if "PodSecurity" in message else _either(hint, elsewhere)
                )
            return Waiting(message)
    return None


def _either(hint: str, elsewhere: str | None) -> str:
    return f"{hint}; {elsewhere}" if elsewhere else hint
