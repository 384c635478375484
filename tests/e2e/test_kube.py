"""The Kubernetes side on a real API server: credentials, certificates, RBAC, admission, the manager's start and end."""

import base64
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from meshdev.config import MANAGER_NAME, PROTOCOL
from tests.e2e.conftest import Laptop, control, kubectl
from tests.e2e.test_portforward import probe

pytestmark = pytest.mark.cluster

NAMESPACE: Final = "kube-tests"
IMAGE: Final = "localhost/meshdev-traffic-manager:dev"


@pytest.fixture(scope="module")
def namespace(cluster: None) -> Iterator[str]:  # noqa: ARG001 -- for its effect
    """A namespace of its own with two service accounts: ``dev`` and ``nobody``."""
    kubectl("create", "namespace", NAMESPACE)
    for name in ("dev", "nobody"):
        kubectl("-n", NAMESPACE, "create", "serviceaccount", name)
    yield NAMESPACE
    kubectl("delete", "namespace", NAMESPACE)


class Files:
    """Makes kubeconfigs from the laptop's own."""

    def __init__(self, laptop: Laptop, folder: Path) -> None:
        self._config: dict[str, Any] = json.loads(laptop.ok("cat", "/root/.kube/config"))
        self._folder = folder

    def write(self, user: Mapping[str, Any] | None = None, cluster: Mapping[str, Any] | None = None) -> str:
        """With another user, and changes to the cluster; None removes a key."""
        config = json.loads(json.dumps(self._config))
        if user is not None:
            config["users"][0]["user"] = user
        merged = {**config["clusters"][0]["cluster"], **(cluster or {})}
        config["clusters"][0]["cluster"] = {key: value for key, value in merged.items() if value is not None}
        path = self._folder / "config"
        path.write_text(json.dumps(config))
        return str(path)


@pytest.fixture
def files(laptop: Laptop, tmp_path: Path) -> Files:
    return Files(laptop, tmp_path)


def token(account: str) -> str:
    return kubectl("-n", NAMESPACE, "create", "token", account).strip()


def sees_pods(laptop: Laptop, kubeconfig: str, namespace: str = "default") -> bool:
    return isinstance(probe(laptop, "pods", namespace, kubeconfig=kubeconfig).get("ok"), int)


def error_of(laptop: Laptop, *arguments: str, kubeconfig: str = "-") -> dict[str, Any]:
    error: dict[str, Any] = probe(laptop, *arguments, kubeconfig=kubeconfig)["error"]
    return error


# -- who and where ---------------------------------------------------------------------------------------------------


def test_a_foreign_authority_is_not_trusted(laptop: Laptop, files: Files, tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "/dev/null", "-subj", "/CN=other"]
    subprocess.run([*command, "-out", str(authority)], check=True, capture_output=True)
    other = {"certificate-authority-data": base64.b64encode(authority.read_bytes()).decode()}
    for arguments in (("pods", "default"), ("reach", "spdy", "7003")):
        error = error_of(laptop, *arguments, kubeconfig=files.write(cluster=other))
        assert (error["kind"], error["code"]) == ("UntrustedError", "untrusted")
        assert "https://172.30.0.2:6443 is not trusted" in error["message"]
    skipping = files.write(cluster={"certificate-authority-data": None, "insecure-skip-tls-verify": True})
    assert probe(laptop, "reach", "spdy", "7003", kubeconfig=skipping) == {"ok": "answered"}


def test_the_servers_name_can_be_given(laptop: Laptop, files: Files) -> None:
    right = files.write(cluster={"tls-server-name": "kubernetes.default.svc"})
    assert probe(laptop, "reach", "websocket", "7003", kubeconfig=right) == {"ok": "answered"}
    wrong = files.write(cluster={"tls-server-name": "another.example"})
    assert error_of(laptop, "pods", "default", kubeconfig=wrong)["kind"] == "UntrustedError"
    assert error_of(laptop, "reach", "spdy", "7003", kubeconfig=wrong)["kind"] == "UntrustedError"


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ("https://172.30.0.2:1", "connection refused"),
        ("https://no-such-name.example.test:6443", "cannot be resolved"),
        ("https://192.0.2.1:6443", "no route to host"),
    ],
)
def test_a_server_that_cannot_be_reached(laptop: Laptop, files: Files, server: str, words: str) -> None:
    error = error_of(laptop, "pods", "default", kubeconfig=files.write(cluster={"server": server}))
    assert error["kind"] == "UnreachableError"
    assert server in error["message"]
    assert words in error["message"]


