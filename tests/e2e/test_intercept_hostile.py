"""Nonsense in Leases and at the manager changes nothing for others; a pod that cannot reach it is told of in time."""

import copy
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from meshdev.config import CONTROL_PORT
from meshdev.intercept.lease import LABELS, UID_LABEL
from meshdev.wire.attestation import ASSIGNED_PORTS, CHOSEN_PORTS
from tests.e2e import pods, workloads
from tests.e2e.accounts import apply
from tests.e2e.conftest import Laptop, kubectl
from tests.e2e.intercepting import A1, LOCAL, ask, intercepted, listed, local, refused
from tests.e2e.strangers import as_a_sidecar, at_the_tunnel, manager_pod
from tests.e2e.workloads import http, of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

NAMESPACE: Final = "intercept-hostile"
URL: Final = f"http://b.{NAMESPACE}/"
#: Issue: without a way from the pods to the manager `mesh` has undone everything by then.
UNDONE_SECONDS: Final = 10.0


@pytest.fixture(scope="module")
def there(cluster: None) -> Iterator[Laptop]:  # noqa: ARG001 -- for its effect
    laptop = Laptop(1)
    laptop.clean()
    with workloads.namespace(NAMESPACE, *of(http("b", 2), NAMESPACE)), laptop.connected(), local(laptop):
        before = pods.identities(NAMESPACE)
        yield laptop
        assert pods.identities(NAMESPACE) == before
    laptop.clean()


def right(laptop: Laptop) -> None:
    assert ask(NAMESPACE, *[(URL, A1), (URL, {})] * 3) == [(200, LOCAL), (200, "b")] * 3
    assert {each["state"] for each in listed(laptop, "-n", NAMESPACE)} == {"active"}
    (status,) = laptop.status()["intercepts"]
    assert status["state"] == "active"
    assert status["pods"] == {"acked": 2, "total": 2}


def hostile(good: Any) -> list[Any]:
    """Leases that look like ours and are not."""

    def lease(number: int, **changes: Any) -> Any:
        made = copy.deepcopy(good)
        made["metadata"] = {
            key: made["metadata"][key] for key in ("namespace", "labels", "annotations", "ownerReferences")
        }
        made["metadata"]["name"] = f"meshdev-hostile-{number}"
        for path, value in changes.items():
            place, last = made, path.split("__")
            for key in last[:-1]:
                place = place[key]
            place[last[-1]] = value
        return made

    annotations = good["metadata"]["annotations"]
    (spec_key,) = (name for name in annotations if name.endswith("spec"))
    spec = json.loads(annotations[spec_key])
    proxy = json.dumps({**spec, "id": "f" * 32, "mode": "proxy", "match": None})
    unknown = json.dumps({**spec, "workload": {**spec["workload"], "uid": "no-such-uid"}})
    texts = ["{", "[]", "null", "[" * 10_000, '{"id":' * 1000, "x" * 100_000, json.dumps({**spec, "ports": []}), proxy]
    return [
        *(lease(n, metadata__annotations={**annotations, spec_key: text}) for n, text in enumerate(texts)),
        lease(20, metadata__annotations={}),
        lease(21, metadata__annotations={**annotations, spec_key: unknown}),
        lease(22, metadata__ownerReferences=[{**good["metadata"]["ownerReferences"][0], "uid": "no-such-uid"}])
        | {"spec": {}},
        lease(23, spec__holderIdentity="\x1b[2Jsomebody\nelse"),
        lease(24, spec__renewTime="2999-01-01T00:00:00.000000Z"),
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "meshdev-nothing", "namespace": NAMESPACE, "labels": {**LABELS, UID_LABEL: "x"}},
        },
    ]


@pytest.fixture(autouse=True)
def _no_leases() -> Iterator[None]:
    yield
    kubectl("-n", NAMESPACE, "delete", "leases", "--all")


def test_leases_of_nonsense(there: Laptop) -> None:
    with intercepted(there, "mesh", "deployment/b", NAMESPACE, "-H", "a=1"):
        (good,) = json.loads(kubectl("-n", NAMESPACE, "get", "leases", "-o", "json"))["items"]
        written = hostile(good)
        apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": written}))
        right(there)
        done = there.run("meshdev", "list", "-n", NAMESPACE, "-o", "json")
        assert done.returncode == 0
        assert len(json.loads(done.stdout)) == 1
        assert done.stderr.count("meshdev-hostile-") >= 10
        assert "\x1b" not in done.stderr
        assert "meshdev-hostile" in json.dumps(there.status())  # told to whom it could concern
        with intercepted(there, "mesh", "deployment/b", NAMESPACE, "-H", "b=2"):
            assert ask(NAMESPACE, (URL, {"b": "2"})) == [(200, LOCAL)]
        with intercepted(there, "mesh", "deployment/b", NAMESPACE, "-H", "a=1"):
            right(there)
    kubectl("-n", NAMESPACE, "delete", "leases", "--all")
    with intercepted(there, "proxy", "deployment/b", NAMESPACE):
        assert ask(NAMESPACE, (URL, {})) == [(200, LOCAL)]


