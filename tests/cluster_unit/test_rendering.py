"""Manifests, configuration files, hashes and versions."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import components, manifests, packages
from tests.cluster.hashing import text_hash, tree_hash

KUBEBOX = Path("/cache/kubebox")


def items() -> dict[tuple[str, str], dict[str, Any]]:
    listed = json.loads(manifests.render(manifests.everything(KUBEBOX, "d" * 64)))["items"]
    return {(item["kind"], item["metadata"]["name"]): item for item in listed}


def test_everything_of_the_contract_is_there() -> None:
    found = items()
    for name in ("a", "b", "c", "udp-echo", "tcp-first", "grpc", "ws", "named", "nonroot", "bulk"):
        assert ("Deployment", name) in found
        assert ("Service", name) in found
    assert ("StatefulSet", "db") in found
    assert found["Service", "db"]["spec"]["clusterIP"] == "None"
    assert found["Deployment", "b"]["spec"]["replicas"] == 2
    for name in ("team-1", "team-2", "psa-baseline", "psa-restricted"):
        assert ("Namespace", name) in found


def test_services_lead_to_ports_that_exist() -> None:
    found = items()
    for app in manifests.SAMPLE:
        container = found[app.kind, app.name]["spec"]["template"]["spec"]["containers"][0]
        known = {port["containerPort"] for port in container["ports"]} | {port["name"] for port in container["ports"]}
        assert {port["targetPort"] for port in found["Service", app.name]["spec"]["ports"]} <= known


def test_the_chain() -> None:
    port = items()["Service", "a"]["spec"]["ports"][0]
    assert (port["name"], port["port"], port["targetPort"]) == ("http", 80, 8080)
    args = items()["Deployment", "a"]["spec"]["template"]["spec"]["containers"][0]["args"]
    assert "--next=http://b/" in args


def test_target_port_by_name() -> None:
    assert items()["Service", "named"]["spec"]["ports"][0]["targetPort"] == "web"


def test_nonroot_is_set_on_the_pod() -> None:
    pod = items()["Deployment", "nonroot"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True


def test_a_changed_image_changes_the_templates() -> None:
    one, other = (manifests.workload(manifests.SAMPLE[0], digest * 64) for digest in "ab")
    assert one["spec"]["template"] != other["spec"]["template"]


def test_unready_compares_generation_and_counts() -> None:
    def listed(ready: int, observed: int) -> list[dict[str, Any]]:
        status = {"replicas": 2, "updatedReplicas": 2, "readyReplicas": ready, "observedGeneration": observed}
        metadata = {"namespace": "default", "name": "b", "generation": 3}
        return [{"kind": "Deployment", "metadata": metadata, "spec": {"replicas": 2}, "status": status}]

    b = ("default", "deployment/b")
    assert b not in manifests.unready(listed(2, 3))
    assert b in manifests.unready(listed(1, 3))
    assert b in manifests.unready(listed(2, 2))
    assert ("kube-system", "deployment/coredns") in manifests.unready([])


def test_configuration_is_valid_and_inside_our_folders() -> None:
    files = components.configuration_files()
    for path, content in files.items():
        assert "meshdev-testbed" in str(path)
        if path.suffix in {".yaml", ".conflist"}:
            json.loads(content)
    plugins = [plugin["type"] for plugin in components.cni()["plugins"]]
    assert plugins == ["bridge", "tuning", "portmap"]
    assert components.cni()["plugins"][0]["mtu"] == 1450


def test_daemons_start_in_order() -> None:
    assert tuple(components.daemons(KUBEBOX)) == components.NAMES


def test_another_program_is_another_fingerprint() -> None:
    one, other = (components.daemons(Path(name))["kubelet"].fingerprint for name in ("/a", "/b"))
    assert one != other


def test_tree_hash(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("1")
    before = tree_hash(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "one.pyc").write_text("x")
    assert tree_hash(tmp_path) == before
    (tmp_path / "one.py").chmod(0o755)
    executable = tree_hash(tmp_path)
    assert executable != before
    (tmp_path / "one.py").write_text("2")
    assert tree_hash(tmp_path) not in {before, executable}
    assert tree_hash(tmp_path / "missing") == tree_hash(tmp_path / "also-missing")


def test_text_hash_keeps_parts_apart() -> None:
    assert text_hash(["a", "b"]) != text_hash(["ab"])
    assert text_hash(["a", ""]) != text_hash(["a"])


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("go version go1.26.8 linux/amd64", (1, 26)),
        ("go version go1.25 linux/amd64", (1, 25)),
        ("go version devel linux/amd64", (0, 0)),
        ("go version gopher", (0, 0)),
        ("", (0, 0)),
    ],
)
def test_go_version(text: str, version: tuple[int, int]) -> None:
    assert packages.go_version(text) == version
