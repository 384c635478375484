"""Which fields of the kubeconfig and of Kubernetes objects may be in a bug report: a list of what is allowed. PURE.

Whatever is not listed is left out, so that a field that nobody thought of is no leak. Environment variables have their
names only, except those of a sidecar that are addresses; of an app's containers there is the state, and nothing that
the app may have written: no message of a termination, of a probe, or of an event of its.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Union

from meshdev.kube.manifest import CONTROL_CONTAINER, RELAY_CONTAINER, TUNNEL_CONTAINER
from meshdev.kube.replicas import (
    EPHEMERAL_NAME,
    MANAGER_VARIABLE,
    NAMESPACE_VARIABLE,
    TEMPLATE_CONTAINER,
    WORKLOAD_VARIABLE,
)

#: Allowed keys of an object, or of each in a list; None: a number, a text, a truth value, or a list of these.
Shape = Mapping[str, Union["Shape", None]]
Object = Mapping[str, Any]

#: Variables of a sidecar whose values are harmless: the manager's address and namespace, and a uid.
_HARMLESS: Final = frozenset({MANAGER_VARIABLE, NAMESPACE_VARIABLE, WORKLOAD_VARIABLE})
_OF_MANAGER: Final = frozenset({TUNNEL_CONTAINER, CONTROL_CONTAINER, RELAY_CONTAINER})
#: Of a user in the kubeconfig: how it proves who it is.
_CREDENTIALS: Final = (
    *("token", "tokenFile", "username", "password", "client-certificate", "client-certificate-data"),
    *("client-key", "client-key-data", "exec", "auth-provider"),
)


def _keys(*names: str) -> Shape:
    return dict.fromkeys(names)


_OWNERS: Final[Shape] = _keys("kind", "name", "controller")
_META: Final[Shape] = {
    **_keys("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "generation"),
    "ownerReferences": _OWNERS,
}
_CONDITIONS: Final[Shape] = _keys("type", "status", "reason", "message", "lastTransitionTime")
_STATE: Final[Shape] = {
    "running": _keys("startedAt"),
    "waiting": _keys("reason"),
    "terminated": _keys("exitCode", "signal", "reason", "startedAt", "finishedAt"),
}
_STATUS: Final[Shape] = {
    **_keys("name", "ready", "started", "restartCount"),
    "state": _STATE,
    "lastState": _STATE,
}
#: Of a container of ours also its image, and in its own words why it waits or has ended.
_OUR_STATE: Final[Shape] = {
    **_STATE,
    "waiting": _keys("reason", "message"),
    "terminated": _keys("exitCode", "signal", "reason", "message", "startedAt", "finishedAt"),
}
_OUR_STATUS: Final[Shape] = {
    **_STATUS,
    **_keys("image", "imageID", "containerID"),
    "state": _OUR_STATE,
    "lastState": _OUR_STATE,
}
_SECURITY: Final[Shape] = {
    **_keys("runAsUser", "runAsGroup", "runAsNonRoot", "privileged", "allowPrivilegeEscalation"),
    **_keys("readOnlyRootFilesystem"),
    "capabilities": _keys("add", "drop"),
    "seccompProfile": _keys("type"),
    "appArmorProfile": _keys("type"),
}
_AMOUNTS: Final[Shape] = _keys("cpu", "memory")
_CONTAINER: Final[Shape] = {
    **_keys("name", "image", "imagePullPolicy", "restartPolicy"),
    "ports": _keys("name", "containerPort", "protocol"),
    "resources": {"requests": _AMOUNTS, "limits": _AMOUNTS},
    "securityContext": _SECURITY,
}
_POD: Final[Shape] = {
    **_keys("nodeName", "hostNetwork", "shareProcessNamespace", "restartPolicy", "runtimeClassName", "dnsPolicy"),
    "securityContext": _keys("runAsUser", "runAsGroup", "runAsNonRoot", "fsGroup"),
    "imagePullSecrets": _keys("name"),
}
_POD_STATUS: Final[Shape] = {
    **_keys("phase", "reason", "podIP", "hostIP", "startTime", "qosClass"),
    "conditions": _keys("type", "status", "reason", "lastTransitionTime"),
}
_DEPLOYMENT: Final[Shape] = {
    "metadata": _META,
    "spec": {"replicas": None, "strategy": _keys("type")},
    "status": {
        **_keys("observedGeneration", "replicas", "readyReplicas", "updatedReplicas", "unavailableReplicas"),
        "conditions": _CONDITIONS,
    },
}
_LEASE: Final[Shape] = {
    "metadata": _META,
    "spec": _keys("holderIdentity", "leaseDurationSeconds", "acquireTime", "renewTime"),
}
_EVENT: Final[Shape] = {
    **_keys("type", "reason", "count", "firstTimestamp", "lastTimestamp", "eventTime"),
    "involvedObject": _keys("kind", "name", "namespace", "fieldPath"),
    "source": _keys("component", "host"),
}
_CLUSTER: Final[Shape] = _keys("server", "tls-server-name", "insecure-skip-tls-verify")
_CONTEXT: Final[Shape] = _keys("cluster", "user", "namespace")


def only(value: object, shape: Shape | None) -> Any:  # noqa: ANN401 -- JSON
    """What *shape* allows of *value*; None where that is of another form."""
    if isinstance(value, list):
        return [only(each, shape) for each in value]
    if shape is None:
        return value if isinstance(value, str | int | float) else None
    if not isinstance(value, Mapping):
        return None
    return {key: only(value[key], inner) for key, inner in shape.items() if key in value}


def manager_deployment(found: Object) -> Object:
    """The manager's Deployment, with its containers."""
    template = (found.get("spec") or {}).get("template") or {}
    return {**only(found, _DEPLOYMENT), "template": _spec(template.get("spec") or {}, _OF_MANAGER.__contains__)}


