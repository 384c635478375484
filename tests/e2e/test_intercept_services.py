"""A Service whose pods have no workload of their own is the workload: all its pods are intercepted, later ones too."""

import json
from collections.abc import Iterator
from typing import Final

import pytest

from tests.cluster.manifests import Manifest, service
from tests.e2e import pods, workloads
from tests.e2e.accounts import apply, uninstall
from tests.e2e.conftest import Laptop, kubectl, until
from tests.e2e.intercepting import A1, LOCAL, answers, ask, intercepted, listed, local, refused
from tests.e2e.workloads import as_job, as_pod, as_replicaset, as_replicationcontroller, http, of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

NAMESPACE: Final = "intercept-services"
RC: Final = f"http://rc.{NAMESPACE}/"
FLAGS: Final = ("--header", "a=1")


def named(name: str, app: str) -> Manifest:
    """A Service of another name in front of the pods of *app*."""
    made = service(http(app))
    made["metadata"] |= {"name": name, "namespace": NAMESPACE}
    return made


@pytest.fixture(scope="module")
def there(cluster: None) -> Iterator[Laptop]:  # noqa: ARG001 -- for its effect
    """The workloads, B' on the laptop, and the laptop connected."""
    rc, job, bare = (of(http(name, 2), NAMESPACE) for name in ("rc", "job", "bare"))
    made = [
        *(as_replicationcontroller(rc[0]), rc[1], named("rc-too", "rc")),
        *(as_job(job[0]), job[1]),
        *(as_pod(bare[0]), bare[1]),
    ]
    laptop = Laptop(1)
    laptop.clean()
    uninstall()  # one of former sources does not know of Services
    with workloads.namespace(NAMESPACE, *made), laptop.connected(), local(laptop):
        yield laptop
    laptop.clean()


def acked(laptop: Laptop, target: str, number: int) -> bool:
    """Whether ``list`` and ``status`` say that so many pods have it, and no others are there."""
    rows = [each for each in listed(laptop, "-n", NAMESPACE) if each["target"] == target]
    own = [each for each in laptop.status()["intercepts"] if each["target"] == target]
    both = {"acked": number, "total": number}
    return len(rows) == len(own) == 1 and rows[0]["pods"] == own[0]["pods"] == both


def everywhere(app: str, *, a1: str, other: str, requests: int = 40) -> None:
    """*requests* at the Service and one at each pod, with ``a: 1`` and without."""
    urls = [f"http://{app}.{NAMESPACE}/"] * requests
    urls += [f"http://{address}:8080/" for address in pods.addresses(NAMESPACE, f"app={app}")]
    assert ask(NAMESPACE, *((url, A1) for url in urls)) == [(200, a1)] * len(urls)
    assert ask(NAMESPACE, *((url, {}) for url in urls)) == [(200, other)] * len(urls)


def test_all_pods_of_a_replicationcontroller_and_those_that_come_later(there: Laptop) -> None:
    with intercepted(there, "mesh", "svc/rc", NAMESPACE, *FLAGS) as told:
        assert (told["target"], told["strategy"]) == ("service/rc", "ephemeral")
        assert told["pods"] == {"acked": 2, "total": 2}
        everywhere("rc", a1=LOCAL, other="rc")
        kubectl("-n", NAMESPACE, "scale", "rc/rc", "--replicas=3")
        until("the third pod is joined", lambda: acked(there, "service/rc", 3), 30)
        one = pods.pods(NAMESPACE, "app=rc")[0]["metadata"]["name"]
        kubectl("-n", NAMESPACE, "delete", "pod", one, "--grace-period=1")
        until("the one in its place is joined", lambda: acked(there, "service/rc", 3), 30)
        assert one not in pods.identities(NAMESPACE, "app=rc")
        everywhere("rc", a1=LOCAL, other="rc")
        (row,) = listed(there, "-n", NAMESPACE)
        assert (row["target"], row["state"], row["mine"]) == ("service/rc", "active", True)
    everywhere("rc", a1="rc", other="rc", requests=4)
    assert [pods.redirects(pod) for pod in pods.pods(NAMESPACE, "app=rc")] == [{}] * 3
    assert kubectl("-n", NAMESPACE, "get", "leases", "-o", "name") == ""


