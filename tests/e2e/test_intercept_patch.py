"""The strategy ``patch``: in by a rollout, out by another, and what others write meanwhile is theirs."""

import itertools
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

import pytest

from meshdev.errors import InterceptError
from meshdev.intercept.lease import RENEW_SECONDS, LeaseStatus, lease, name_of
from meshdev.intercept.match import HeaderMatch, Match
from meshdev.intercept.spec import Port, Spec, Workload
from meshdev.wire import modes
from tests.e2e import pods, workloads
from tests.e2e.accounts import apply
from tests.e2e.conftest import Laptop, kubectl, until
from tests.e2e.intercepting import A1, LOCAL, ask, intercepted, listed, local, refused, up
from tests.e2e.workloads import http, of, sample

pytestmark = [pytest.mark.cluster, pytest.mark.every_cluster, pytest.mark.timeout(180)]

NAMESPACE: Final = "intercept-patch"
URL: Final = f"http://b.{NAMESPACE}/"
MESH: Final = ("-H", "a=1", "--strategy", "patch")


@pytest.fixture(scope="module", autouse=True)
def there(cluster: None) -> Iterator[None]:  # noqa: ARG001 -- for its effect
    by_hand = of(sample("db"), NAMESPACE)
    by_hand[0]["spec"]["updateStrategy"] = {"type": "OnDelete"}
    with workloads.namespace(NAMESPACE, *of(http("b", 2), NAMESPACE), *by_hand):
        yield


def deployment() -> Any:
    return json.loads(kubectl("-n", NAMESPACE, "get", "deployment", "b", "--show-managed-fields", "-o", "json"))


def right() -> None:
    """At every pod; and at the Service, once the node has heard that the former pods are gone."""
    each = [f"http://{address}:8080/" for address in pods.addresses(NAMESPACE, "app=b")]
    assert (
        ask(NAMESPACE, *[(url, A1) for url in each], *[(url, {}) for url in each])
        == [(200, LOCAL)] * 2 + [(200, "b")] * 2
    )
    until("the Service leads to them", lambda: ask(NAMESPACE, *[(URL, A1)] * 20) == [(200, LOCAL)] * 20, 5)


def no_trace(found: Any) -> None:
    annotations = found["metadata"]["annotations"]
    assert [name for name in annotations if "meshdev" in name] == []
    assert "meshdev" not in {each["manager"] for each in found["metadata"]["managedFields"]}


def test_the_template_is_as_before(connected: Laptop) -> None:
    before = deployment()
    with local(connected, "--port=8080"):
        with intercepted(connected, "mesh", "deployment/b", NAMESPACE, *MESH) as told:
            assert told["strategy"] == "patch"
            right()
            (sidecar,) = deployment()["spec"]["template"]["spec"]["initContainers"]
            assert sidecar["restartPolicy"] == "Always"
            assert sidecar["resources"]["requests"].keys() == sidecar["resources"]["limits"].keys()
            assert [pods.sidecars(pod) for pod in pods.pods(NAMESPACE, "app=b")] == [{"meshdev": "running"}] * 2
        after = deployment()
        assert after["spec"] == before["spec"]
        no_trace(after)
    kubectl("-n", NAMESPACE, "rollout", "status", "deployment/b", "--timeout=60s")


def test_an_agent_that_is_killed_comes_again_with_another_key(connected: Laptop) -> None:
    """Its container is started again; the session attests what that announces."""
    with local(connected, "--port=8080"), intercepted(connected, "mesh", "deployment/b", NAMESPACE, *MESH):
        pod = pods.pods(NAMESPACE, "app=b")[0]
        address, before = pod["status"]["podIP"], pods.announcement(pod)
        pods.kill(pod, pods.AGENT)
        url = f"http://{address}:8080/"
        until("it is killed", lambda: not pods.redirects(pod), 10)
        until("the laptop answers again", lambda: ask(NAMESPACE, (url, A1)) == [(200, LOCAL)], 30)
        assert pods.announcement(pod) != before
        right()