_MESSAGES: Final = """
spec, good = arguments["spec"], json.loads(arguments["spec"])
bad = ["", "{", "[]", "null", "[" * 10000, json.dumps({**good, "ports": []}), json.dumps({**good, "mode": "all"}),
       json.dumps({**good, "ports": [{"remote": 70000, "protocol": "tcp", "local": 1}]}),
       json.dumps({**good, "workload": {**good["workload"], "kind": "node"}}), "x" * 12000]
ended = refused = 0
def claim(n, text, id=None):
    return control.encode(Intercept(id=id or secrets.token_hex(16), spec=text, order=n))
for text in bad:  # the spec itself
    try:
        with Session() as peer:
            peer.say(claim(1, text))
            refused += sum(1 for each in peer.hear(0.5) if isinstance(each, control.Relays) and each.error)
    except (EOFError, OSError):
        ended += 1
long = b'{"id":"' + b"f" * 60000 + b'"}'
for body in (b"{}", b"[]", b"null", b"[" * 60000, b'{"id": 5}', dice.randbytes(3000), long):
    for kind in (frames.INTERCEPT, frames.AGENTS, frames.ATTESTED, frames.IDENTITY, frames.WITHDRAW, frames.LOCAL,
                 frames.REPORT, frames.RELAYS, frames.ISSUED):
        try:
            with Session() as peer:
                peer.say(frames.frame(kind, body))
                peer.hear(0.1)
        except (EOFError, OSError):
            ended += 1
try:  # too many, and a flood
    peer = Session()
    for n in range(1, 2000):
        id = secrets.token_hex(16)
        text = json.dumps({**good, "id": id})
        peer.say(claim(n, text, id))
    peer.hear(1)
    for n in range(2000, 22000):
        peer.say(control.encode(Local(id=arguments["id"], remote=8080, protocol="tcp", up=False, order=n)))
        found = AttestedAgent(dice.randbytes(300), arguments["key"], "b-x", "0" * 36)
        peer.say(control.encode(Agents(id=arguments["id"], part=n % 4, agents=(found,), order=n)))
        peer.say(control.encode(Withdraw(id=arguments["id"], order=n)))
    peer.hear(1)
except (EOFError, OSError):
    ended += 1
print(json.dumps({"ended": ended, "refused": refused}))
"""


def test_messages_of_a_session(there: Laptop) -> None:
    with intercepted(there, "mesh", "deployment/b", NAMESPACE, "-H", "a=1"):
        before = restarts()
        spec = spec_in_lease()
        told = at_the_tunnel(_MESSAGES, spec=spec, key="0" * 64, id=json.loads(spec)["id"])
        print(told)
        assert told["refused"] + told["ended"] >= 10
        right(there)
        assert restarts() == before


_AGENTS: Final = """
hello = {"pod": "b-x", "uid": "0" * 36, "namespace": "x", "address": "10.244.0.1", "probes": []}
ends = []
def raw(*words):
    return [each if isinstance(each, bytes) else json.dumps(each).encode() for each in words]
csr = {"csr": "AAAA"}
bodies = [raw(b""), raw(b"{"), raw(b"[" * 100000), raw({"state": {}}), raw({"hello": {**hello, "address": "nowhere"}}),
          raw({"hello": hello}, {"hello": hello}), raw({"hello": hello}, {"listen": {"99999": 1}}),
          raw({"hello": hello}, {"consents": ["x"]}), raw({"hello": hello}, csr), raw(b"x" * (2 << 20)),
          raw({"hello": hello}, {"listen": {str(n): n for n in range(1, 2000)}}),
          raw({"hello": hello}, {"state": {"redirected": ["8080"], "apart": {}, "older": {},
               "intercepts": {arguments["id"]: {"matched": 1 << 60, "fell_back": 0, "errors": 0}}, "flows": {}}})]
mine = Vouching()
shown = mine.key, mine.certificate
for messages in bodies:
    ends.append(call(AGENT, mine.authority, shown, messages, 1)[1])
for kind in ("cluster.v3.Cluster", "x" * 90):
    ends.append(call(ADS, mine.authority, shown, [discovery("0" * 36, kind)] * 500, 1)[1])
ends.append(call(ADS, mine.authority, shown, [b"\\xff" * 1000], 1)[1])
print(json.dumps(ends))
"""


#: What cannot be read, or breaks the protocol.
_NONSENSE: Final = 5


def test_messages_of_a_sidecar(there: Laptop) -> None:
    """One for which a session vouches, and that says to be a pod that does not exist."""
    with intercepted(there, "mesh", "deployment/b", NAMESPACE, "-H", "a=1") as told:
        before = restarts()
        ends = as_a_sidecar(_AGENTS, id=told["id"], spec=spec_in_lease())
        print(ends)
        assert ends[:_NONSENSE] == ["INVALID_ARGUMENT"] * _NONSENSE
        assert not {"OK", "UNAVAILABLE", "UNAUTHENTICATED"} & set(ends)
        right(there)
        assert restarts() == before