def test_an_exec_plugin_gives_the_token(laptop: Laptop, files: Files, tmp_path: Path, namespace: str) -> None:
    kubectl(
        "-n", namespace, "create", "rolebinding", "dev-views", "--clusterrole=view", f"--serviceaccount={namespace}:dev"
    )
    plugin, runs = tmp_path / "plugin", tmp_path / "runs"
    status = json.dumps({"token": token("dev")})
    plugin.write_text(f"#!/bin/sh\necho x >> {runs}\necho '{{\"status\": {status}}}'\n")
    plugin.chmod(0o755)
    user = {"exec": {"command": "./plugin", "apiVersion": "client.authentication.k8s.io/v1"}}
    assert sees_pods(laptop, files.write(user), namespace)
    assert runs.read_text() == "x\n"
    plugin.write_text("#!/bin/sh\necho 'please log in' >&2\nexit 1\n")
    error = error_of(laptop, "pods", namespace, kubeconfig=files.write(user))
    assert (error["kind"], error["message"].endswith("failed: please log in")) == ("CredentialError", True)


def test_a_token_file_and_a_token_that_is_none(laptop: Laptop, files: Files, tmp_path: Path, namespace: str) -> None:
    (tmp_path / "token").write_text(token("nobody") + "\n")
    error = error_of(laptop, "pods", namespace, kubeconfig=files.write({"tokenFile": "token"}))
    assert error["kind"] == "ForbiddenError"
    assert f"system:serviceaccount:{namespace}:nobody" in error["message"]
    for arguments in (("pods", namespace), ("absent", "spdy")):
        error = error_of(laptop, *arguments, kubeconfig=files.write({"token": "none"}))
        assert error["kind"] == "CredentialError"


def test_as_somebody_else(laptop: Laptop, namespace: str) -> None:
    user = f"system:serviceaccount:{namespace}:nobody"
    for arguments in (("pods", namespace), ("absent", "spdy")):
        error = error_of(laptop, *arguments, kubeconfig=f"-@{user}")
        assert error["kind"] == "ForbiddenError"
        assert f"you ({user}) may not" in error["message"]


@pytest.mark.usefixtures("namespace")
@pytest.mark.parametrize(("carrier", "verb"), [("spdy", "create"), ("websocket", "get")])
def test_a_port_forward_that_is_forbidden_names_the_rule(laptop: Laptop, files: Files, carrier: str, verb: str) -> None:
    error = error_of(laptop, "absent", carrier, kubeconfig=files.write({"token": token("nobody")}))
    assert error["code"] == "forbidden"
    assert f"may not {verb} pods/portforward in namespace default" in error["message"]
    assert error["hint"].endswith(f'- apiGroups: [""]\n  resources: ["pods/portforward"]\n  verbs: ["{verb}"]')


# -- the manager -----------------------------------------------------------------------------------------------------


def test_a_manager_comes_and_goes(laptop: Laptop, namespace: str) -> None:
    first = probe(laptop, "ensure", namespace, IMAGE)["ok"]
    assert first["told"][0] == f"creating the manager in namespace {namespace}"
    again = probe(laptop, "ensure", namespace, "localhost/another:1")["ok"]
    assert (again["pod"], again["told"]) == (first["pod"], [])
    assert again["seconds"] < 0.5
    assert first["protocol"] == again["protocol"] == PROTOCOL
    assert probe(laptop, "uninstall", namespace)["ok"] == [
        f"deployment/meshdev-traffic-manager in namespace {namespace}"
    ]
    assert kubectl("-n", namespace, "get", "pods,deployments", "-o", "name") == ""
    assert probe(laptop, "uninstall", namespace)["ok"] == []


