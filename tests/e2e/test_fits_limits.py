"""Namespaces with a ResourceQuota or a LimitRange: what fits in, and what is said where something does not."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from meshdev.config import MANAGER_NAME
from meshdev.errors import AdmissionError
from tests.e2e import pods, workloads
from tests.e2e.accounts import apply, remove
from tests.e2e.conftest import Laptop, kubectl, until
from tests.e2e.intercepting import A1, LOCAL, ask, intercepted, local, refused
from tests.e2e.workloads import container, http, of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

NAMESPACE: Final = "fits-limits"
URL: Final = f"http://b.{NAMESPACE}/"
#: What a container of b asks for.
OWN: Final = {"requests.cpu": "10m", "requests.memory": "24Mi", "limits.cpu": "500m", "limits.memory": "128Mi"}


@pytest.fixture(scope="module", autouse=True)
def there(cluster: None) -> Iterator[None]:  # noqa: ARG001 -- for its effect
    """A workload whose containers name what they need; the limits come later, and hold for pods that come then."""
    made = of(http("b"), NAMESPACE)
    container(made[0])["resources"] = {
        kind: {name.partition(".")[2]: value for name, value in OWN.items() if name.startswith(kind)}
        for kind in ("requests", "limits")
    }
    with workloads.namespace(NAMESPACE, *made):
        yield


@contextmanager
def limited(kind: str, spec: dict[str, Any]) -> Iterator[None]:
    """A ResourceQuota or LimitRange, once the cluster knows it."""
    made = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "limits", "namespace": NAMESPACE}, "spec": spec}
    until("former pods are gone", lambda: kubectl("-n", NAMESPACE, "get", "pods", "-o", "name").count("\n") == 2, 30)
    apply(json.dumps(made))
    try:
        if kind == "ResourceQuota":
            until("the quota is counted", used, 10)
        yield
    finally:
        remove(json.dumps(made))


def used() -> Any:
    """What the quota counts."""
    return json.loads(kubectl("-n", NAMESPACE, "get", "resourcequota", "limits", "-o", "json"))["status"].get("used")


@contextmanager
def manager_there(laptop: Laptop) -> Iterator[None]:
    """Connected by a manager in the namespace, which goes again; intercepts are the other manager's."""
    try:
        with laptop.connected("-n", NAMESPACE):
            assert laptop.ok("curl", "-sS", "--max-time", "5", "http://b/") == "b"
            yield
    finally:
        laptop.meshdev("uninstall", "-n", NAMESPACE)


def test_a_quota_takes_the_manager_and_does_not_see_an_ephemeral_sidecar(laptop: Laptop) -> None:
    """It wants all four values of every pod, and has room for exactly the manager's."""
    exact = {"requests.cpu": "80m", "requests.memory": "232Mi", "limits.cpu": "3500m", "limits.memory": "1088Mi"}
    with limited("ResourceQuota", {"hard": {**exact, "pods": "3"}}):
        with manager_there(laptop):
            until("the manager is counted", lambda: used() == {**exact, "pods": "3"}, 10)
        with local(laptop, "--port=8080"), laptop.connected():
            before = until("it is not any more", lambda: used() if used()["pods"] == "2" else None, 15)
            with intercepted(laptop, "mesh", "deploy/b", NAMESPACE, "-H", "a=1") as told:
                assert told["strategy"] == "ephemeral"
                assert ask(NAMESPACE, (URL, A1), (URL, {})) == [(200, LOCAL), (200, "b")]
                assert used() == before
            assert used() == before


def test_a_quota_without_room_refuses_a_patch_before_anything_is_touched(connected: Laptop) -> None:
    patch = ("mesh", "deploy/b", "-n", NAMESPACE, "-H", "a=1", "--strategy", "patch", "--detach")
    with limited("ResourceQuota", {"hard": {"limits.memory": "384Mi"}}):
        code, error = refused(connected, *patch)
    assert (code, "exceeded quota: limits" in error["message"]) == (AdmissionError.exit_code, True), error
    assert f"kubectl -n {NAMESPACE} describe quota" in error["hint"]
    assert kubectl("-n", NAMESPACE, "get", "leases", "-o", "name") == ""
    assert '"initContainers"' not in kubectl("-n", NAMESPACE, "get", "deployment", "b", "-o", "json")


