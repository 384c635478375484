"""Sidecars in real pods: with which rights they enter, what they are given, and that nothing is left."""

import concurrent.futures
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cluster.manifests import HTTP, App, Manifest, workload
from tests.e2e.accounts import HOME_NAMESPACE, account, apply, kubeconfig, remove
from tests.e2e.conftest import Laptop, kubectl, until

pytestmark = pytest.mark.cluster

NAMESPACE: Final = "join-tests"
NET_ADMIN: Final = 1 << 12
SLEEPER: Final = App("b", ("--name=b", "--port=8080"), (HTTP,), replicas=2)


def probe(laptop: Laptop, *arguments: str, config: str = "-") -> dict[str, Any]:
    """Run tests.e2e.join_probe there."""
    done = laptop.run("python", "-m", "tests.e2e.join_probe", config, *arguments, timeout=90)
    assert (done.returncode, done.stderr) == (0, "")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def ok(laptop: Laptop, *arguments: str, config: str = "-") -> Any:
    answer = probe(laptop, *arguments, config=config)
    assert "ok" in answer, answer
    return answer["ok"]


def in_namespace(made: Manifest, namespace: str, **pod: Any) -> str:
    """A workload of the sample in another namespace, with changes to its pods."""
    made["metadata"]["namespace"] = namespace
    made["spec"]["template"]["spec"] |= pod
    return json.dumps(made)


def get(kind: str, name: str, namespace: str = NAMESPACE) -> Any:
    return json.loads(kubectl("-n", namespace, "get", kind, name, "--show-managed-fields", "-o", "json"))


def pods() -> list[Any]:
    listed = json.loads(kubectl("-n", NAMESPACE, "get", "pods", "-l", "app=b", "-o", "json"))["items"]
    return [pod for pod in listed if not pod["metadata"].get("deletionTimestamp")]


def identities() -> set[tuple[str, int]]:
    """Pods by uid, and how often their containers were restarted."""
    return {(pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]["restartCount"]) for pod in pods()}


@pytest.fixture(scope="module")
def namespace(cluster: None) -> Iterator[str]:  # noqa: ARG001 -- for its effect
    kubectl("create", "namespace", NAMESPACE)
    yield NAMESPACE
    kubectl("delete", "namespace", NAMESPACE, "--wait=false")


@pytest.fixture
def b(namespace: str) -> Iterator[str]:
    """Deployment b with two pods that are ready."""
    made = in_namespace(workload(SLEEPER, "sha256:0"), namespace)
    apply(made)
    kubectl("-n", namespace, "rollout", "status", "deployment/b")
    yield "deploy/b"
    kubectl("-n", namespace, "delete", "deployment", "b", "--cascade=foreground")


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("svc/b", {"workload": "deployment/b", "pods": 2, "ports": ["8080/http", "9090/udp"]}),
        ("deploy/grpc", {"workload": "deployment/grpc", "pods": 1, "ports": ["50051/http"]}),
        ("svc/named", {"workload": "deployment/named", "pods": 1, "ports": ["8080/tcp"]}),
        ("svc/db", {"workload": "statefulset/db", "pods": 2, "ports": ["5432/tcp"]}),
        ("po/db-0", {"workload": "statefulset/db", "pods": 2, "ports": ["5432/tcp"]}),
    ],
)
def test_targets(laptop: Laptop, target: str, expected: dict[str, Any]) -> None:
    assert ok(laptop, "resolve", "default", target) == expected


def test_an_ephemeral_container_joins_all_pods_and_those_that_come_with_the_printed_role(
    laptop: Laptop, b: str, tmp_path: Path
) -> None:
    printed = laptop.meshdev("rbac", "-n", NAMESPACE, "--preinstalled", "--serviceaccount", f"{HOME_NAMESPACE}:joiner")
    before = identities()
    with account("joiner", printed):
        config = kubeconfig(tmp_path, "joiner", NAMESPACE)
        assert ok(laptop, "decide", NAMESPACE, b, config=config) == "ephemeral"
        with concurrent.futures.ThreadPoolExecutor() as background:
            keeping = background.submit(ok, laptop, "keep", NAMESPACE, b, "3", config=config)
            until("both pods are joined", lambda: sum(bool(_told(pod)) for pod in pods()) == 2)
            kubectl("-n", NAMESPACE, "scale", "deployment/b", "--replicas", "3")
            kept = keeping.result()
        assert kept["failures"] == []
        new = max(kept["joined"], key=lambda name: kept["joined"][name])
        assert kept["joined"][new] - kept["ready"].get(new, kept["joined"][new]) < 3
        assert before <= identities()
        for pod in pods():
            assert _told(pod) == {
                "MESHDEV_MANAGER": "10.96.0.250:15010",
                "POD_NAME": pod["metadata"]["name"],
                "POD_UID": pod["metadata"]["uid"],
                "POD_NAMESPACE": NAMESPACE,
                "POD_IP": pod["status"]["podIP"],
                "MESHDEV_WORKLOAD_UID": kept["uid"],
                "uid": 0,
                "capabilities": NET_ADMIN,
            }
    assert kubectl("-n", NAMESPACE, "get", "secrets", "-o", "name") == ""


