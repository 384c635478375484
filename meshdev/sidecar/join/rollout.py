"""How far a rollout is, as the workload and its pods report it. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from meshdev.errors import ClusterError, ImageError
from meshdev.kube.podstate import Waiting, replica_failure
from meshdev.kube.replicas import TEMPLATE_CONTAINER
from meshdev.kube.startup import CRASHES, IMAGE_REASONS, START_REASONS, Where, hint_for

Object = Mapping[str, Any]

_POD_SECURITY_HINT: Final = "the sidecar needs the capability NET_ADMIN, which the namespace's Pod Security refuses"


def progress_of(workload: Object, pods: Iterable[Object]) -> str | None:
    """What it waits for; None when every pod is of the present template.

    Raises ImageError, ClusterError or AdmissionError where waiting is of no use, with the pods' own messages.
    """
    if (workload.get("status") or {}).get("observedGeneration", 0) < workload["metadata"]["generation"]:
        return "its controller has not seen the change yet"
    failure = replica_failure(dict(workload), _POD_SECURITY_HINT) if workload["kind"] == "Deployment" else None
    reasons = [found for pod in pods if (found := _pod(pod)) is not None]
    total, updated, ready, there = _counts(workload)
    if updated >= total and ready >= total and there == total:
        return None
    if isinstance(failure, Waiting):
        return failure.reason
    return reasons[0] if reasons else f"{min(updated, ready)} of {total} pods are replaced"


def _counts(workload: Object) -> tuple[int, int, int, int]:
    """How many pods there shall be, are of the present template, are available, and are there."""
    spec, status = workload["spec"], workload.get("status") or {}
    if workload["kind"] == "DaemonSet":
        names = ("desiredNumberScheduled", "updatedNumberScheduled", "numberAvailable", "desiredNumberScheduled")
        total, updated, ready, there = (status.get(name) or 0 for name in names)
        return total, updated, ready, there
    total = spec.get("replicas", 1)
    updated, there = status.get("updatedReplicas") or 0, status.get("replicas") or 0
    if workload["kind"] == "StatefulSet" and status.get("updateRevision") == status.get("currentRevision"):
        updated = total  # the controller stops counting when it is done
    return total, updated, status.get("availableReplicas") or 0, there


def _pod(pod: Object) -> str | None:
    """Why it is not ready, None where it is or gives no reason."""
    name, status = pod["metadata"]["name"], pod.get("status") or {}
    if pod["metadata"].get("deletionTimestamp"):
        return f"pod {name} is terminating"
    for each in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (each.get("state") or {}).get("waiting") or {}
        reason = waiting.get("reason") or ""
        text = f"container {each['name']} of pod {name}: {waiting.get('message') or reason}"
        ours = each["name"] == TEMPLATE_CONTAINER
        message = waiting.get("message") or ""
        if ours and (reason in IMAGE_REASONS or reason == CRASHES or reason in START_REASONS):
            raise _failure(pod, reason, message, text)
        if reason and reason not in {"PodInitializing", "ContainerCreating"}:
            return text
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"pod {name} is not scheduled: {condition.get('message') or condition.get('reason')}"
    return None


def _failure(pod: Object, reason: str, message: str, text: str) -> ClusterError:
    containers = pod["spec"].get("initContainers") or []
    image = next((each.get("image") or "" for each in containers if each["name"] == TEMPLATE_CONTAINER), "")
    where = Where(pod["metadata"].get("namespace") or "", pod["metadata"]["name"], TEMPLATE_CONTAINER, image, "patch")
    hint = hint_for(reason, message, where)
    if reason in IMAGE_REASONS:
        return ImageError(f"the sidecar's image cannot be pulled: {text}", hint=hint)
    return ClusterError(f"the sidecar cannot start: {text}", hint=hint)
