"""The state of a workload's pod, and of a sidecar of ours in it. Pure."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from meshdev.kube.startup import IMAGE_REASONS, START_REASONS
from meshdev.wire.attestation import PORT_VARIABLE, assigned_port
from meshdev.wire.session_intercepts import Strategy

Object = Mapping[str, Any]

#: Ephemeral containers are ``meshdev-1``, ``meshdev-2``, …; in a template it is the one ``meshdev``.
TEMPLATE_CONTAINER: Final = "meshdev"
EPHEMERAL_NAME: Final = re.compile(r"meshdev-([1-9][0-9]{0,5})")
#: The variables that hold the address of a sidecar's manager.
MANAGER_VARIABLE: Final = "MESHDEV_MANAGER"
NAMESPACE_VARIABLE: Final = "MESHDEV_MANAGER_NAMESPACE"
#: And the one with its workload's uid. Sidecars of before protocol 4, whose agents identified themselves by a token,
#: have none: it had another name (MESHDEV_WORKLOAD). They serve nobody any more.
WORKLOAD_VARIABLE: Final = "MESHDEV_WORKLOAD_UID"


@dataclass(frozen=True)
class Sidecar:
    """One of ours. *reason* is the pod's own message about why it does not run.

    *failed*: it could not be started, for its image or what it refers to; the kubelet goes on trying.
    """

    name: str
    how: Strategy
    state: Literal["starting", "running", "ended"]
    manager: str
    manager_namespace: str
    image: str
    reason: str = ""
    failed: bool = False
    workload: str = ""
    """The uid of the workload that it was made for."""
    cause: str = ""
    """Kubernetes' own name for why it waits, as ``ErrImagePull``; *reason* has the sentence."""
    instance: str = ""
    """The id of the container that runs; one that is started again has another."""
    attestation_port: int = 0
    """Where its agent is asked before the log can be read; 0 where only the log names the port."""

    @property
    def alive(self) -> bool:
        """It runs, or may."""
        return self.state != "ended"

    def serves(self, manager: str, image: str, workload: str) -> bool:
        """It is for this manager and workload; one that could not be started does not keep out another *image*."""
        same = (self.manager, self.workload) == (manager, workload)
        return self.alive and same and not (self.failed and self.image != image)


@dataclass(frozen=True)
class Replica:
    """One pod. *ready* is its Ready condition; *leaving* means that it is being deleted; *sidecars* are ours, alive.

    *ended* counts the ones that are not: they stay in the pod for good. *stuck* is why the pod has no node, or why one
    of its containers waits.
    """

    namespace: str
    name: str
    uid: str
    address: str
    node: str
    ready: bool
    leaving: bool
    sidecars: tuple[Sidecar, ...] = ()
    ended: int = 0
    stuck: str = ""

    def to_join(self, manager: str, image: str, workload: str) -> bool:
        """It is on a node, stays, and no sidecar serves this manager and workload. It need not run yet."""
        served = any(each.serves(manager, image, workload) for each in self.sidecars)
        return bool(self.node) and not self.leaving and not served


def replica(pod: Object) -> Replica:
    """The state of *pod*."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    conditions = {each.get("type"): each.get("status") for each in status.get("conditions") or []}
    ours = tuple(sidecars(pod))
    return Replica(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        address=status.get("podIP") or "",
        node=pod["spec"].get("nodeName") or "",
        ready=conditions.get("Ready") == "True",
        leaving=bool(metadata.get("deletionTimestamp")),
        sidecars=tuple(each for each in ours if each.alive),
        ended=sum(not each.alive for each in ours),
        stuck=_stuck(status),
    )


def _stuck(status: Object) -> str:
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"it is not scheduled: {condition.get('message') or condition.get('reason') or 'no reason given'}"
    for each in status.get("containerStatuses") or []:
        reason = ((each.get("state") or {}).get("waiting") or {}).get("reason")
        if reason and reason not in {"ContainerCreating", "PodInitializing"}:
            return f"its container {each['name']} waits: {reason}"
    return ""


def sidecars(pod: Object) -> Iterator[Sidecar]:
    """All of ours, the newest ephemeral one first; ended ones among them, which stay in the pod for good."""
    spec, status = pod["spec"], pod.get("status") or {}
    states = _statuses(status.get("initContainerStatuses"))
    for container in spec.get("initContainers") or []:
        if container["name"] == TEMPLATE_CONTAINER and container.get("restartPolicy") == "Always":
            yield _sidecar(container, "patch", states.get(TEMPLATE_CONTAINER, {}))
    states = _statuses(status.get("ephemeralContainerStatuses"))
    for container in reversed(spec.get("ephemeralContainers") or []):
        if EPHEMERAL_NAME.fullmatch(container["name"]) and _variable(container, MANAGER_VARIABLE):
            yield _sidecar(container, "ephemeral", states.get(container["name"], {}))


def finished(pod: Object) -> bool:
    """It ran to its end and will not serve again."""
    return (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}


def free_name(pod: Object) -> str:
    """The first ``meshdev-N`` that no container of the pod has."""
    lists = ("containers", "initContainers", "ephemeralContainers")
    taken = {container["name"] for each in lists for container in pod["spec"].get(each) or []}
    number = 1
    while f"meshdev-{number}" in taken:
        number += 1
    return f"meshdev-{number}"


def _sidecar(container: Object, how: Strategy, status: Object) -> Sidecar:
    state = status.get("state") or {}
    waiting, terminated = state.get("waiting") or {}, state.get("terminated") or {}
    reason = waiting.get("reason") or ""
    text = waiting.get("message") or terminated.get("message") or reason or terminated.get("reason") or ""
    ended = bool(terminated) and how == "ephemeral"  # the kubelet starts one of a template again
    return Sidecar(
        name=container["name"],
        how=how,
        state="running" if "running" in state else "ended" if ended else "starting",
        manager=_variable(container, MANAGER_VARIABLE),
        manager_namespace=_variable(container, NAMESPACE_VARIABLE),
        image=container.get("image") or "",
        reason=text.strip(),
        failed=reason in IMAGE_REASONS | START_REASONS,
        workload=_variable(container, WORKLOAD_VARIABLE),
        cause=reason,
        attestation_port=assigned_port(_variable(container, PORT_VARIABLE)),
        instance=(status.get("containerID") or "") if "running" in state else "",
    )


def _statuses(statuses: list[Object] | None) -> dict[str, Object]:
    return {each["name"]: each for each in statuses or []}


def _variable(container: Object, name: str) -> str:
    return next((each.get("value") or "" for each in container.get("env") or [] if each["name"] == name), "")
