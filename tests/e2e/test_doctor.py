"""``doctor`` on a real cluster: what is well, what is not, that nothing is changed, and that its advice helps."""

import base64
import json
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.cluster import addresses, machine
from tests.e2e.accounts import HOME_NAMESPACE, Audit, account, apply, kubeconfig, remove, written
from tests.e2e.between import between
from tests.e2e.conftest import Laptop, kubectl, until
from tests.e2e.intercepting import listed, up
from tests.e2e.test_intercept_refused import RESTRICTED
from tests.e2e.workloads import http, of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(150)]

#: The issue's, of a run on a cluster that is well.
RUN_SECONDS: Final = 5.0
#: Reviews are created, and leave nothing.
REVIEWS: Final = {"selfsubjectaccessreviews", "selfsubjectreviews", "pods/portforward"}
Findings = dict[str, dict[str, Any]]


def doctor(laptop: Laptop, *arguments: str, code: int | None = None) -> Findings:
    """The findings by check."""
    done = laptop.run("meshdev", "doctor", "-o", "json", *arguments)
    found = {each["check"]: each for each in json.loads(done.stdout)}
    assert done.returncode == (any(each["state"] == "failed" for each in found.values()) if code is None else code)
    assert not [each for each in found.values() if "internal error" in each["detail"]]
    return found


@pytest.fixture(scope="module")
def connected_dev(cluster: None) -> Iterator[Laptop]:  # noqa: ARG001 -- for its effect
    """The developer, connected to namespace default for all tests of this file."""
    laptop = Laptop(1, "dev")
    laptop.clean()
    kubectl("delete", "leases", "-l", "app.kubernetes.io/managed-by=meshdev")  # of sessions that former tests killed
    with laptop.connected():
        yield laptop


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that the developer may enter; pytest's own are private."""
    for each in (tmp_path, *tmp_path.parents[:2]):
        each.chmod(0o755)
    return tmp_path


def test_all_is_well_within_five_seconds(connected_dev: Laptop) -> None:
    before = connected_dev.snapshot()
    begun = time.monotonic()
    found = doctor(connected_dev, "deployment/b", code=0)
    took = time.monotonic() - begun
    print(f"doctor took {took:.1f} s: {found['carrier-spdy']['detail']}, {found['carrier-websocket']['detail']}")
    assert took < RUN_SECONDS
    del found["leftovers-cluster"]  # sidecars of former tests may be leaving
    assert {name: each for name, each in found.items() if each["state"] != "ok"} == {}
    for carrier in ("carrier-spdy", "carrier-websocket"):
        assert "bit/s upwards" in found[carrier]["detail"]
    assert found["sidecar-ephemeral"]["detail"] == "deployment/b takes it (tried by a dry run)"
    assert found["address-ranges"]["detail"].startswith("10.96.0.0/16, 10.244.0.0/")
    assert connected_dev.snapshot() == before
    assert listed(connected_dev) == []
    assert connected_dev.status()["state"] == "connected"


def test_a_laptop_with_systemd_resolved(connected_dev: Laptop) -> None:  # noqa: ARG001 -- somebody else is connected
    found = doctor(Laptop(2), code=0)
    assert found["dns"]["detail"].startswith("systemd-resolved sends the cluster's names into the tunnel")
    assert found["dnat"]["state"] == "ok", "root reads the rules of others"
    assert found["connection"]["detail"] == "none"


def test_its_advice_gives_the_rights_that_are_missing(connected_dev: Laptop, folder: Path) -> None:
    with account("sick") as user:
        config = _for_dev(kubeconfig(folder, "sick"))
        found = doctor(connected_dev, "--kubeconfig", config, code=1)
        assert "you may not list pods in namespace default" in found["rbac-connect"]["detail"]
        assert found["rbac-intercept"]["state"] == "warning"
        assert found["carrier-spdy"]["state"] == "skipped"
        advice = found["rbac-intercept"]["hint"]
        assert advice.endswith(" | kubectl apply -f -")
        command = shlex.split(advice.removeprefix("ask an administrator for: ").removesuffix(" | kubectl apply -f -"))
        assert command[-2:] == ["--serviceaccount", f"{HOME_NAMESPACE}:sick"]
        printed = Laptop(1).ok(*command)
        apply(printed)
        try:
            audit = Audit()
            found = doctor(connected_dev, "--kubeconfig", config, "deployment/b", code=0)
            changing = {call for call in audit.calls(user) if call.verb not in {"get", "list", "watch"}}
            with between(connected_dev, folder, "SPDY", "reset") as middlebox:
                token = json.loads(Path(config).read_text())["users"][0]["user"]["token"]
                behind = doctor(connected_dev, "--kubeconfig", middlebox.kubeconfig(token), code=0)
        finally:
            remove(printed)
    assert found["rbac-connect"]["state"] == found["rbac-intercept"]["state"] == "ok"
    assert found["sidecar-ephemeral"]["state"] == "ok"
    assert found["network-policy"]["state"] == "skipped", "no rule names them"
    assert (behind["carrier-spdy"]["state"], behind["carrier-websocket"]["state"]) == ("warning", "ok")
    assert behind["carrier-spdy"]["hint"] == "meshdev connect --carrier websocket"
    asked = {call.resource for call in changing} - REVIEWS
    assert asked <= {"deployments", "pods", "pods/ephemeralcontainers"}, "by dry runs"


