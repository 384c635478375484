"""More than one node: sidecar and manager apart, a node that is drained, a node that dies.

They need a cluster of two nodes, and so run on the testbed's other kind.
"""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, Final

import pytest

from tests.cluster import kinds
from tests.cluster.manifests import Manifest
from tests.cluster.state import State
from tests.e2e import pods, workloads
from tests.e2e.accounts import apply
from tests.e2e.conftest import Laptop, control, kubectl, until
from tests.e2e.intercepting import A1, LOCAL, ask, intercepted, listed, local, up
from tests.e2e.workloads import as_daemonset, http, of, says_its_pod

pytestmark = [pytest.mark.cluster, pytest.mark.every_cluster, pytest.mark.timeout(240)]

NAMESPACE: Final = "fits-nodes"
#: Of laptop 2's manager.
ELSEWHERE: Final = "team-2"
FIRST, SECOND = "node1", "node2"
SELECTOR: Final = "app.kubernetes.io/name=meshdev-traffic-manager"
MESH: Final = ("-H", "a=1")


@pytest.fixture(scope="module", autouse=True)
def there(cluster: None) -> Iterator[None]:  # noqa: ARG001 -- for its effect
    """Workloads that would rather be on node 2; who asks them, and the cluster's DNS, are on node 1 all the time."""
    kind = kinds.running(State.load().facts)
    if kind is None or kind.nodes < 2:
        pytest.skip("the testbed has one node; two: python -m tests.flaky --every-cluster")
    with ExitStack() as stack:
        with cordoned(SECOND):
            if node_of("kube-system", "k8s-app=kube-dns") != FIRST:
                kubectl("-n", "kube-system", "delete", "pods", "-l", "k8s-app=kube-dns")
                kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=60s")
            stack.enter_context(workloads.namespace(NAMESPACE))
        stack.callback(kubectl, "uncordon", SECOND)
        stack.callback(control, "start", SECOND)
        apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": made()}))
        workloads.ready(NAMESPACE)
        yield


