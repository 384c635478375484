"""Who may intercept what: the printed Role and no more, and nothing without an edge to a pod's agent."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from meshdev.config import MANAGER_NAME
from meshdev.errors import ForbiddenError
from meshdev.kube.access import Access
from meshdev.kube.rbac import rules
from tests.e2e import imposters, pods, workloads
from tests.e2e.accounts import HOME_NAMESPACE, Audit, account, kubeconfig
from tests.e2e.conftest import Laptop, kubectl, until
from tests.e2e.intercepting import A1, LOCAL, ask, in_pod, intercepted, listed, local, refused
from tests.e2e.strangers import as_a_sidecar, at_the_tunnel, manager_pod, relays
from tests.e2e.workloads import http, of
from tests.kube.granted import allowed, superfluous

pytestmark = [pytest.mark.cluster, pytest.mark.every_cluster, pytest.mark.timeout(150)]

MINE: Final = "intercept-mine"
THEIRS: Final = "intercept-theirs"


@pytest.fixture(scope="module", autouse=True)
def there(cluster: None) -> Iterator[None]:  # noqa: ARG001 -- for its effect
    """Deployment b in two namespaces, and a manager that somebody else has installed."""
    laptop = Laptop(1)
    laptop.clean()
    with laptop.connected():
        pass
    with (
        workloads.namespace(MINE, *of(http("b", 2), MINE)),
        workloads.namespace(THEIRS, *of(http("b"), THEIRS)),
    ):
        yield


@contextmanager
def developer(laptop: Laptop, name: str, namespace: str, folder: Path, *flags: str) -> Iterator[str]:
    """A user with the printed Role for *namespace*, connected; the kubeconfig."""
    where = ("-n", namespace, "--manager-namespace", "default", "--preinstalled")
    printed = laptop.meshdev("rbac", *where, "--serviceaccount", f"{HOME_NAMESPACE}:{name}", *flags)
    with account(name, printed):
        config = kubeconfig(folder, name, namespace)
        with laptop.connected("--kubeconfig", config, "--manager-namespace", "default"):
            yield config


def test_each_in_their_own_namespace_only(laptop: Laptop, laptop2: Laptop, tmp_path: Path) -> None:
    url = f"http://b.{MINE}/"
    with (
        developer(laptop, "jane", MINE, tmp_path),
        developer(laptop2, "joe", THEIRS, tmp_path),
        local(laptop, "--port=8080"),
        local(laptop2, "--port=8080", name="local-2"),
    ):
        with (
            intercepted(laptop, "mesh", "deployment/b", MINE, "-H", "a=1") as told,
            intercepted(laptop2, "proxy", "deployment/b", THEIRS),
        ):
            assert told["strategy"] == "ephemeral"
            assert ask(MINE, (url, A1), (url, {}), (f"http://b.{THEIRS}/", {})) == [
                (200, LOCAL),
                (200, "b"),
                (200, "local-2"),
            ]
            for user, elsewhere in ((laptop, THEIRS), (laptop2, MINE)):
                before = pods.pods(elsewhere, "app=b")
                code, error = refused(user, "mesh", "deployment/b", "-n", elsewhere, "-H", "c=3", "--detach")
                assert (code, elsewhere in error["message"]) == (ForbiddenError.exit_code, True)
                after = pods.pods(elsewhere, "app=b")
                assert [list(pods.sidecars(pod)) for pod in after] == [list(pods.sidecars(pod)) for pod in before]
            assert ask(MINE, (url, A1)) == [(200, LOCAL)]
        assert ask(MINE, (url, A1)) == [(200, "b")]


def test_the_printed_role_is_enough_and_its_rules_are_needed(laptop: Laptop, tmp_path: Path) -> None:
    needed = rules("developer", MINE, "default", preinstalled=True)
    audit = Audit()
    with developer(laptop, "jane", MINE, tmp_path), local(laptop, "--port=8080"):
        with intercepted(laptop, "mesh", "svc/b", MINE, "-H", "a=1"):
            assert ask(MINE, (f"http://b.{MINE}/", A1)) == [(200, LOCAL)]
            assert [each["state"] for each in listed(laptop, "-n", MINE)] == ["active"]
        laptop.meshdev("disconnect")
    user = f"system:serviceaccount:{HOME_NAMESPACE}:jane"
    watching = Access("watch", "", "pods", MINE)
    calls = until("the watches are in the audit log", lambda: _with(audit, user, watching))
    assert {call for call in calls if call.namespace in needed and not allowed(needed)(call)} == set()
    # Not every time: the log, for one, is read where the port that the spec assigns is taken. tests/kube/test_rbac.py
    # calls for all of them.
    assert superfluous(needed, calls).isdisjoint(
        {
            ("default", "pods", "list"),
            ("default", "pods/portforward", "create"),
            ("default", "deployments", "get", MANAGER_NAME),
            ("default", "replicasets", "get"),
            ("default", "services", "get", MANAGER_NAME),
            (MINE, "pods", "list"),
            (MINE, "pods/portforward", "create"),
            (MINE, "pods/ephemeralcontainers", "patch"),
            *((MINE, "leases", verb) for verb in ("list", "watch", "create", "update", "delete")),
        }
    )


def _with(audit: Audit, user: str, wanted: Access) -> set[Access]:
    calls = audit.calls(user)
    return calls if wanted in {replace(call, name="") for call in calls} else set()


@pytest.mark.parametrize("resource", ["pods/log", "pods/portforward"])
def test_a_right_that_is_missing_is_named_before_anything_is_touched(
    laptop: Laptop, tmp_path: Path, resource: str
) -> None:
    """A Role of before: whatever else it allows."""
    where = ("-n", MINE, "--manager-namespace", "default", "--preinstalled")
    printed = list(yaml.safe_load_all(laptop.meshdev("rbac", *where, "--serviceaccount", f"{HOME_NAMESPACE}:jane")))
    for made in printed:
        if made["kind"] == "Role" and made["metadata"]["namespace"] == MINE:
            made["rules"] = [rule for rule in made["rules"] if rule["resources"] != [resource]]
    with account("jane", *(json.dumps(made) + "\n" for made in printed)):
        config = kubeconfig(tmp_path, "jane", MINE)
        with laptop.connected("--kubeconfig", config, "--manager-namespace", "default"):
            before = [list(pods.sidecars(pod)) for pod in pods.pods(MINE, "app=b")]
            code, error = refused(laptop, "mesh", "deployment/b", "-n", MINE, "-H", "c=3", "--detach")
            assert code == ForbiddenError.exit_code
            assert f"{resource} in namespace {MINE}" in error["message"]
            assert "meshdev rbac" in error["hint"]
            assert kubectl("-n", MINE, "get", "leases", "-o", "name") == ""
            assert [list(pods.sidecars(pod)) for pod in pods.pods(MINE, "app=b")] == before


def test_there_is_no_secret(connected: Laptop) -> None:
    """Neither while a workload is intercepted, whichever way, nor afterwards; nor does anybody's Role name them."""
    with local(connected, "--port=8080"):
        for strategy in ("ephemeral", "patch"):
            with intercepted(connected, "mesh", "deployment/b", THEIRS, "-H", "a=1", "--strategy", strategy):
                assert kubectl("get", "secrets", "--all-namespaces", "-o", "name") == ""
                (pod,) = pods.pods(THEIRS, "app=b")
                assert "secret" not in json.dumps(pod["spec"]).lower()
    assert kubectl("get", "secrets", "--all-namespaces", "-o", "name") == ""
    for flags in (("--strategy", "ephemeral"), ("--strategy", "patch"), ("--connect-only",)):
        assert "secret" not in connected.meshdev("rbac", *flags).lower()


