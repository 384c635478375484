"""The manager's Deployment and Service (docs/design/0004), and how their annotations and owners are read. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from meshdev.config import (
    CONTROL_PORT,
    CONTROL_UID,
    MANAGER_LABELS,
    MANAGER_NAME,
    METRICS_PATH,
    METRICS_PORT,
    PROTOCOL,
    RELAY_UID,
    RELAYS_PORT,
    VERSION,
)

VERSION_ANNOTATION: Final = "meshdev.dev/version"
PROTOCOL_ANNOTATION: Final = "meshdev.dev/protocol"
TUNNEL_CONTAINER: Final = "tunnel"
CONTROL_CONTAINER: Final = "control"
RELAY_CONTAINER: Final = "relay"

RUN_DIRECTORY: Final = "/run/meshdev"
READY_FILE: Final = f"{RUN_DIRECTORY}/ready"
#: In memory: of the tunnel's socket, of control's key, which nobody else mounts, and of the relay's socket. They
#: outlive a container, not the pod.
_RUN_VOLUME: Final = "run"
_KEY_VOLUME: Final = "key"
_RELAY_VOLUME: Final = "relay"
#: Where control has them.
KEY_DIRECTORY: Final = "/run/control"
RELAY_DIRECTORY: Final = "/run/relay"

#: Until the manager is replaced whose node is lost, counted from when the cluster notices (40 to 50 s after it fell
#: silent). By default it would be 300: to move a manager costs its sessions a second or two, to wait costs them all.
LOST_NODE_SECONDS: Final = 30

Object = dict[str, Any]


@dataclass(frozen=True)
class ManagerSpec:
    """What of the manager can be chosen."""

    namespace: str
    image: str
    pull_secrets: tuple[str, ...] = ()
    version: str = VERSION
    protocol: int = PROTOCOL


def deployment(spec: ManagerSpec) -> Object:
    """The Deployment as it is created."""
    annotations = {VERSION_ANNOTATION: spec.version, PROTOCOL_ANNOTATION: str(spec.protocol)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": MANAGER_NAME,
            "namespace": spec.namespace,
            "labels": dict(MANAGER_LABELS),
            "annotations": annotations,
        },
        "spec": {
            "replicas": 1,
            "revisionHistoryLimit": 1,
            "strategy": {"type": "Recreate"},  # session addresses and relays exist once
            "selector": {"matchLabels": dict(MANAGER_LABELS)},
            "template": {
                "metadata": {
                    # A service mesh's sidecar would redirect what the tunnel sends on behalf of the laptop.
                    "labels": {**MANAGER_LABELS, "sidecar.istio.io/inject": "false"},
                    "annotations": {
                        **annotations,
                        "linkerd.io/inject": "disabled",
                        # Its volume would keep the autoscaler from emptying the node; sessions follow it elsewhere.
                        "cluster-autoscaler.kubernetes.io/safe-to-evict": "true",
                        "kubectl.kubernetes.io/default-container": TUNNEL_CONTAINER,
                        # What the usual configuration of Prometheus for pods looks for.
                        "prometheus.io/scrape": "true",
                        "prometheus.io/port": str(METRICS_PORT),
                        "prometheus.io/path": METRICS_PATH,
                    },
                },
                "spec": _pod(spec),
            },
        },
    }


def _pod(spec: ManagerSpec) -> Object:
    pod: Object = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 10,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [
            {"key": f"node.kubernetes.io/{lost}", "operator": "Exists", "effect": "NoExecute"}
            | {"tolerationSeconds": LOST_NODE_SECONDS}
            for lost in ("not-ready", "unreachable")
        ],
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [_tunnel(spec), _control(spec), _relay(spec)],
        "volumes": [
            {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": size}}
            for name, size in ((_RUN_VOLUME, "16Mi"), (_KEY_VOLUME, "1Mi"), (_RELAY_VOLUME, "1Mi"))
        ],
    }
    if spec.pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in spec.pull_secrets]
    return pod


def _tunnel(spec: ManagerSpec) -> Object:
    """Root for the TUN device alone: no token, no other capability, nothing to write but /dev (a tmpfs) and /run."""
    ready = {"exec": {"command": ["test", "-e", READY_FILE]}}
    return {
        **_container(spec, TUNNEL_CONTAINER, {_RUN_VOLUME: RUN_DIRECTORY}),
        "securityContext": {
            **_SECURITY,
            "runAsUser": 0,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "MKNOD"]},
        },
        "startupProbe": {**ready, "periodSeconds": 1, "failureThreshold": 60},
        "readinessProbe": {**ready, "periodSeconds": 10},
        "livenessProbe": _alive(TUNNEL_CONTAINER),
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}},
    }


def _control(spec: ManagerSpec) -> Object:
    volumes = {_RUN_VOLUME: RUN_DIRECTORY, _KEY_VOLUME: KEY_DIRECTORY, _RELAY_VOLUME: RELAY_DIRECTORY}
    container = _container(spec, CONTROL_CONTAINER, volumes)
    container["env"] += [
        {"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},  # where metrics are served
        {"name": "GRPC_VERBOSITY", "value": "ERROR"},  # or each handshake that fails, whoever's, is a line of the log
    ]
    return {
        **container,
        "securityContext": _powerless(CONTROL_UID),
        "livenessProbe": _alive(CONTROL_CONTAINER),
        # For sidecars, whose certificates a session vouched for; and for Prometheus.
        "ports": [
            {"name": CONTROL_CONTAINER, "containerPort": CONTROL_PORT},
            {"name": "metrics", "containerPort": METRICS_PORT},
        ],
        # With 1,024 agents 180 MiB, 65 KiB for the connection of each Envoy, and 128 MiB of reports (docs/design/0023).
        "resources": {"requests": {"cpu": "10m", "memory": "96Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}},
    }


def _relay(spec: ManagerSpec) -> Object:
    """It has no folder but the one of its socket, where control connects."""
    return {
        **_container(spec, RELAY_CONTAINER, {_RELAY_VOLUME: RUN_DIRECTORY}),
        "securityContext": _powerless(RELAY_UID),
        "livenessProbe": _alive(RELAY_CONTAINER),
        "ports": [{"name": RELAY_CONTAINER, "containerPort": RELAYS_PORT}],  # for Envoys with certificates of control
        # 4,096 connections take 200 MiB.
        "resources": {"requests": {"cpu": "10m", "memory": "48Mi"}, "limits": {"cpu": "1", "memory": "320Mi"}},
    }


def _powerless(user: int) -> Object:
    return {**_SECURITY, "runAsNonRoot": True, "runAsUser": user, "capabilities": {"drop": ["ALL"]}}


def _alive(container: str) -> Object:
    """Three times in a row within half a minute its event loop has not turned (meshdev.manager.alive).

    A probe that the node has no time for fails too: so 10 s each, and three. A process that hangs gets 3 s to end.
    """
    look = f"cd {RUN_DIRECTORY}; [ ! -e {container}.asked ] || [ {container}.alive -nt {container}.asked ]"
    return {
        "exec": {"command": ["sh", "-c", f"{look}; alive=$?; touch {container}.asked; exit $alive"]},
        "periodSeconds": 10,
        "timeoutSeconds": 10,
        "failureThreshold": 3,
        "terminationGracePeriodSeconds": 3,
    }


_SECURITY: Final = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}


def _container(spec: ManagerSpec, name: str, volumes: Mapping[str, str]) -> Object:
    """What all have, and where their *volumes* are.

    The limits of their CPUs are what one thread can use, so they slow nothing down; without one a quota on
    ``limits.cpu`` refuses the pod, and the default of a LimitRange would throttle the tunnel for all on it.
    """
    return {
        "name": name,
        "image": spec.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", f"meshdev.manager.{name}"],
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
        ],
        "volumeMounts": [{"name": volume, "mountPath": path} for volume, path in volumes.items()],
        "terminationMessagePolicy": "FallbackToLogsOnError",  # so that a crash is reported with its own message
    }


def service(namespace: str, owner: str) -> Object:
    """The Service by which sidecars find control, owned by the Deployment with the uid *owner*.

    A sidecar's environment never changes, while each new manager pod has another address. IPv4, as relays are; before
    the pod is ready, since a sidecar that has lost its manager ends after a minute.
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": MANAGER_NAME,
            "namespace": namespace,
            "labels": dict(MANAGER_LABELS),
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": MANAGER_NAME, "uid": owner}],
        },
        "spec": {
            "type": "ClusterIP",
            "selector": dict(MANAGER_LABELS),
            "ipFamilyPolicy": "SingleStack",
            "ipFamilies": ["IPv4"],
            "publishNotReadyAddresses": True,
            "ports": [
                {"name": name, "port": port, "targetPort": port}
                for name, port in ((CONTROL_CONTAINER, CONTROL_PORT), (RELAY_CONTAINER, RELAYS_PORT))
            ],
        },
    }