def test_a_quota_with_room_takes_a_patch(connected: Laptop) -> None:
    """The rollout has one pod more than before for a moment, and the sidecar counts in both."""
    room = {"requests.cpu": "1", "requests.memory": "1Gi", "limits.cpu": "8", "limits.memory": "2Gi"}
    with limited("ResourceQuota", {"hard": room}), local(connected, "--port=8080"):
        with intercepted(connected, "proxy", "deploy/b", NAMESPACE, "--strategy", "patch"):
            until("the Service leads to it", lambda: ask(NAMESPACE, (URL, {})) == [(200, LOCAL)], 5)
        kubectl("-n", NAMESPACE, "rollout", "status", "deployment/b", "--timeout=60s")


def test_a_quota_without_room_for_the_manager_is_told_with_its_numbers(laptop: Laptop) -> None:
    with limited("ResourceQuota", {"hard": {"limits.memory": "512Mi", "limits.cpu": "4"}}):
        code, error = refused(laptop, "connect", "-n", NAMESPACE)
    assert code == AdmissionError.exit_code
    assert "exceeded quota: limits, requested: limits.memory=960Mi, used: limits.memory=128Mi" in error["message"]
    assert "describe quota" in error["hint"]
    assert "--manager-namespace" in error["hint"]
    nothing_is_left()


def test_a_limitrange_with_small_defaults_leaves_manager_and_sidecars_alone(laptop: Laptop) -> None:
    """Its defaults would throttle the tunnel; they are for containers that name nothing."""
    limits = [{"type": "Container", "default": {"cpu": "60m", "memory": "64Mi"}, "defaultRequest": {"cpu": "50m"}}]
    with limited("LimitRange", {"limits": limits}):
        with manager_there(laptop):
            (manager,) = pods.pods(NAMESPACE, f"app.kubernetes.io/name={MANAGER_NAME}")
            assert {each["resources"]["limits"]["cpu"] for each in manager["spec"]["containers"]} == {"1"}
        with local(laptop, "--port=8080"), laptop.connected():
            for mode, flags in (("mesh", ("-H", "a=1")), ("proxy", ("--strategy", "patch"))):
                with intercepted(laptop, mode, "deploy/b", NAMESPACE, *flags):
                    until("B' answers", lambda: ask(NAMESPACE, (URL, A1)) == [(200, LOCAL)], 5)
        kubectl("-n", NAMESPACE, "rollout", "status", "deployment/b", "--timeout=60s")


def test_a_limitrange_that_is_too_small_is_told(laptop: Laptop) -> None:
    """The manager's pod and a patched one are refused with its words; an ephemeral container takes no part in it."""
    with limited("LimitRange", {"limits": [{"type": "Container", "max": {"memory": "256Mi"}}]}):
        code, error = refused(laptop, "connect", "-n", NAMESPACE)
        assert (code, "maximum memory usage per Container is 256Mi" in error["message"]) == (21, True), error
        assert f"kubectl -n {NAMESPACE} describe limitranges" in error["hint"]
        assert "--manager-namespace" in error["hint"]
        nothing_is_left()
        with local(laptop, "--port=8080"), laptop.connected():
            patch = ("mesh", "deploy/b", "-n", NAMESPACE, "-H", "a=1", "--strategy", "patch", "--detach")
            code, error = refused(laptop, *patch)
            assert (code, "maximum memory usage per Container is 256Mi" in error["message"]) == (21, True), error
            with intercepted(laptop, "mesh", "deploy/b", NAMESPACE, "-H", "a=1") as told:
                assert told["strategy"] == "ephemeral"
                assert ask(NAMESPACE, (URL, A1)) == [(200, LOCAL)]


def nothing_is_left() -> None:
    """Of a manager that could not be made."""
    there = ("-n", NAMESPACE, "get", "deployments,pods", "-o", "name")
    until("no manager", lambda: MANAGER_NAME not in kubectl(*there), 20)
