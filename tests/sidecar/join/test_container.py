"""The sidecar's container, word for word."""

from meshdev.sidecar.join.container import container, native
from meshdev.wire.attestation import ASSIGNED_PORTS, PORT_VARIABLE, assigned_port
from tests.sidecar.join.conftest import SPEC


def test_an_ephemeral_one() -> None:
    assert container(SPEC, "meshdev-1", {}) == {
        "name": "meshdev-1",
        "image": "sidecar:1",
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "meshdev.sidecar.agent"],
        "env": [
            {"name": "MESHDEV_WORKLOAD_UID", "value": "uid-b"},
            {"name": "MESHDEV_MANAGER", "value": "10.96.0.5:15010"},
            {"name": "MESHDEV_MANAGER_NAMESPACE", "value": "default"},
            {"name": "MESHDEV_ATTESTATION_PORT", "value": "16201"},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
            {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        ],
        "securityContext": {
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": False,
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def test_each_ephemeral_one_of_a_pod_has_a_port_of_its_own() -> None:
    ports = [_variable(f"meshdev-{number}") for number in range(1, 101)]
    assert len(set(ports)) == len(ports)
    assert {assigned_port(port or "") for port in ports} == set(ASSIGNED_PORTS)
    assert _variable("meshdev") is None, "one that is started again has another key"


def _variable(name: str) -> str | None:
    return next((each["value"] for each in container(SPEC, name, {})["env"] if each["name"] == PORT_VARIABLE), None)


def test_a_native_one_has_requests_and_limits() -> None:
    made = native(SPEC, {})
    assert (made["name"], made["restartPolicy"]) == ("meshdev", "Always")
    assert {kind: set(each) for kind, each in made["resources"].items()} == {
        "requests": {"cpu", "memory"},
        "limits": {"cpu", "memory"},
    }
    assert made["env"].pop() == {"name": "MESHDEV_STAYS", "value": "1"}
    assert {key: value for key, value in made.items() if key not in {"name", "restartPolicy", "resources"}} == {
        key: value for key, value in container(SPEC, "x", {}).items() if key != "name"
    }