_SCAN: Final = """
import json, socket, sys
address, ports = sys.argv[1], json.loads(sys.argv[2])
through = []
for port in ports:
    try:
        with socket.create_connection((address, port), 0.7) as sock:
            sock.sendall(b"GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
            if sock.recv(100):
                through.append(port)
    except OSError:
        continue
print(json.dumps(through))
"""


def test_another_pod_cannot_use_the_relay(connected: Laptop) -> None:
    """Not one of the workload's: as if nobody were there. Neither by the Service, nor from the pod's own node."""
    address = manager_pod()["status"]["podIP"]
    with local(connected, "--port=8080"), intercepted(connected, "mesh", "deployment/b", MINE, "-H", "a=1"):
        found = relays()
        assert found
        for namespace in (MINE, THEIRS):
            assert json.loads(in_pod(namespace, _SCAN, address, json.dumps(found))) == []
        assert ask(MINE, (f"http://b.{MINE}/", A1)) == [(200, LOCAL)]


_ALL: Final = """
kinds = ("cluster.v3.Cluster", "listener.v3.Listener", "route.v3.RouteConfiguration",
         "endpoint.v3.ClusterLoadAssignment")
hello = {"pod": arguments["pod"], "uid": arguments["uid"], "namespace": arguments["home"],
         "address": "10.244.0.1", "probes": []}
told = {}
mine, other = Vouching(), KeyPair.generate()
shown = {"none": None, "unknown": (other, signed(other)), "vouched": (mine.key, mine.certificate)}
first, consents = json.dumps({"hello": hello}).encode(), agent.encode(agent.Consents((mine.proof,)))
for name, show in shown.items():
    heard, end = call(AGENT, mine.authority, show, [first], 1.5)
    told[f"agent {name}"] = [[each.decode() for each in heard], end]
heard, end = call(AGENT, mine.authority, shown["vouched"], [first, consents], 1.5)
told["agent consenting"] = [[each.decode() for each in heard], end]
for kind in kinds:
    for name, show in shown.items():
        heard, end = call(ADS, mine.authority, show, [discovery(arguments["uid"], kind)], 1.5)
        told[f"{kind} {name}"] = [[each.decode("latin-1") for each in heard], end]
print(json.dumps(told))
"""