def manager_pod(found: Object) -> Object:
    """A pod of the manager's."""
    return _pod(found, _OF_MANAGER.__contains__)


def workload_pod(found: Object) -> Object:
    """A pod of an intercepted workload: of the app's containers name and state."""
    return _pod(found, is_sidecar)


def lease(found: Object) -> Object:
    """A Lease of ours, without what its annotations say of the match."""
    allowed: Object = only(found, _LEASE)
    return allowed


def event(found: Object) -> Object:
    """An event; with its message only where that is of Kubernetes or of a container of ours."""
    allowed: dict[str, Any] = only(found, _EVENT)
    path = str((found.get("involvedObject") or {}).get("fieldPath") or "")
    container = path.partition("{")[2].rstrip("}")
    if not path or is_sidecar(container) or container in _OF_MANAGER:
        allowed["message"] = only(found.get("message"), None)
    return allowed


def is_sidecar(name: str) -> bool:
    """Whether a container of that name is one of ours in somebody's pod."""
    return name == TEMPLATE_CONTAINER or EPHEMERAL_NAME.fullmatch(name) is not None


def kubeconfig(merged: Object, context: str) -> Object:
    """The context that is used, its cluster and user: names, the server, and of credentials which kinds there are."""
    chosen = (merged.get("contexts") or {}).get(context) or {}
    cluster = (merged.get("clusters") or {}).get(chosen.get("cluster")) or {}
    user = (merged.get("users") or {}).get(chosen.get("user")) or {}
    numbers = {section: len(merged.get(section) or {}) for section in ("contexts", "clusters", "users")}
    return {
        "entries": numbers,
        "context": {"name": context, **only(chosen, _CONTEXT)},
        "cluster": {
            **only(cluster, _CLUSTER),
            "has": sorted(key for key in cluster if key not in _CLUSTER and isinstance(key, str)),
        },
        "user": {"has": sorted(key for key in _CREDENTIALS if user.get(key))},
    }


def secrets_of(merged: Object) -> frozenset[str]:
    """The credentials in the kubeconfig, of all users: they are masked wherever they are found."""
    found: set[object] = set()
    for user in (merged.get("users") or {}).values():
        found |= {user.get(key) for key in ("token", "password", "client-key-data")}
        found |= {each.get("value") for each in (user.get("exec") or {}).get("env") or []}
        provider = user.get("auth-provider")
        found |= set(((provider if isinstance(provider, Mapping) else {}).get("config") or {}).values())
    return frozenset(each for each in found if isinstance(each, str))


def _pod(found: Object, ours: Any) -> Object:  # noqa: ANN401 -- Callable[[str], bool]; a method of a set is none to mypy
    status = found.get("status") or {}
    statuses = {
        key: [only(each, _OUR_STATUS if ours(each.get("name") or "") else _STATUS) for each in status.get(key) or []]
        for key in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses")
    }
    return {
        "metadata": only(found.get("metadata") or {}, _META),
        "spec": _spec(found.get("spec") or {}, ours),
        "status": {**only(status, _POD_STATUS), **statuses},
    }


def _spec(found: Object, ours: Any) -> Object:  # noqa: ANN401 -- as above
    lists = ("containers", "initContainers", "ephemeralContainers")
    containers = {key: [_container(each, ours) for each in found.get(key) or []] for key in lists if found.get(key)}
    return {**only(found, _POD), **containers}


def _container(found: Object, ours: Any) -> Object:  # noqa: ANN401 -- as above
    if not ours(found.get("name") or ""):
        return {"name": only(found.get("name"), None)}
    return {**only(found, _CONTAINER), "env": _environment(found.get("env") or [])}


def _environment(variables: Sequence[Object]) -> list[Object]:
    return [
        only(each, _keys("name", "value") if each.get("name") in _HARMLESS else _keys("name")) for each in variables
    ]
