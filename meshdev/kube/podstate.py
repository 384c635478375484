"""What a manager pod says about itself: running, waiting for something, or failed for a reason. Pure."""

from dataclasses import dataclass
from typing import Any, Final

from meshdev.errors import AdmissionError, ClusterError, ImageError, ManagerError
from meshdev.kube.manifest import TUNNEL_CONTAINER, protocol_of, version_of

Object = dict[str, Any]

#: k8s.io/kubernetes/pkg/kubelet/images/types.go, all but the ones that pass by themselves.
IMAGE_REASONS: Final = {
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
    "SignatureValidationFailed",
}
#: k8s.io/kubernetes/pkg/kubelet/kuberuntime/kuberuntime_container.go and container/sync_result.go.
START_REASONS: Final = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
#: k8s.io/kubernetes/pkg/kubelet/util/manager/watch_based_manager.go: the node's authorizer may refuse the kubelet a
#: Secret because it does not know the new pod yet. The kubelet asks again, 12-16 s later.
_PASSES: Final = "failed to sync secret cache"

_POD_SECURITY_HINT: Final = (
    "the manager needs the capabilities NET_ADMIN and MKNOD; it can run in a namespace that allows them: "
    "--manager-namespace"
)
_ELSEWHERE_HINT: Final = "ask who runs the cluster, or put the manager into another namespace: --manager-namespace"


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
    """The pod's state. Raises ImageError or ManagerError with the pod's own words where waiting does not help."""
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


def cannot_start(reason: str, message: str) -> bool:
    """Whether that is why a container waits, and does not pass by itself."""
    return reason in START_REASONS and not message.startswith(_PASSES)


def _waiting(pod: Object, container: Object, waiting: Object) -> Waiting:
    name, reason, message = pod["metadata"]["name"], waiting.get("reason") or "", waiting.get("message") or ""
    if reason in IMAGE_REASONS:
        raise ImageError(
            f"the image of the manager cannot be had: {message or reason}",
            hint=f"the image is {_image(pod)}; another one: --image; a private registry: --image-pull-secret",
        )
    if cannot_start(reason, message):
        raise ManagerError(f"the manager's pod {name} cannot start: {message or reason}")
    if reason == "CrashLoopBackOff":
        last = (container.get("lastState") or {}).get("terminated") or {}
        raise ManagerError(
            f"the manager's pod {name} starts and ends again: {_end(last)}",
            hint=f"kubectl -n {pod['metadata']['namespace']} logs {name} -c {TUNNEL_CONTAINER} --previous",
        )
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
    only an id by which nobody can ask for it; there it is what the pod's spec says.
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
    return replica_failure(deployment, _POD_SECURITY_HINT)


def replica_failure(deployment: Object, hint: str | None = None) -> Waiting | None:
    """Why its pods cannot be created. Raises AdmissionError verbatim where they are refused, with *hint* for Pod
    Security.
    """
    status = deployment.get("status") or {}
    if status.get("observedGeneration") != deployment["metadata"].get("generation"):
        return None  # the conditions speak of what was before
    for condition in status.get("conditions") or []:
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            message = condition.get("message") or "the pod cannot be created"
            if "forbidden" in message or "denied" in message:
                hint = _POD_SECURITY_HINT if "PodSecurity" in message else _ELSEWHERE_HINT
                raise AdmissionError(message, hint=hint)
            return Waiting(message)
    return None
