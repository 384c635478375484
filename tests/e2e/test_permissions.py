"""With how little one can connect, what is said where it is too little, and that nothing else is asked for."""

import json
from pathlib import Path
from typing import Any

import pytest

from meshdev.config import MANAGER_NAME
from meshdev.errors import ForbiddenError
from meshdev.kube.access import Access
from meshdev.kube.rbac import rules
from tests.e2e.accounts import HOME_NAMESPACE, Audit, account, binding, kubeconfig, role, uninstall
from tests.e2e.conftest import Laptop, kubectl, until
from tests.kube.granted import allowed, superfluous

pytestmark = [pytest.mark.cluster, pytest.mark.every_cluster, pytest.mark.timeout(180)]

Rule = dict[str, list[str]]

#: What connect asks for and does without where it is refused (docs/design/0005, 0006).
WITH_RIGHTS_ONLY = {
    Access("list", "", "nodes"),
    Access("list", "networking.k8s.io", "servicecidrs"),
    Access("list", "", "namespaces"),
}
#: No rule names it: ClusterRole `system:discovery` gives it to everybody who has an account.
ANYBODY = {Access("get", "", "/api")}
#: `preinstalled`, one by one.
PODS: Rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}
FORWARD: Rule = {"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["create", "get"]}
SERVICES: Rule = {"apiGroups": [""], "resources": ["services"], "verbs": ["list", "watch"]}
SLICES: Rule = {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}
DEPLOYMENTS: Rule = {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get", "list", "watch"]}


def reaches(laptop: Laptop, *urls: str) -> None:
    for url in urls:
        done = laptop.run("curl", "-sS", "--fail", "--max-time", "5", url)
        assert done.returncode == 0, f"{url}: {done.stderr}"


def addresses_of_b() -> list[str]:
    """ClusterIP and one pod of b, as URLs."""
    service = kubectl("get", "service", "b", "-o", "jsonpath={.spec.clusterIP}")
    pod = kubectl("get", "pods", "-l", "app=b", "-o", "jsonpath={.items[0].status.podIP}")
    return [f"http://{service}/", f"http://{pod}:8080/"]


@pytest.mark.parametrize("carrier", ["spdy", "websocket"])
def test_the_printed_role_is_enough_and_nothing_else_is_asked(laptop: Laptop, tmp_path: Path, carrier: str) -> None:
    where = ("--manager-namespace", HOME_NAMESPACE)
    to = ("--connect-only", "--serviceaccount", f"{HOME_NAMESPACE}:developer")
    printed = laptop.meshdev("rbac", "-n", "default", *where, *to)
    uninstall(HOME_NAMESPACE)
    with account("developer", printed) as user:
        config = kubeconfig(tmp_path, "developer")
        audit = Audit()
        with laptop.connected("--kubeconfig", config, *where, "--carrier", carrier):
            reaches(laptop, "http://b/", "http://b.default/", "http://c.default.svc/", *addresses_of_b())
            assert laptop.status()["carrier"] == carrier
        laptop.meshdev("uninstall", "--kubeconfig", config, *where)
        forward = Access("create" if carrier == "spdy" else "get", "", "pods/portforward", HOME_NAMESPACE)
        calls: set[Access] = until("the port-forwards are in the audit log", lambda: _with(audit, user, forward))
    needed = rules("developer", "default", HOME_NAMESPACE, intercepting="none")
    assert {call for call in calls if not allowed(needed)(call)} == WITH_RIGHTS_ONLY | ANYBODY
    # Elsewhere: what a start that fails calls for; the carrier's verbs, which the API server's version decides; a
    # Service that the cluster deletes sooner with its owner. tests/kube/test_rbac.py calls for each.
    elsewhere: set[tuple[str, ...]] = {(HOME_NAMESPACE, "pods/portforward", verb) for verb in ("create", "get")}
    elsewhere |= {(HOME_NAMESPACE, "services", verb, MANAGER_NAME) for verb in ("get", "delete")}
    assert superfluous(needed, calls) - elsewhere == {(HOME_NAMESPACE, "deployments", "update", MANAGER_NAME)}


def _with(audit: Audit, user: str, wanted: Access) -> set[Access]:
    calls = audit.calls(user)
    found = any((call.verb, call.resource) == (wanted.verb, wanted.resource) for call in calls)
    return calls if found else set()


def test_a_manager_that_somebody_else_installed(laptop: Laptop, tmp_path: Path) -> None:
    printed = laptop.meshdev(
        "rbac", "-n", "default", "--preinstalled", "--serviceaccount", f"{HOME_NAMESPACE}:developer"
    )
    with laptop.connected():
        pass
    with account("developer", printed):
        config = kubeconfig(tmp_path, "developer")
        with laptop.connected("--kubeconfig", config):
            reaches(laptop, "http://b/", *addresses_of_b())


def test_edit_in_one_namespace_is_enough(laptop: Laptop, tmp_path: Path) -> None:
    uninstall()
    with account("editor", binding("editor", "default", "ClusterRole", "edit")):
        config = kubeconfig(tmp_path, "editor")
        with laptop.connected("--kubeconfig", config):
            reaches(laptop, "http://b/", "http://db-0.db:5432/", *addresses_of_b())
        laptop.meshdev("uninstall", "--kubeconfig", config)


@pytest.mark.parametrize(
    ("granted", "missing", "manager"),
    [
        ([], "list pods in namespace default", True),
        ([PODS, SERVICES, SLICES], "create pods/portforward in namespace default", True),
        ([PODS, FORWARD, SERVICES, SLICES], "get deployments.apps in namespace default", False),
        ([PODS, FORWARD, SERVICES, SLICES, DEPLOYMENTS], "create deployments.apps in namespace default", False),
    ],
    ids=["nothing", "no-port-forward", "cannot-see-deployments", "cannot-create"],
)
def test_too_little_names_what_is_missing(
    laptop: Laptop, tmp_path: Path, granted: list[Rule], missing: str, manager: bool
) -> None:
    if manager:
        with laptop.connected():
            pass
    else:
        uninstall()
    before = laptop.snapshot()
    with account("less", role("less", "default", granted)) as user:
        config = kubeconfig(tmp_path, "less")
        text = laptop.run("meshdev", "connect", "--kubeconfig", config)
        done = laptop.run("meshdev", "connect", "--kubeconfig", config, "-o", "json")
    verb, resource, *_ = missing.split()
    assert (text.returncode, text.stdout) == (ForbiddenError.exit_code, "")
    assert f"you ({user}) may not {missing}" in text.stderr
    assert "meshdev rbac" in text.stderr
    error: dict[str, Any] = json.loads(done.stdout)["error"]
    assert done.returncode == ForbiddenError.exit_code
    assert error["code"] == "forbidden"
    assert missing in error["message"]
    assert f'verbs: ["{verb}"]' in error["hint"]
    assert f'resources: ["{resource.partition(".")[0]}"]' in error["hint"]
    assert laptop.status()["state"] == "disconnected"
    assert laptop.snapshot() == before


def test_without_services_names_and_pods_by_name_still_work(laptop: Laptop, tmp_path: Path) -> None:
    with laptop.connected():
        pass
    with account("blind", role("blind", "default", [PODS, FORWARD])):
        config = kubeconfig(tmp_path, "blind")
        with laptop.connected("--kubeconfig", config):
            reaches(laptop, "http://b/", "http://b.default.svc.cluster.local/", "http://db-0.db:5432/")


def test_as(laptop: Laptop, tmp_path: Path) -> None:
    with laptop.connected():
        pass
    granted = role("impersonated", "default", [PODS, FORWARD, SERVICES, SLICES])
    with account("impersonated", granted) as user, laptop.connected("--as", user):
        reaches(laptop, "http://b/")
    config = str(tmp_path / "nobody")
    with account("nobody", role("nobody", "default", [PODS])):
        config = kubeconfig(tmp_path, "nobody")
        done = laptop.run("meshdev", "connect", "--kubeconfig", config, "--as", "admin")
    assert done.returncode == ForbiddenError.exit_code
    assert "impersonate" in done.stderr