def is_ours(item: Mapping[str, Any]) -> bool:
    """Whether an object of the manager's name is the manager's."""
    labels = item["metadata"].get("labels") or {}
    return all(labels.get(name) == value for name, value in MANAGER_LABELS.items())


def is_owned(item: Mapping[str, Any], owner: str) -> bool:
    """Whether the object is deleted with the one whose uid is *owner*."""
    return any(each.get("uid") == owner for each in item["metadata"].get("ownerReferences") or [])


def protocol_of(item: Mapping[str, Any]) -> int | None:
    """The tunnel protocol a Deployment or pod of the manager was made for, None if unknown."""
    text = (item["metadata"].get("annotations") or {}).get(PROTOCOL_ANNOTATION, "")
    return int(text) if text.isascii() and text.isdecimal() else None


def version_of(item: Mapping[str, Any]) -> str:
    """The meshdev version a Deployment or pod of the manager was made by, empty if unknown."""
    return str((item["metadata"].get("annotations") or {}).get(VERSION_ANNOTATION, ""))


def differs(existing: Mapping[str, Any], spec: ManagerSpec) -> bool:
    """Whether replacing *existing* by *spec* would change what runs."""
    pod = existing["spec"]["template"]["spec"]
    images = {container.get("image") for container in pod.get("containers") or []}
    secrets = tuple(secret.get("name") for secret in pod.get("imagePullSecrets") or [])
    versions = (version_of(existing), protocol_of(existing))
    return images != {spec.image} or secrets != spec.pull_secrets or versions != (spec.version, spec.protocol)