def test_without_an_edge_there_is_nothing_to_hear(connected: Laptop) -> None:
    """Whoever has a session of its own may vouch for a key of its own, say to be a pod, and hears of its own claim."""
    with local(connected, "--port=8080"), intercepted(connected, "mesh", "deployment/b", MINE, "-H", "a=1"):
        pod, (spec, id_) = pods.pods(MINE, "app=b")[0]["metadata"], in_lease()
        told: dict[str, Any] = as_a_sidecar(_ALL, spec=spec, id=id_, uid=pod["uid"], pod=pod["name"], home=MINE)
        print(told)
        for what, (heard, end) in told.items():
            kind, name = what.split(" ")
            if name in ("none", "unknown"):
                assert (heard, end) == ([], "UNAVAILABLE"), what
            elif (kind, name) == ("agent", "vouched"):
                assert [each for each in heard if json.loads(each) != {"want": []}] == [], what
            assert not [each for each in heard if id_ in each], what
        assert ask(MINE, (f"http://b.{MINE}/", A1), (f"http://b.{MINE}/", {})) == [(200, LOCAL), (200, "b")]


def in_lease() -> tuple[str, str]:
    """The spec and id of the one intercept, as everybody may read them who may read Leases there."""
    (lease,) = json.loads(kubectl("-n", MINE, "get", "leases", "-o", "json"))["items"]
    spec = next(value for name, value in lease["metadata"]["annotations"].items() if "spec" in name)
    return spec, json.loads(spec)["id"]


#: Claims the workload by the signing request of its agent, with proofs that are none, and says what it was told.
_CLAIM: Final = """
import base64
told = []
for proof in ("0" * 64, secrets.token_hex(32)):
    for id in (secrets.token_hex(16), arguments["id"]):
        peer = Session()
        peer.say(control.encode(Intercept(id=id, spec=arguments["spec"].replace(arguments["id"], id),
                                              reset_older=True, order=1)))
        found = AttestedAgent(base64.b64decode(arguments["request"]), proof, arguments["pod"], arguments["uid"])
        peer.say(control.encode(Agents(id=id, part=0, agents=(found,), order=2)))
        for order, (remote, transport) in enumerate(((8080, "tcp"),), 3):
            peer.say(control.encode(Local(id=id, remote=remote, protocol=transport, up=True, order=order)))
        heard = peer.hear(1.5)
        told += [each.state for each in heard if isinstance(each, control.Report)]
        peer.say(control.encode(Withdraw(id=id, order=9)))
        peer.hear(0.3)
print(json.dumps(told))
"""


def test_a_claim_without_the_proof_meets_no_pod(connected: Laptop) -> None:
    """The Lease tells everybody its spec and id, the agent its request whoever asks it; both are worth nothing."""
    url = f"http://b.{MINE}/"
    with local(connected, "--port=8080"), intercepted(connected, "mesh", "deployment/b", MINE, "-H", "a=1"):
        pod, (spec, id_) = pods.pods(MINE, "app=b")[0], in_lease()
        posed = imposters.pose_as_session(pod, imposters.manager_certificate())
        request = base64.b64encode(posed.request).decode()
        who = {"pod": pod["metadata"]["name"], "uid": pod["metadata"]["uid"]}
        assert at_the_tunnel(_CLAIM, spec=spec, id=id_, request=request, **who) == []
        assert ask(MINE, *[(url, A1), (url, {})] * 5) == [(200, LOCAL), (200, "b")] * 5
        assert [each["state"] for each in listed(connected, "-n", MINE)] == ["active"]
