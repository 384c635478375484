"""Targets that cannot be intercepted, known from the objects alone: refused before anything is touched. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from meshdev.config import MANAGER_LABELS
from meshdev.errors import InterceptError

Object = Mapping[str, Any]

#: Containers of others that redirect a pod's traffic, by the name their injectors give them.
_MESHES: Final = {
    "istio-proxy": "Istio",
    "istio-init": "Istio",
    "linkerd-proxy": "Linkerd",
    "linkerd-init": "Linkerd",
    "kuma-sidecar": "Kuma",
    "kuma-init": "Kuma",
    "consul-dataplane": "Consul",
    "consul-connect-inject-init": "Consul",
    "osm-init": "Open Service Mesh",
    "nginx-mesh-sidecar": "NGINX Service Mesh",
    "traffic-agent": "Telepresence",
    "tel-agent-init": "Telepresence",
}
#: Meshes that redirect from outside of the pod, and mark it with an annotation.
_AMBIENT: Final = {"ambient.istio.io/redirection": ("enabled", "Istio (ambient)")}
#: The kubelet's mark on the mirror of a static pod (k8s.io/kubernetes/pkg/kubelet/types).
_MIRROR: Final = "kubernetes.io/config.mirror"


def refuse_pods(what: str, pods: Iterable[Object]) -> None:
    """Raise InterceptError where a pod (or a template: it has the same ``metadata`` and ``spec``) cannot be joined."""
    for pod in pods:
        found = _reason(pod.get("metadata") or {}, pod["spec"])
        if found is not None:
            raise InterceptError(f"{what} cannot be intercepted: {found[0]}", hint=found[1])


def refuse_patch(what: str, workload: Object) -> None:
    """Raise InterceptError where a change of the template would not reach the pods."""
    kind, spec = workload["kind"], workload["spec"]
    why = None
    if kind == "Pod":
        why = "the containers of a pod cannot be changed"
    elif kind == "Service":
        why = "a Service has no template, and the owners of its pods are of kinds that meshdev does not change"
    elif kind == "ReplicaSet":
        why = "a ReplicaSet does not replace its pods when it is changed"
    elif spec.get("paused"):
        why = "its rollouts are paused"
    elif (spec.get("updateStrategy") or {}).get("type") == "OnDelete":
        why = "its update strategy is OnDelete"
    elif ((spec.get("updateStrategy") or {}).get("rollingUpdate") or {}).get("partition"):
        why = "its update strategy has a partition, so some pods would stay as they are"
    if why is not None:
        raise InterceptError(
            f"{what} cannot be intercepted by a patch: {why}", hint="--strategy ephemeral joins the pods that run"
        )


def _reason(metadata: Object, spec: Object) -> tuple[str, str | None] | None:
    annotations, labels = metadata.get("annotations") or {}, metadata.get("labels") or {}
    owners = {owner.get("kind") for owner in metadata.get("ownerReferences") or []}
    if all(labels.get(name) == value for name, value in MANAGER_LABELS.items()):
        return "it is meshdev's own manager", None
    if spec.get("hostNetwork"):
        return "its pods use the node's network (hostNetwork): a redirect there would hit the node", None
    if _MIRROR in annotations or "Node" in owners:
        return "it is a static pod: the kubelet takes it from a file, the API server cannot change it", None
    if (spec.get("os") or {}).get("name") == "windows":
        return "its pods run Windows", None
    mesh = mesh_of(metadata, spec)
    if mesh is not None:
        return f"{mesh} redirects the traffic of its pods already", f"take the pods out of {mesh} first"
    return None


def mesh_of(metadata: Object, spec: Object) -> str | None:
    """The service mesh that redirects the traffic of such a pod, by its name for people."""
    annotations = metadata.get("annotations") or {}
    for name, (value, mesh) in _AMBIENT.items():
        if annotations.get(name) == value:
            return mesh
    containers = [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]
    return next((_MESHES[each["name"]] for each in containers if each["name"] in _MESHES), None)