def test_a_pod_that_the_service_does_not_select_any_more_is_left(there: Laptop) -> None:
    """Somebody takes it out of the load balancing to look at it; its controller makes another."""
    with intercepted(there, "proxy", "svc/rc", NAMESPACE):
        count = len(pods.pods(NAMESPACE, "app=rc"))
        out = pods.pods(NAMESPACE, "app=rc")[0]
        name, url = out["metadata"]["name"], f"http://{out['status']['podIP']}:8080/"
        assert ask(NAMESPACE, (url, {})) == [(200, LOCAL)]
        kubectl("-n", NAMESPACE, "label", "pod", name, "app=looked-at", "--overwrite")
        answers(NAMESPACE, url, {}, ["rc"], 20)
        assert pods.redirects(out) == {}
        until("its place is taken", lambda: acked(there, "service/rc", count), 30)
        everywhere("rc", a1=LOCAL, other=LOCAL, requests=4)
        kubectl("-n", NAMESPACE, "label", "pod", name, "app=rc", "--overwrite")  # the controller deletes one again
        until("all of them are there again", lambda: acked(there, "service/rc", count), 30)
        everywhere("rc", a1=LOCAL, other=LOCAL, requests=4)


def test_a_job_and_a_bare_pod(there: Laptop) -> None:
    with intercepted(there, "mesh", "svc/job", NAMESPACE, *FLAGS) as told:
        assert (told["target"], told["pods"]) == ("service/job", {"acked": 2, "total": 2})
        everywhere("job", a1=LOCAL, other="job", requests=10)
    with intercepted(there, "mesh", "service/bare", NAMESPACE, *FLAGS) as told:
        assert (told["target"], told["pods"]) == ("service/bare", {"acked": 1, "total": 1})
        everywhere("bare", a1=LOCAL, other="bare", requests=4)


def test_releases_of_a_kind_that_replaces_replicasets(there: Laptop) -> None:
    """As Argo's Rollout does. A ConfigMap is the owner: it has no controller, and any kind will do."""
    kubectl("-n", NAMESPACE, "create", "configmap", "rollout")
    uid = kubectl("-n", NAMESPACE, "get", "configmap", "rollout", "-o", "jsonpath={.metadata.uid}")
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "rollout", "uid": uid, "controller": True}

    def release(number: int) -> Manifest:
        made = as_replicaset(of(http("rolled", 1), NAMESPACE)[0])
        made["metadata"] = {"name": f"rolled-{number}", "namespace": NAMESPACE, "ownerReferences": [owner]}
        for labels in (made["spec"]["selector"]["matchLabels"], made["spec"]["template"]["metadata"]["labels"]):
            labels["release"] = str(number)
        return made

    items = [release(1), named("rolled", "rolled")]
    apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    until("the first release is there", lambda: pods.pods(NAMESPACE, "app=rolled"), 30)
    kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", "pod", "-l", "app=rolled", "--timeout=60s")
    with intercepted(there, "mesh", "svc/rolled", NAMESPACE, *FLAGS) as told:
        assert told["target"] == "service/rolled"
        apply(json.dumps(release(2)))
        until("the next release is joined", lambda: acked(there, "service/rolled", 2), 30)
        kubectl("-n", NAMESPACE, "delete", "rs", "rolled-1")
        until("the former one is gone", lambda: acked(there, "service/rolled", 1), 30)
        everywhere("rolled", a1=LOCAL, other="rolled", requests=10)


def test_what_cannot_be_together_is_told_before_anything_is_touched(there: Laptop) -> None:
    code, error = refused(there, "mesh", "svc/rc", "-n", NAMESPACE, *FLAGS, "--strategy", "patch", "--detach")
    assert (code, error["hint"]) == (60, "--strategy ephemeral joins the pods that run"), error
    assert "service/rc cannot be intercepted by a patch: a Service has no template" in error["message"]
    with intercepted(there, "mesh", "svc/rc", NAMESPACE, *FLAGS):
        pod = pods.pods(NAMESPACE, "app=rc")[0]["metadata"]["name"]
        for target in ("svc/rc-too", f"pod/{pod}"):
            _, error = refused(there, "mesh", target, "-n", NAMESPACE, "--header", "b=2", "--detach")
            assert "is intercepted as a pod of service/rc already, by " in error["message"]
            assert error["hint"] == "name the same target: service/rc"
    with intercepted(there, "mesh", "svc/rc-too", NAMESPACE, *FLAGS):  # the sidecars of the other still idle
        everywhere("rc", a1=LOCAL, other="rc", requests=4)
