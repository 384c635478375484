"""Where no sidecar may enter it is said before anything is touched; where it may, the app is never restarted."""

import json
from typing import Any, Final

import pytest

from meshdev.errors import AdmissionError, InterceptError
from tests.cluster.manifests import HTTP, App
from tests.e2e import pods, workloads
from tests.e2e.accounts import apply, remove
from tests.e2e.conftest import Laptop, kubectl
from tests.e2e.intercepting import A1, LOCAL, ask, intercepted, local, refused
from tests.e2e.workloads import container, http, of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

NAMESPACE: Final = "intercept-refused"
RESTRICTED: Final = {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}}


def nothing_is_left(namespace: str) -> None:
    assert kubectl("-n", namespace, "get", "secrets,leases", "-o", "name") == ""
    assert [each for pod in pods.pods(namespace) for each in pods.sidecars(pod)] == []


@pytest.mark.parametrize("level", ["baseline", "restricted"])
@pytest.mark.parametrize("strategy", ["auto", "ephemeral", "patch"])
def test_pod_security(connected: Laptop, level: str, strategy: str) -> None:
    where = f"psa-{level}"
    made = json.dumps(of(http("b", pod_security=RESTRICTED), where)[0])
    apply(made)
    try:
        kubectl("-n", where, "rollout", "status", "deployment/b")
        before = pods.identities(where)
        flags = ("-H", "a=1", "--strategy", strategy, "--detach")
        code, error = refused(connected, "mesh", "deployment/b", "-n", where, *flags)
        nothing_is_left(where)
        assert pods.identities(where) == before
    finally:
        remove(made)
    assert (code, error["code"]) == (AdmissionError.exit_code, AdmissionError.code)
    ways = 2 if strategy == "auto" else 1
    assert error["message"].count(f'violates PodSecurity "{level}:latest"') == ways
    assert "NET_ADMIN" in error["message"]
    assert f"kubectl label namespace {where} pod-security.kubernetes.io/enforce=privileged" in error["hint"]


def test_a_pod_on_the_nodes_network(connected: Laptop) -> None:
    app = App("hosted", ("--name=hosted", "--port=18080"), (HTTP,), replicas=0)
    with workloads.namespace(NAMESPACE, *of(app, NAMESPACE, hostNetwork=True)):
        code, error = refused(connected, "proxy", "deploy/hosted", "-n", NAMESPACE, "--detach")
        assert (code, "hostNetwork" in error["message"]) == (InterceptError.exit_code, True)
        nothing_is_left(NAMESPACE)


def small(name: str) -> list[dict[str, Any]]:
    """128 Mi for the app."""
    made = of(http(name), NAMESPACE)
    container(made[0])["resources"] = {"requests": {"memory": "128Mi"}, "limits": {"memory": "128Mi"}}
    return made


def probed(name: str) -> list[dict[str, Any]]:
    """Every kind of probe, at the port that is intercepted; more than one failure in a row is a restart."""
    made = of(http(name), NAMESPACE)
    often = {"periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 2}
    container(made[0])["livenessProbe"] = {"httpGet": {"path": "/healthz", "port": "http"}, **often}
    container(made[0])["readinessProbe"] = {"tcpSocket": {"port": 8080}, **often}
    command = ["python3", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/healthz')"]
    container(made[0])["startupProbe"] = {"exec": {"command": command}, **often, "failureThreshold": 20}
    return made


def test_pods_that_give_little(connected: Laptop) -> None:
    """Not root, 128 Mi, and probes: the app is never restarted, whatever B' does."""
    names = ("nonroot", "small", "probed")
    made = [*of(http("nonroot", pod_security=RESTRICTED), NAMESPACE), *small("small"), *probed("probed")]
    with workloads.namespace(NAMESPACE, *made):
        before, failed = pods.identities(NAMESPACE), failed_probes()
        for name in names:
            url = f"http://{name}.{NAMESPACE}/"
            with local(connected, "--port=8080") as program:
                for mode, flags, without in (("mesh", ("-H", "a=1"), name), ("proxy", (), LOCAL)):
                    with intercepted(connected, mode, f"deploy/{name}", NAMESPACE, *flags):
                        wanted = [(200, LOCAL)] * 20 + [(200, without)] * 20
                        assert ask(NAMESPACE, *[(url, A1)] * 20, *[(url, {})] * 20) == wanted
                        program.stop()
                        assert ask(NAMESPACE, *[(url, A1)] * 20) == [(200, name)] * 20
                        program.start()
        assert pods.identities(NAMESPACE) == before
        assert failed_probes() == failed
        for pod in pods.pods(NAMESPACE):
            if pod["metadata"]["name"] != workloads.CLIENT:
                print(pod["metadata"]["name"], pods.memory_kib(pod, pods.AGENT), pods.memory_kib(pod, pods.ENVOY))


def failed_probes() -> int:
    """Since the pods were made: before they listen there are some."""
    events = json.loads(kubectl("-n", NAMESPACE, "get", "events", "-o", "json"))["items"]
    return sum(event.get("count") or 1 for event in events if event["reason"] == "Unhealthy")
