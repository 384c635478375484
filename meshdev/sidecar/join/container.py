"""The sidecar's container, the same for an ephemeral one and one of a template. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from meshdev.kube.replicas import (
    EPHEMERAL_NAME,
    MANAGER_VARIABLE,
    NAMESPACE_VARIABLE,
    TEMPLATE_CONTAINER,
    WORKLOAD_VARIABLE,
)
from meshdev.sidecar.agent.settings import STAYS_VARIABLE
from meshdev.sidecar.probes import PROBES_VARIABLE, encoded, probes
from meshdev.wire.attestation import ASSIGNED_PORTS, PORT_VARIABLE

Object = dict[str, Any]

COMMAND: Final = ("python3", "-m", "meshdev.sidecar.agent")

#: The downward API (core/v1: EnvVarSource.fieldRef); ephemeral containers may use it, too.
_POD: Final = {
    "POD_NAME": "metadata.name",
    "POD_UID": "metadata.uid",
    "POD_NAMESPACE": "metadata.namespace",
    "POD_IP": "status.podIP",
}
#: NET_ADMIN for the nft table, and nothing else (docs/security.md). User 0, because a capability that is added to a
#: container is effective for root only; the pod's own runAsNonRoot would refuse that.
_SECURITY: Final[Object] = {
    "runAsUser": 0,
    "runAsGroup": 0,
    "runAsNonRoot": False,
    "privileged": False,
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}
#: Agent, worker and Envoy take 123 MB (docs/design/0020). A limit on the CPU only where a quota asks for one: high
#: enough not to slow requests down.
_RESOURCES: Final[Object] = {
    "requests": {"cpu": "50m", "memory": "128Mi"},
    "limits": {"cpu": "2", "memory": "384Mi"},
}


@dataclass(frozen=True)
class SidecarSpec:
    """What sidecars of one manager have in common. *manager* is ``host:port``, *workload* the uid of theirs."""

    image: str
    manager: str
    manager_namespace: str
    workload: str
    command: tuple[str, ...] = COMMAND


def container(spec: SidecarSpec, name: str, pod: Mapping[str, Any]) -> Object:
    """As an ephemeral container: those have neither resources nor ports nor probes.

    The sidecar gets the probes of *pod* (or a template): the kubelet's requests go to the original.
    """
    found = probes(pod)
    port = _assigned_port(name)
    return {
        "name": name,
        "image": spec.image,
        "imagePullPolicy": "IfNotPresent",
        "command": list(spec.command),
        "env": [
            {"name": WORKLOAD_VARIABLE, "value": spec.workload},
            {"name": MANAGER_VARIABLE, "value": spec.manager},
            {"name": NAMESPACE_VARIABLE, "value": spec.manager_namespace},
            *([{"name": PORT_VARIABLE, "value": str(port)}] if port else []),
            *([{"name": PROBES_VARIABLE, "value": encoded(found)}] if found else []),
            *({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in _POD.items()),
        ],
        "securityContext": _SECURITY,
        "terminationMessagePolicy": "FallbackToLogsOnError",  # so that a crash is reported with its own message
    }


def _assigned_port(name: str) -> int:
    """Another for each ephemeral container of a pod; 0 for one of a template, which may start again."""
    number = EPHEMERAL_NAME.fullmatch(name)
    return ASSIGNED_PORTS[int(number[1]) % len(ASSIGNED_PORTS)] if number else 0


def native(spec: SidecarSpec, template: Mapping[str, Any]) -> Object:
    """As a native sidecar of a template (KEP-753: an init container that is restarted always)."""
    made = container(spec, TEMPLATE_CONTAINER, template)
    stays = {"name": STAYS_VARIABLE, "value": "1"}
    return {**made, "env": [*made["env"], stays], "restartPolicy": "Always", "resources": _RESOURCES}