def made() -> list[Manifest]:
    """`moving` and `patched` begin on node 2 and may go; `staying` is on node 1; `everywhere` on both."""
    found = []
    for name, node in (("moving", SECOND), ("patched", SECOND), ("staying", FIRST)):
        term = {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}
        preferred = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": term}]}
        lost = [
            {"key": f"node.kubernetes.io/{why}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}
            for why in ("unreachable", "not-ready")
        ]
        found += of(http(name), NAMESPACE, affinity={"nodeAffinity": preferred}, tolerations=lost)
    everywhere = of(http("everywhere"), NAMESPACE)
    return [*found, as_daemonset(says_its_pod(everywhere[0])), everywhere[1]]


@contextmanager
def cordoned(node: str) -> Iterator[None]:
    """Nothing new comes to it."""
    kubectl("cordon", node)
    try:
        yield
    finally:
        kubectl("uncordon", node)


def node_of(namespace: str, selector: str) -> str:
    """Of the only pod that stays."""
    (pod,) = pods.pods(namespace, selector)
    return str(pod["spec"].get("nodeName"))


def url(name: str) -> str:
    return f"http://{name}.{NAMESPACE}/"


def manager_on(laptop: Laptop, namespace: str, node: str) -> None:
    """Connected, with a manager that was made while only *node* takes pods."""
    kubectl("-n", namespace, "delete", "deployments", "-l", SELECTOR, "--wait")
    kubectl("-n", namespace, "wait", "--for=delete", "pod", "-l", SELECTOR, "--timeout=30s")
    with cordoned(FIRST if node == SECOND else SECOND):
        laptop.meshdev("connect", "--manager-namespace", namespace)
    assert node_of(namespace, SELECTOR) == node


def at_home() -> None:
    """Those that would rather be on node 2 are there, and no rollout is under way."""
    for name in ("moving", "patched"):
        kubectl("-n", NAMESPACE, "rollout", "status", f"deployment/{name}", "--timeout=60s")
    away = [name for name in ("moving", "patched") if node_of(NAMESPACE, f"app={name}") != SECOND]
    if away:
        with cordoned(FIRST):
            kubectl("-n", NAMESPACE, "delete", "pods", "-l", f"app in ({','.join(away)})")
            workloads.ready(NAMESPACE)


def acked(laptop: Laptop, name: str) -> dict[str, int]:
    """Of the intercept of that deployment, by this laptop's status."""
    (found,) = (each for each in laptop.status()["intercepts"] if each["target"].endswith(f"/{name}"))
    answer: dict[str, int] = found["pods"]
    return answer


def drained(selector: str) -> None:
    """Those pods leave node 2, as before maintenance."""
    kubectl("drain", SECOND, "--ignore-daemonsets", "--delete-emptydir-data", f"--pod-selector={selector}")


def report(what: str, since: float) -> None:
    """For ``pytest -s``."""
    print(f"\n{what}: {time.monotonic() - since:.1f} s", flush=True)


@pytest.mark.parametrize("strategy", ["ephemeral", "patch"])
@pytest.mark.parametrize("mode", ["mesh", "proxy"])
def test_sidecar_and_manager_on_different_nodes(laptop: Laptop, mode: str, strategy: str) -> None:
    at_home()
    manager_on(laptop, "default", FIRST)
    flags = (*(MESH if mode == "mesh" else ()), "--strategy", strategy)
    with local(laptop, "--port=8080"), intercepted(laptop, mode, "deploy/moving", NAMESPACE, *flags):
        assert (node_of(NAMESPACE, "app=moving"), node_of("default", SELECTOR)) == (SECOND, FIRST)
        other = (200, LOCAL if mode == "proxy" else "moving")
        # After a rollout kube-proxy (iptables) knows the former pod for a second more: one answer proves nothing.
        only = [(200, LOCAL)] * 20
        until("the Service leads to it alone", lambda: ask(NAMESPACE, *[(url("moving"), A1)] * 20) == only, 10)
        assert ask(NAMESPACE, (url("moving"), A1), (url("moving"), {})) == [(200, LOCAL), other]


def test_a_drained_node(laptop: Laptop) -> None:
    """Target, then manager: each comes again on the other node, and the intercept with it."""
    at_home()
    manager_on(laptop, "default", SECOND)
    with local(laptop, "--port=8080"):
        up(laptop, "mesh", "deploy/moving", NAMESPACE, *MESH)
        up(laptop, "proxy", "deploy/patched", NAMESPACE, "--strategy", "patch")
        try:
            began = time.monotonic()
            drained("app in (moving, patched)")
            for name in ("moving", "patched"):
                until(f"{name} is intercepted again", partial(served, laptop, name), 30)
                assert node_of(NAMESPACE, f"app={name}") == FIRST
            report("targets drained and intercepted again", began)
            address = laptop.status()["address"]
            began = time.monotonic()
            drained(SELECTOR)
            until("another manager", lambda: laptop.status()["state"] == "connected" and away(laptop), 30)
            for name in ("moving", "patched"):
                until(f"{name} is intercepted again", partial(served, laptop, name), 15)
            report("manager drained and everything again", began)
            assert laptop.status()["address"] == address
            assert not [each for each in listed(laptop, "-n", NAMESPACE) if each["state"] != "active"]
        finally:
            kubectl("uncordon", SECOND)
            laptop.meshdev("leave", "--all")
    assert ask(NAMESPACE, (url("moving"), A1)) == [(200, "moving")]


def served(laptop: Laptop, name: str) -> bool:
    """One pod, intercepted, and it answers so."""
    return acked(laptop, name) == {"acked": 1, "total": 1} and ask(NAMESPACE, (url(name), A1)) == [(200, LOCAL)]


def away(laptop: Laptop) -> bool:
    """The manager that the session is at is not on node 2."""
    there = laptop.status()["manager"]
    found = kubectl("-n", there["namespace"], "get", "pod", there["pod"], "--ignore-not-found", "-o", "json")
    return bool(found and json.loads(found)["spec"]["nodeName"] == FIRST)


#: The cluster calls a node lost after so long (k8s.io/kubernetes: node-monitor-grace-period), and looks every 5 s.
LOST_SECONDS: Final = 60.0
#: Both ends give a stream up that is silent (keepalives of 10 and 5 s at control, of 3 and 2 s at sidecars).
SILENT_SECONDS: Final = 20.0
#: A lost manager is replaced (meshdev.kube.manifest), starts, and is met again.
MANAGER_SECONDS: Final = 30.0 + 20.0


def test_a_dead_node(laptop: Laptop, laptop2: Laptop) -> None:
    """It has targets of laptop 1, whose manager is on the other node, and the manager of laptop 2, whose target is."""
    at_home()
    template = deployment("patched")["spec"]
    manager_on(laptop, "default", FIRST)
    manager_on(laptop2, ELSEWHERE, SECOND)
    with local(laptop, "--port=8080"), local(laptop2, "--port=8080", name="local-2"):
        up(laptop, "mesh", "deploy/moving", NAMESPACE, *MESH)
        up(laptop, "mesh", "ds/everywhere", NAMESPACE, *MESH)
        up(laptop, "proxy", "deploy/patched", NAMESPACE, "--strategy", "patch")
        up(laptop2, "mesh", "deploy/staying", NAMESPACE, *MESH)
        assert ask(NAMESPACE, (url("staying"), A1)) == [(200, "local-2")]
        try:
            control("stop", SECOND)
            died = time.monotonic()
            told(laptop, laptop2, died)
            left = time.monotonic()
            laptop.meshdev("leave", "deploy/patched", "-n", NAMESPACE)
            report("leave, while its pod is lost", left)
            assert deployment("patched")["spec"] == template
            followed(laptop, laptop2, died)
        finally:
            control("start", SECOND)
        returned(laptop)
        for each in (laptop, laptop2):
            each.meshdev("leave", "--all")
        laptop2.meshdev("disconnect")
        laptop2.meshdev("uninstall", "-n", ELSEWHERE)
    assert ask(NAMESPACE, (url("moving"), A1), (url("staying"), A1)) == [(200, "moving"), (200, "staying")]
    assert kubectl("-n", NAMESPACE, "get", "leases", "-o", "name") == ""
    until("no sidecar runs", lambda: pods.running_sidecars(NAMESPACE) == [], 45)


def deployment(name: str) -> Any:
    return json.loads(kubectl("-n", NAMESPACE, "get", "deployment", name, "-o", "json"))


def told(laptop: Laptop, laptop2: Laptop, died: float) -> None:
    """What status says before the cluster knows; whoever is on the other node is answered all the time."""
    until("laptop 2 is without manager", lambda: laptop2.status()["state"] == "reconnecting", 10)
    report("status without its manager", died)
    asked = time.monotonic()
    assert ask(NAMESPACE, (url("staying"), A1), (url("staying"), {})) == [(200, "staying")] * 2
    report("two requests, one of them to a laptop behind a lost manager", asked)
    until("a pod is missed", lambda: acked(laptop, "moving") == {"acked": 0, "total": 1}, SILENT_SECONDS)
    until("one of two is missed", lambda: acked(laptop, "everywhere")["acked"] == 1, SILENT_SECONDS)
    report("status without the pods", died)
    assert laptop.status()["state"] == "connected"


def followed(laptop: Laptop, laptop2: Laptop, died: float) -> None:
    """The cluster knows, and makes others."""
    until("its pod counts no more", lambda: acked(laptop, "everywhere") == {"acked": 1, "total": 1}, LOST_SECONDS)
    report("the node is lost to the cluster", died)
    answers = [(200, LOCAL)] * 3
    until("the Service leads to the other", lambda: ask(NAMESPACE, *[(url("everywhere"), A1)] * 3) == answers, 15)
    until("the replacement is intercepted", lambda: served(laptop, "moving"), 20)
    assert node_of(NAMESPACE, "app=moving") == FIRST
    report("the replacement is intercepted", died)
    until("another manager", lambda: away(laptop2), MANAGER_SECONDS)
    until("connected", lambda: laptop2.status()["state"] == "connected", 10)
    report("another manager", died)
    asked = (url("staying"), A1)
    until("laptop 2 is asked again", lambda: ask(NAMESPACE, asked) == [(200, "local-2")], 30)
    report("its intercept", died)


def returned(laptop: Laptop) -> None:
    """The node is back: what was moved away is gone from it, what belongs to it is intercepted again."""
    since = time.monotonic()
    until("both pods of the DaemonSet", lambda: acked(laptop, "everywhere") == {"acked": 2, "total": 2}, 60)
    report("the pod of the node that came back is intercepted", since)
    each = [f"http://{address}:8080/" for address in pods.addresses(NAMESPACE, "app=everywhere")]
    assert ask(NAMESPACE, *[(one, A1) for one in each]) == [(200, LOCAL)] * 2

    def ghosts() -> list[str]:
        chosen = ("--all-namespaces", f"--field-selector=spec.nodeName={SECOND}")
        there = json.loads(kubectl("get", "pods", *chosen, "-o", "json"))["items"]
        return [each["metadata"]["name"] for each in there if each["metadata"].get("deletionTimestamp")]

    until("no pod is stuck there", lambda: not ghosts(), 60)
    report("nothing is left of the others", since)