def test_an_image_that_cannot_be_had_is_told_at_once(laptop: Laptop, namespace: str) -> None:
    error = error_of(laptop, "ensure", namespace, "127.0.0.1:1/nothing:1")
    assert (error["kind"], error["code"]) == ("ImageError", "image")
    assert "127.0.0.1:1/nothing:1" in error["message"]
    assert kubectl("-n", namespace, "get", "deployments", "-o", "name") == ""


def test_pod_securitys_refusal_is_told_verbatim(laptop: Laptop) -> None:
    error = error_of(laptop, "ensure", "psa-baseline", IMAGE)
    assert (error["kind"], error["code"]) == ("AdmissionError", "admission")
    assert 'violates PodSecurity "baseline:latest"' in error["message"]
    assert "NET_ADMIN" in error["message"]
    assert kubectl("-n", "psa-baseline", "get", "deployments", "-o", "name") == ""


def test_a_quota_is_told_verbatim(laptop: Laptop, namespace: str) -> None:
    kubectl("-n", namespace, "create", "quota", "none", "--hard=pods=0")
    try:
        error = error_of(laptop, "ensure", namespace, IMAGE)
    finally:
        kubectl("-n", namespace, "delete", "quota", "none")
    assert error["kind"] == "AdmissionError"
    assert "exceeded quota: none" in error["message"]


def test_a_pod_that_fits_nowhere_is_told_when_time_is_up(laptop: Laptop, namespace: str) -> None:
    kubectl("cordon", "node1")
    try:
        error = error_of(laptop, "ensure", namespace, IMAGE, "3")
    finally:
        kubectl("uncordon", "node1")
    assert error["code"] == "manager"
    assert "is not scheduled: 0/1 nodes are available" in error["message"]


def test_no_such_namespace(laptop: Laptop) -> None:
    error = error_of(laptop, "ensure", "nowhere", IMAGE)
    assert error["message"] == "there is no namespace nowhere"


def test_the_role_that_is_printed_is_enough(laptop: Laptop, files: Files, namespace: str) -> None:
    kubeconfig = files.write({"token": token("dev")})
    error = error_of(laptop, "ensure", namespace, IMAGE, kubeconfig=files.write({"token": token("nobody")}))
    assert f"may not list pods in namespace {namespace}" in error["message"]
    role = laptop.ok("meshdev", "rbac", "-n", namespace, "--serviceaccount", f"{namespace}:dev")
    manifest = Path(kubeconfig).with_name("role.yaml")
    manifest.write_text(role)
    control("kubectl", "apply", "-f", str(manifest))
    files.write({"token": token("dev")})
    assert probe(laptop, "ensure", namespace, IMAGE, kubeconfig=kubeconfig)["ok"]["protocol"] == PROTOCOL
    seen = probe(laptop, "addresses", namespace, kubeconfig=kubeconfig)["ok"]
    assert (seen["services"], seen["pods"], len(seen["notes"])) == ([], [], 2)
    service = ("get", "service", MANAGER_NAME, "-n", namespace, "-o", "jsonpath={.spec.clusterIP}")
    assert kubectl(*service) in seen["seen"], "the manager's own Service is the only one here"
    assert probe(laptop, "uninstall", namespace, kubeconfig=kubeconfig)["ok"] != []


# -- what may be seen ------------------------------------------------------------------------------------------------


def test_the_clusters_ranges_and_addresses(laptop: Laptop) -> None:
    found = probe(laptop, "addresses", "default")["ok"]
    assert (found["services"], found["pods"]) == (["10.96.0.0/16"], ["10.244.0.0/24"])
    service = kubectl("get", "service", "a", "-o", "jsonpath={.spec.clusterIP}")
    pod = kubectl("get", "pods", "-l", "app=a", "-o", "jsonpath={.items[0].status.podIP}")
    assert {service, pod} <= set(found["seen"])
    assert found["server"] == ["172.30.0.2"]
    assert found["notes"] == []