def test_a_namespace_with_pod_security(connected_dev: Laptop) -> None:
    where = "psa-baseline"
    made = json.dumps(of(http("b", pod_security=RESTRICTED), where)[0])
    apply(made)
    try:
        kubectl("-n", where, "rollout", "status", "deployment/b")
        found = doctor(connected_dev, "deployment/b", "-n", where, code=1)
    finally:
        remove(made)
    for check in ("manager-admission", "sidecar-ephemeral", "sidecar-patch"):
        assert found[check]["state"] == "failed"
        assert 'violates PodSecurity "baseline:latest"' in found[check]["detail"]
    assert "--manager-namespace" in found["manager-admission"]["hint"]
    assert f"kubectl label namespace {where} pod-security" in found["sidecar-patch"]["hint"]


def test_a_network_policy(connected_dev: Laptop) -> None:
    meta = {"name": "locked", "namespace": "default"}
    spec = {"podSelector": {"matchLabels": {"app": "b"}}, "policyTypes": ["Egress"]}
    made = json.dumps({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec})
    apply(made)
    try:
        found = doctor(connected_dev, "deployment/b", code=1)["network-policy"]
        others = doctor(connected_dev, "deployment/c", code=0)["network-policy"]
    finally:
        remove(made)
    assert "networkpolicy/locked in namespace default (egress) allows no TCP 15010 and 15011" in found["detail"]
    assert others["state"] == "ok"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"server": f"https://{addresses.NODE}:1"}, "connection refused"),
        ({"server": "https://nowhere.invalid:6443"}, "its name cannot be resolved"),
        ({"certificate_authority_data": "other"}, "is not trusted"),
    ],
    ids=["refused", "no such name", "untrusted"],
)
def test_an_api_server_that_is_not_reached(
    connected_dev: Laptop, folder: Path, fields: dict[str, str], words: str
) -> None:
    if "certificate_authority_data" in fields:
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=other"]
        subprocess.run([*command, "-keyout", "/dev/null", "-out", folder / "ca"], check=True, capture_output=True)
        fields = {"certificate_authority_data": base64.b64encode((folder / "ca").read_bytes()).decode()}
    config = _for_dev(written(folder / "config", {"token": "t"}, **fields))
    begun = time.monotonic()
    found = doctor(connected_dev, "--kubeconfig", config, code=1)
    assert time.monotonic() - begun < 2 * RUN_SECONDS
    assert found["api-server"]["state"] == "failed"
    assert words in found["api-server"]["detail"]
    assert found["rbac-connect"]["detail"] == "the API server does not answer"
    assert found["tun"]["state"] == "ok"


def test_credentials_that_the_server_does_not_know(connected_dev: Laptop, folder: Path) -> None:
    config = _for_dev(written(folder / "config", {"token": "unknown"}))
    Path(config).chmod(0o644)
    found = doctor(connected_dev, "--kubeconfig", config, code=1)
    assert found["api-server"]["hint"] == "check them with: kubectl auth whoami"
    assert found["kubeconfig-permissions"]["state"] == "warning"


def test_an_intercept_of_a_session_that_was_killed(connected_dev: Laptop) -> None:
    """The last one of this file: it ends the connection."""
    up(connected_dev, "mesh", "deployment/c", "default", "-H", "doctor=1")
    killed = connected_dev.status()["pids"]["session"]
    os.kill(killed, signal.SIGKILL)
    found = until("it is told", lambda: _leftovers(connected_dev), 60)
    assert "intercepted by a session that is gone" in found["detail"]
    hint = found["hint"].split()
    assert hint[:5] == ["kubectl", "-n", "default", "delete", "leases"]
    kubectl(*hint[1:])
    found = doctor(connected_dev)
    assert found["connection"]["detail"].startswith("none")
    assert "deployment/c" not in found["leftovers-cluster"]["detail"]


def _leftovers(laptop: Laptop) -> dict[str, Any] | None:
    found = doctor(laptop)["leftovers-cluster"]
    return found if "deployment/c (" in found["detail"] else None


def _for_dev(config: str) -> str:
    """Give the developer that file."""
    owner = machine.account()
    shutil.chown(config, owner.pw_uid, owner.pw_gid)
    return config