def _told(pod: Any) -> dict[str, Any] | None:
    """What the stand-in printed."""
    statuses = pod["status"].get("ephemeralContainerStatuses") or []
    if not any("running" in each["state"] for each in statuses):
        return None
    logs = kubectl("-n", NAMESPACE, "logs", pod["metadata"]["name"], "-c", "meshdev-1")
    told: dict[str, Any] = json.loads(logs) if logs else {}
    return told


def test_a_pod_that_must_not_run_as_root_is_joined(laptop: Laptop, namespace: str) -> None:
    made = in_namespace(
        workload(SLEEPER, "sha256:0"), namespace, securityContext={"runAsNonRoot": True, "runAsUser": 1}
    )
    apply(made)
    try:
        kubectl("-n", namespace, "rollout", "status", "deployment/b")
        assert ok(laptop, "keep", namespace, "deploy/b", "2")["failures"] == []
    finally:
        remove(made)


def test_a_patch_goes_in_and_out_and_leaves_the_template_as_it_was(laptop: Laptop, b: str, tmp_path: Path) -> None:
    before = get("deployment", "b")["spec"]
    printed = laptop.meshdev(
        "rbac",
        "-n",
        NAMESPACE,
        "--preinstalled",
        "--strategy",
        "patch",
        "--serviceaccount",
        f"{HOME_NAMESPACE}:patcher",
    )
    with account("patcher", printed):
        config = kubeconfig(tmp_path, "patcher", NAMESPACE)
        assert ok(laptop, "decide", NAMESPACE, b, config=config) == "patch"
        entered = ok(laptop, "enter", NAMESPACE, b, "auto", config=config)
        sidecars = [pod["spec"]["initContainers"][-1] for pod in pods()]
        assert [(each["name"], each["restartPolicy"]) for each in sidecars] == [("meshdev", "Always")] * 2
        assert entered["told"]
        ok(laptop, "enter", NAMESPACE, b, "auto", config=config)  # a second session: nothing is rolled out
        assert get("deployment", "b")["metadata"]["generation"] == 2
        kubectl("-n", NAMESPACE, "label", "deployment", "b", "theirs=kept")
        kubectl("-n", NAMESPACE, "set", "env", "deployment/b", "THEIRS=kept")
        assert ok(laptop, "leave", NAMESPACE, b, config=config) is True
        assert ok(laptop, "leave", NAMESPACE, b, config=config) is False
    after = get("deployment", "b")
    assert after["metadata"]["labels"]["theirs"] == "kept"
    assert after["spec"]["template"]["spec"]["containers"][0].pop("env") == [{"name": "THEIRS", "value": "kept"}]
    assert after["spec"] == before
    assert "meshdev.dev/patched-by" not in after["metadata"]["annotations"]
    assert "meshdev" not in {each["manager"] for each in after["metadata"]["managedFields"]}


@pytest.mark.parametrize("level", ["baseline", "restricted"])
def test_pod_security_is_told_verbatim_for_both_ways(laptop: Laptop, level: str) -> None:
    where = f"psa-{level}"
    spec = {"securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}}
    app = App("b", ("--name=b", "--port=8080"), (HTTP,), pod_security=spec["securityContext"])
    made = in_namespace(workload(app, "sha256:0"), where)
    apply(made)
    try:
        kubectl("-n", where, "rollout", "status", "deployment/b")
        error = probe(laptop, "decide", where, "deploy/b")["error"]
    finally:
        remove(made)
    assert (error["kind"], error["message"].count(f'violates PodSecurity "{level}:latest"')) == ("AdmissionError", 2)
    assert "NET_ADMIN" in error["message"]
    assert f"kubectl label namespace {where} pod-security.kubernetes.io/enforce=privileged" in error["hint"]
    assert kubectl("-n", where, "get", "secrets,leases", "-o", "name") == ""


def test_a_pod_on_the_nodes_network_is_refused_before_anything_is_touched(laptop: Laptop, namespace: str) -> None:
    app = App("hosted", ("--name=hosted", "--port=18080"), (HTTP,), replicas=0)
    made = in_namespace(workload(app, "sha256:0"), namespace, hostNetwork=True)
    apply(made)
    try:
        error = probe(laptop, "decide", namespace, "deploy/hosted")["error"]
    finally:
        remove(made)
    assert (error["kind"], "hostNetwork" in error["message"]) == ("InterceptError", True)


def test_leases_say_who_has_what_and_go_with_their_workload(laptop: Laptop, b: str) -> None:
    first = ok(laptop, "take", NAMESPACE, b, "jane@laptop")
    error = probe(laptop, "take", NAMESPACE, b, "joe@pc", "proxy")["error"]
    assert (error["code"], "jane on laptop has a=1 (mesh, port 8080)" in error["message"]) == ("intercept", True)
    error = probe(laptop, "take", NAMESPACE, b, "joe@pc")["error"]
    assert (error["code"], error["hint"]) == ("intercept", "--takeover replaces it")
    second = ok(laptop, "take", NAMESPACE, b, "joe@pc", "takeover")
    assert (second["name"], second["holders"]) == (first["name"], ["joe@pc"])
    kubectl("-n", NAMESPACE, "delete", "deployment", "b", "--cascade=foreground")
    until("the Lease is gone", lambda: kubectl("-n", NAMESPACE, "get", "secrets,leases", "-o", "name") == "")
    apply(in_namespace(workload(SLEEPER, "sha256:0"), NAMESPACE))
