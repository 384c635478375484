"""The manager has no power (docs/design/0004): what its pod may and may not."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from meshdev.kube.manifest import (
    KEY_DIRECTORY,
    RELAY_DIRECTORY,
    RUN_DIRECTORY,
    ManagerSpec,
    deployment,
    differs,
    is_owned,
    protocol_of,
    service,
    version_of,
)
from meshdev.manager.alive import BEAT_SECONDS, beat
from meshdev.manager.control.container import ControlSettings
from meshdev.manager.control.relay_client import RELAY_SOCKET
from meshdev.manager.relay.control_socket import SOCKET_PATH

SPEC = ManagerSpec("team", "image:1", ("registry",), version="1.2.3", protocol=7)
POD = deployment(SPEC)["spec"]["template"]["spec"]
CONTAINERS = {container["name"]: container for container in POD["containers"]}


def test_no_token_no_host_no_privilege() -> None:
    assert POD["automountServiceAccountToken"] is False
    text = json.dumps(POD)
    for word in ("hostNetwork", "hostPID", "hostPath", "privileged", "serviceAccount", "hostPort"):
        assert f'"{word}"' not in text
    for container in CONTAINERS.values():
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"]["drop"] == ["ALL"]
        # A quota asks for all four; the default of a LimitRange would throttle where there is none.
        assert container["resources"]["requests"].keys() == container["resources"]["limits"].keys() == {"cpu", "memory"}
    assert "ports" not in CONTAINERS["tunnel"]
    assert [port["containerPort"] for port in CONTAINERS["control"]["ports"]] == [15010, 15020]
    assert CONTAINERS["relay"]["ports"] == [{"name": "relay", "containerPort": 15011}]
    assert POD["securityContext"] == {"seccompProfile": {"type": "RuntimeDefault"}}


def test_only_the_tunnel_is_root() -> None:
    assert CONTAINERS["tunnel"]["securityContext"]["capabilities"]["add"] == ["NET_ADMIN", "MKNOD"]
    for name, user in (("control", 65532), ("relay", 65533)):
        security = CONTAINERS[name]["securityContext"]
        assert (security["runAsUser"], security["runAsNonRoot"]) == (user, True)
        assert security["capabilities"] == {"drop": ["ALL"]}


def mounts(name: str) -> dict[str, str]:
    return {each["name"]: each["mountPath"] for each in CONTAINERS[name]["volumeMounts"]}


def test_the_managers_key_is_controls_alone_and_in_memory() -> None:
    assert mounts("control") == {"run": "/run/meshdev", "key": "/run/control", "relay": "/run/relay"}
    assert mounts("tunnel") == {"run": "/run/meshdev"}
    assert mounts("relay") == {"relay": "/run/meshdev"}, "neither the tunnel's socket nor the key"
    assert [(each["name"], each["emptyDir"]["medium"]) for each in POD["volumes"]] == [
        ("run", "Memory"),
        ("key", "Memory"),
        ("relay", "Memory"),
    ]
    # Where they look for them.
    assert str(ControlSettings("uid", "").authority.parent) == KEY_DIRECTORY
    assert (str(RELAY_SOCKET.parent), RELAY_SOCKET.name) == (RELAY_DIRECTORY, SOCKET_PATH.name)
    assert str(SOCKET_PATH.parent) == RUN_DIRECTORY
    environment = {each["name"]: each for each in CONTAINERS["control"]["env"]}
    assert environment["POD_UID"]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.uid"}}


def test_all_event_loops_are_watched_without_haste() -> None:
    for name, container in CONTAINERS.items():
        probe = container["livenessProbe"]
        assert f"{name}.alive" in probe["exec"]["command"][2]
        assert probe["timeoutSeconds"] * probe["failureThreshold"] >= 30, "a busy node is no reason to restart"
        assert probe["periodSeconds"] > 2 * BEAT_SECONDS


@pytest.mark.parametrize("name", ["tunnel", "control", "relay"])
def test_the_probe_tells_a_loop_that_turns_from_one_that_hangs(tmp_path: Path, name: str) -> None:
    command = CONTAINERS[name]["livenessProbe"]["exec"]["command"]
    looks = [word.replace(RUN_DIRECTORY, str(tmp_path)) for word in command]

    def alive() -> bool:
        return subprocess.run(looks, check=False).returncode == 0

    beat(name, tmp_path)
    assert alive()
    assert not alive(), "nothing was touched since"
    os.utime(tmp_path / f"{name}.asked", (1, 1))
    beat(name, tmp_path)
    assert alive()
    assert not alive()


def test_what_runs() -> None:
    assert {name: container["command"][2] for name, container in CONTAINERS.items()} == {
        "tunnel": "meshdev.manager.tunnel",
        "control": "meshdev.manager.control",
        "relay": "meshdev.manager.relay",
    }
    assert {container["image"] for container in CONTAINERS.values()} == {"image:1"}
    assert POD["imagePullSecrets"] == [{"name": "registry"}]
    assert CONTAINERS["tunnel"]["startupProbe"]["periodSeconds"] == 1


def test_one_replica_that_is_replaced_not_rolled() -> None:
    spec = deployment(SPEC)["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})
    assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()


def test_it_does_not_wait_on_a_lost_node_and_keeps_none() -> None:
    template = deployment(SPEC)["spec"]["template"]
    waits = {each["key"]: each["tolerationSeconds"] for each in template["spec"]["tolerations"]}
    assert waits == {"node.kubernetes.io/not-ready": 30, "node.kubernetes.io/unreachable": 30}
    assert {each["effect"] for each in template["spec"]["tolerations"]} == {"NoExecute"}
    assert template["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict"] == "true"


def test_prometheus_finds_controls_metrics_at_the_pods_address() -> None:
    annotations = deployment(SPEC)["spec"]["template"]["metadata"]["annotations"]
    found = {name: value for name, value in annotations.items() if name.startswith("prometheus.io/")}
    assert found == {"prometheus.io/scrape": "true", "prometheus.io/port": "15020", "prometheus.io/path": "/metrics"}
    environment = {each["name"]: each for each in CONTAINERS["control"]["env"]}
    assert environment["POD_IP"]["valueFrom"] == {"fieldRef": {"fieldPath": "status.podIP"}}
    assert "15020" not in json.dumps(service("team", "uid-1")), "not for whoever reaches the Service"


def test_versions_are_read_from_the_deployment_and_its_pods() -> None:
    made = deployment(SPEC)
    for item in (made, made["spec"]["template"]):
        assert (protocol_of(item), version_of(item)) == (7, "1.2.3")
    assert protocol_of({"metadata": {}}) is None
    assert protocol_of({"metadata": {"annotations": {"meshdev.dev/protocol": "x"}}}) is None


def test_what_counts_as_a_difference() -> None:
    made = deployment(SPEC)
    assert not differs(made, SPEC)
    for other in (
        ManagerSpec("team", "image:2", ("registry",), "1.2.3", 7),
        ManagerSpec("team", "image:1", (), "1.2.3", 7),
        ManagerSpec("team", "image:1", ("registry",), "1.2.4", 7),
    ):
        assert differs(made, other)


def test_the_service_leads_to_control_and_relay_and_goes_with_the_deployment() -> None:
    made = service("team", "uid-1")
    template = deployment(SPEC)["spec"]["template"]["metadata"]
    assert made["spec"]["selector"].items() <= template["labels"].items()
    assert made["spec"]["publishNotReadyAddresses"] is True
    assert made["spec"]["ports"] == [
        {"name": "control", "port": 15010, "targetPort": 15010},
        {"name": "relay", "port": 15011, "targetPort": 15011},
    ]
    assert is_owned(made, "uid-1")
    assert not is_owned(made, "uid-2")
    assert "blockOwnerDeletion" not in made["metadata"]["ownerReferences"][0]