def spec_in_lease() -> str:
    """As everybody may read it who may read Leases there."""
    (lease,) = json.loads(kubectl("-n", NAMESPACE, "get", "leases", "-o", "json"))["items"]
    (spec,) = (value for name, value in lease["metadata"]["annotations"].items() if name.endswith("spec"))
    return str(spec)


def restarts() -> list[tuple[str, int]]:
    """The manager's containers."""
    return [(each["name"], each["restartCount"]) for each in manager_pod()["status"]["containerStatuses"]]


#: Answers every connection in the pod's own network as its argument says.
_ANSWERS: Final = """
import socket, sys, threading
server = socket.create_server(("127.0.0.1", 0), backlog=64)
print(server.getsockname()[1], flush=True)
def answer(sock):
    try:
        while sys.argv[1] == "garbage":
            sock.sendall(b"meshdev-agent/1 token " * 1000)
        if sys.argv[1] == "silence":
            sock.recv(1 << 16), sock.recv(1 << 16)
    except OSError:
        pass
    sock.close()
while True:
    threading.Thread(target=answer, args=server.accept()[:1], daemon=True).start()
"""


@contextmanager
def in_place_of_the_agent(pod: pods.Pod, how: str) -> Iterator[None]:
    """Somebody else answers at every port where the pod's agent may be attested."""
    pid = next(iter(pods.processes(pod)))
    command = ("nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-c", _ANSWERS, how)
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    redirect = f"tcp dport {ASSIGNED_PORTS.start}-{CHOSEN_PORTS.stop - 1} redirect to :{int(server.stdout.readline())}"
    rules = f"table ip meshdev_test_answers {{ chain out {{ type nat hook output priority -100; {redirect}; }}\n}}\n"
    pods.inside(pod, "nft", "-f", "-", stdin=rules)
    try:
        yield
    finally:
        pods.inside(pod, "nft", "delete", "table", "ip", "meshdev_test_answers")
        server.kill()
        server.wait()
        server.stdout.close()


@pytest.mark.parametrize(("how", "why"), [("garbage", "is not the agent"), ("silence", "does not answer")])
def test_somebody_else_answers_in_place_of_an_agent(there: Laptop, how: str, why: str) -> None:
    """One pod is not part of the intercept then, and is named; the session goes on."""
    one, _ = pods.pods(NAMESPACE, "app=b")
    with in_place_of_the_agent(one, how):
        start = time.monotonic()
        _, error = refused(there, "mesh", "deployment/b", "-n", NAMESPACE, "-H", "a=1", "--detach")
        print(f"{time.monotonic() - start:.1f} s: {error}")
        assert time.monotonic() - start < 30
        assert one["metadata"]["name"] in error["message"]
        assert why in error["message"]
        assert kubectl("-n", NAMESPACE, "get", "leases", "-o", "name") == ""
        assert ask(NAMESPACE, (URL, A1)) == [(200, "b")]
    with intercepted(there, "mesh", "deployment/b", NAMESPACE, "-H", "a=1"):
        right(there)


def drop(rule: str) -> str:
    """What a NetworkPolicy does: new connections out of the pod are dropped."""
    return f"""
table inet meshdev_test_policy {{
  chain out {{ type filter hook output priority 0; oifname "lo" accept; ct state established,related accept; {rule}; }}
}}
"""


@pytest.mark.parametrize(
    "rule",
    ["drop", f"tcp dport {CONTROL_PORT} accept; udp dport 53 accept; drop"],
    ids=["nothing-gets-out", "only-the-manager-itself"],
)
def test_a_policy_that_keeps_pods_from_the_manager(there: Laptop, rule: str) -> None:
    for pod in pods.pods(NAMESPACE, "app=b"):
        pods.inside(pod, "nft", "-f", "-", stdin=drop(rule))
    try:
        start = time.monotonic()
        _, error = refused(there, "mesh", "deployment/b", "-n", NAMESPACE, "-H", "a=1", "--detach")
        took = time.monotonic() - start
        print(f"{took:.1f} s: {error}")
        assert took < UNDONE_SECONDS
        assert "NetworkPolicy" in f"{error['message']} {error['hint']}"
        assert kubectl("-n", NAMESPACE, "get", "leases", "-o", "name") == ""
        assert listed(there, "-n", NAMESPACE) == []
        assert not any(map(pods.redirects, pods.pods(NAMESPACE, "app=b")))
        assert ask(NAMESPACE, (URL, A1)) == [(200, "b")]
    finally:
        for pod in pods.pods(NAMESPACE, "app=b"):
            pods.inside(pod, "nft", "delete", "table", "inet", "meshdev_test_policy")
