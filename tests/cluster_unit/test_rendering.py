"""Manifests, configuration files, hashes and versions."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import addresses as plan
from tests.cluster import components, manifests, network, packages, pki
from tests.cluster.components import Programs
from tests.cluster.hashing import text_hash, tree_hash
from tests.cluster.kinds import DEFAULT, OTHER, PROXY_MODES, ClusterKind

SUPPORT = Path("/cache/newest")
PROGRAMS = Programs(Path("/cache/kubebox"), SUPPORT)
KINDS = pytest.mark.parametrize("kind", [DEFAULT, OTHER], ids=["default", "other"])


def items() -> dict[tuple[str, str], dict[str, Any]]:
    listed = json.loads(manifests.render(manifests.everything(SUPPORT, "d" * 64)))["items"]
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


def test_services_that_up_waits_for_have_an_address_and_are_ours() -> None:
    def listed(namespace: str, name: str, address: str, *ports: tuple[int, str]) -> dict[str, Any]:
        spec = {"clusterIP": address, "ports": [{"port": port, "protocol": protocol} for port, protocol in ports]}
        return {"metadata": {"namespace": namespace, "name": name}, "spec": spec}

    services = [
        listed("default", "b", "10.96.0.3", (80, "TCP"), (9090, "UDP")),
        listed("default", "db", "None", (5432, "TCP")),
        listed("default", "kubernetes", "10.96.0.1", (443, "TCP")),
        listed("team-1", "b", "10.96.0.4", (80, "TCP")),
        listed("kube-system", "kube-dns", "10.96.0.10", (53, "UDP")),
    ]
    assert manifests.service_ports(services) == ["10.96.0.3:80/TCP", "10.96.0.3:9090/UDP", "10.96.0.10:53/UDP"]


@KINDS
def test_configuration_is_valid_and_inside_our_folders(kind: ClusterKind) -> None:
    files = components.configuration_files(kind)
    for path, content in files.items():
        assert "meshdev-testbed" in str(path)
        if path.suffix in {".yaml", ".conflist"}:
            json.loads(content)
    for node in plan.nodes(kind):
        plugins = components.cni(node, kind)["plugins"]
        assert [plugin["type"] for plugin in plugins] == ["bridge", "tuning", "portmap"]
        assert plugins[0]["mtu"] == 1450
        assert plugins[0]["ipMasq"] is (kind.nodes == 1)


@KINDS
def test_daemons_start_in_order(kind: ClusterKind) -> None:
    assert tuple(components.daemons(kind, PROGRAMS)) == components.names(kind)


def test_names_of_components() -> None:
    first = ("containerd", "etcd", "apiserver", "controller-manager", "scheduler", "kubelet", "kube-proxy")
    assert components.names(DEFAULT) == first
    assert set(components.names(OTHER)) - set(first) == {"containerd2", "kubelet2", "kube-proxy2"}


def test_components_of_node_2_run_there_with_files_of_their_own() -> None:
    daemons = components.daemons(OTHER, PROGRAMS)
    for name in ("containerd", "kubelet", "kube-proxy"):
        assert daemons[name].enter == ("nsenter", "--net=/run/netns/meshdev-node", "--")
        assert daemons[f"{name}2"].enter == ("nsenter", "--net=/run/netns/meshdev-node2", "--")
    config = components.kubelet(plan.Node(2))
    assert config["containerRuntimeEndpoint"] == "unix:///run/meshdev-testbed/containerd2/containerd.sock"
    assert config["cgroupRoot"] == "/meshdev-testbed/node2"
    names = {identity.name: identity for identity in pki.identities(OTHER)}
    assert config["tlsCertFile"].endswith("/kubelet2.crt")
    assert names["kubelet2"].subject == "/O=system:nodes/CN=system:node:node2"
    assert "kubelet2" not in {identity.name for identity in pki.identities(DEFAULT)}


def test_etcd_and_coredns_are_of_the_newest_version() -> None:
    daemons = components.daemons(OTHER, PROGRAMS)
    assert [name for name, daemon in daemons.items() if daemon.argv[0] == str(SUPPORT)] == ["etcd"]
    assert f'"path": "{SUPPORT}"' in manifests.render(manifests.everything(SUPPORT, "d" * 64))


def test_kube_proxy_runs_in_the_mode_asked_for() -> None:
    assert components.kube_proxy(OTHER)["mode"] == "iptables"
    one, other = (components.daemons(kind, PROGRAMS)["kube-proxy"].fingerprint for kind in (DEFAULT, OTHER))
    assert one != other


@pytest.mark.parametrize("mode", PROXY_MODES)
def test_kube_proxy_masquerades_all_where_that_is_asked_for(mode: str) -> None:
    kind = ClusterKind(kube_proxy=mode)
    masquerading = replace(kind, masquerade_all=True)
    assert "masqueradeAll" not in json.dumps(components.kube_proxy(kind))
    assert components.kube_proxy(masquerading)[mode] == {"masqueradeAll": True}
    one, other = (components.daemons(each, PROGRAMS)["kube-proxy"].fingerprint for each in (kind, masquerading))
    assert one != other
    assert network.fingerprint(kind) == network.fingerprint(masquerading)


def test_another_program_is_another_fingerprint() -> None:
    programs = [Programs(Path(name), SUPPORT) for name in ("/a", "/b")]
    one, other = (components.daemons(DEFAULT, program)["kubelet"].fingerprint for program in programs)
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