def test_the_last_one_takes_it_out_and_an_edit_survives(connected: Laptop, laptop2: Laptop) -> None:
    """Two sessions, one rollout; somebody else edits the workload while they are there."""
    before = deployment()
    with (
        local(connected, "--port=8080"),
        local(laptop2, "--port=8080", name="local-2"),
        laptop2.connected(),
    ):
        up(connected, "mesh", "deployment/b", NAMESPACE, *MESH)
        right()
        spec, there = deployment()["spec"], pods.identities(NAMESPACE)
        with intercepted(laptop2, "mesh", "deployment/b", NAMESPACE, "-H", "b=2", "--strategy", "patch"):
            assert (deployment()["spec"], pods.identities(NAMESPACE)) == (spec, there)
            assert ask(NAMESPACE, (URL, A1), (URL, {"b": "2"})) == [(200, LOCAL), (200, "local-2")]
        assert deployment()["spec"]["template"]["spec"]["initContainers"]
        kubectl("-n", NAMESPACE, "label", "deployment", "b", "theirs=kept")
        kubectl("-n", NAMESPACE, "set", "env", "deployment/b", "THEIRS=kept")
        kubectl("-n", NAMESPACE, "rollout", "status", "deployment/b", "--timeout=60s")
        until("the pods that came have it", lambda: ask(NAMESPACE, (URL, A1)) == [(200, LOCAL)], 10)
        connected.meshdev("leave", "deployment/b", "-n", NAMESPACE)
    after = deployment()
    no_trace(after)
    assert after["metadata"]["labels"].pop("theirs") == "kept"
    assert after["metadata"]["labels"] == before["metadata"]["labels"]
    assert after["spec"]["template"]["spec"]["containers"][0].pop("env") == [{"name": "THEIRS", "value": "kept"}]
    assert after["spec"] == before["spec"]


@contextmanager
def renewed_elsewhere(laptop: Laptop, skews: tuple[float, ...]) -> Iterator[None]:
    """Another session's Lease on the same workload, renewed by a clock that is as wrong as each of *skews* in turn."""
    manager = laptop.status()["manager"]["namespace"]
    uid = deployment()["metadata"]["uid"]
    workload = Workload(NAMESPACE, "deployment", "b", uid)
    match, ports = Match((HeaderMatch("c", "exact", "3"),)), (Port(8080, "http", 8080),)
    spec = Spec("c" * 32, workload, modes.MESH, match, ports)
    apply(json.dumps(lease(spec, "joe@elsewhere", manager, time.time() + skews[0], LeaseStatus("active", 2, 2))))
    over = threading.Event()

    def renew() -> None:
        for skew in itertools.cycle(skews):
            told = datetime.fromtimestamp(time.time() + skew, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            patch = json.dumps({"spec": {"renewTime": told}})
            kubectl("-n", NAMESPACE, "patch", "lease", name_of(spec), "--type=merge", "-p", patch)
            if over.wait(RENEW_SECONDS / 2):
                return

    with ThreadPoolExecutor(1) as pool:
        renewing = pool.submit(renew)
        try:
            yield
        finally:
            over.set()
            renewing.result()


def test_a_wrong_clock_unpatches_nothing_under_a_live_intercept(connected: Laptop) -> None:
    before = deployment()
    with local(connected, "--port=8080"):
        up(connected, "mesh", "deployment/b", NAMESPACE, *MESH)
        with renewed_elsewhere(connected, (-30, 600, -600)):
            states = {each["holder"]: each["state"] for each in listed(connected, "-n", NAMESPACE)}
            assert states.pop("joe@elsewhere") == "active"
            assert list(states.values()) == ["active"]
            connected.meshdev("leave", "deployment/b", "-n", NAMESPACE)
            assert deployment()["spec"]["template"]["spec"]["initContainers"], "joe still needs it"
            (theirs,) = listed(connected, "-n", NAMESPACE)
            assert theirs["state"] == "active"
            connected.meshdev("leave", "deployment/b", "-n", NAMESPACE)
            assert deployment()["spec"]["template"]["spec"]["initContainers"], "joe still needs it"
        until("joe's is expired", lambda: listed(connected, "-n", NAMESPACE)[0]["state"] == "expired", 60)
        connected.meshdev("leave", "deployment/b", "-n", NAMESPACE)
    after = deployment()
    assert after["spec"] == before["spec"]
    no_trace(after)
    kubectl("-n", NAMESPACE, "delete", "leases", "--all")
    kubectl("-n", NAMESPACE, "rollout", "status", "deployment/b", "--timeout=60s")


def test_who_does_not_roll_out_is_refused(connected: Laptop) -> None:
    kubectl("-n", NAMESPACE, "rollout", "pause", "deployment/b")
    before = specs()
    try:
        for target, words in (("deployment/b", "paused"), ("statefulset/db", "OnDelete")):
            code, error = refused(connected, "proxy", target, "-n", NAMESPACE, "--strategy", "patch", "--detach")
            assert (code, words in error["message"]) == (InterceptError.exit_code, True), error
        assert specs() == before
        assert kubectl("-n", NAMESPACE, "get", "leases", "-o", "name") == ""
    finally:
        kubectl("-n", NAMESPACE, "rollout", "resume", "deployment/b")


def specs() -> list[Any]:
    there = json.loads(kubectl("-n", NAMESPACE, "get", "deployments,statefulsets", "-o", "json"))["items"]
    return [each["spec"] for each in there]
