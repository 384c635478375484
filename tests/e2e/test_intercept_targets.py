"""Every kind of target, in both modes: all of its pods are intercepted, none is restarted, and nothing is left."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pytest

from tests.cluster.manifests import HTTP, App, Port
from tests.e2e import pods, workloads
from tests.e2e.conftest import Laptop, kubectl, until
from tests.e2e.intercepting import A1, LOCAL, ask, curl, in_pod, intercepted, listed, local, refused
from tests.e2e.workloads import as_daemonset, as_pod, as_replicaset, http, of, sample

pytestmark = [pytest.mark.cluster, pytest.mark.every_cluster, pytest.mark.timeout(90)]

NAMESPACE: Final = "intercept-targets"
FLAGS: Final = ("--port=8080", "--udp-port=9090", "--tcp-first-port=7000")


@dataclass(frozen=True)
class Case:
    """*target* as typed; *url* without its host's namespace; *port* is what the pods listen on."""

    target: str
    workload: str
    url: str
    port: int = 8080
    ports: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.workload.partition("/")[2]

    @property
    def selector(self) -> str:
        return f"app={self.name}"


CASES: Final = (
    Case("deploy/web", "deployment/web", "http://web.{}/"),
    Case("service/web", "deployment/web", "http://web.{}/", ports=("8080:80",)),
    Case("statefulset/db", "statefulset/db", "http://db-1.db.{}:5432/", port=5432, ports=("8080:5432/http",)),
    Case("svc/db", "statefulset/db", "http://db.{}:5432/", port=5432, ports=("8080:5432",)),
    Case("ds/everywhere", "daemonset/everywhere", "http://everywhere.{}/"),
    Case("pod/lone", "pod/lone", "http://lone.{}/"),
    Case("rs/copies", "replicaset/copies", "http://copies.{}/"),
    Case("svc/named", "deployment/named", "http://named.{}/", ports=("8080:web",)),
)


@pytest.fixture(scope="module")
def there(cluster: None) -> Iterator[Laptop]:  # noqa: ARG001 -- for its effect
    """The workloads, B' on the laptop, and the laptop connected; the pods are the same afterwards."""
    web, everywhere, lone, copies = (of(http(name, 2), NAMESPACE) for name in ("web", "everywhere", "lone", "copies"))
    udp = sample("udp-echo", ports=(Port("udp", 9090, protocol="UDP"),))
    made = [
        *web,
        *(as_daemonset(everywhere[0]), everywhere[1]),
        *(as_pod(lone[0]), lone[1]),
        *(as_replicaset(copies[0]), copies[1]),
        *(each for app in ("db", "named", "tcp-first") for each in of(sample(app), NAMESPACE)),
        *of(udp, NAMESPACE),
        *of(App("two", ("--name=two", "--port=8080", "--port=5432"), (HTTP, Port("db", 5432))), NAMESPACE),
        *of(App("undeclared", ("--name=undeclared", "--port=8080", "--port=8081"), (HTTP,)), NAMESPACE),
    ]
    laptop = Laptop(1)
    laptop.clean()
    with workloads.namespace(NAMESPACE, *made), laptop.connected(), local(laptop, *FLAGS):
        before = pods.identities(NAMESPACE)
        yield laptop
        assert pods.identities(NAMESPACE) == before
    laptop.clean()


def expect(laptop: Laptop, case: Case, *, without: str) -> None:
    """With ``a: 1`` it is B' wherever one asks, without it *without*, at the Service and at each pod by its address."""
    url = case.url.format(NAMESPACE)
    each = [f"http://{address}:{case.port}/" for address in pods.addresses(NAMESPACE, case.selector)]
    asked = ask(NAMESPACE, *[(one, headers) for headers in (A1, {}) for one in (url, *each)])
    assert asked == [(200, LOCAL)] * (1 + len(each)) + [(200, without)] * (1 + len(each))
    for one in (url, *each):
        assert (curl(laptop, one, A1), curl(laptop, one)) == (LOCAL, without)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.target.replace("/", "-"))
def test_target(there: Laptop, case: Case) -> None:
    flags = tuple(word for port in case.ports for word in ("--port", port))
    with intercepted(there, "mesh", case.target, NAMESPACE, "--header", "a=1", *flags) as told:
        assert (told["target"], told["namespace"], told["strategy"]) == (case.workload, NAMESPACE, "ephemeral")
        assert told["pods"]["acked"] == told["pods"]["total"] == len(pods.pods(NAMESPACE, case.selector))
        (entry,) = listed(there, "-n", NAMESPACE)
        assert (entry["target"], entry["mode"], entry["mine"]) == (case.workload, "mesh", True)
        expect(there, case, without=case.name)
    expect_gone(there, case)
    with intercepted(there, "proxy", case.target, NAMESPACE, *flags):
        expect(there, case, without=LOCAL)
    expect_gone(there, case)


def expect_gone(laptop: Laptop, case: Case) -> None:
    """As soon as leave has returned."""
    assert [pods.redirects(pod) for pod in pods.pods(NAMESPACE, case.selector)] == [{}] * len(
        pods.pods(NAMESPACE, case.selector)
    )
    assert ask(NAMESPACE, (case.url.format(NAMESPACE), A1)) == [(200, case.name)]
    assert listed(laptop, "-n", NAMESPACE) == []
    assert kubectl("-n", NAMESPACE, "get", "leases", "-o", "name") == ""


_UDP: Final = f"""
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(2)
sock.connect(("udp-echo.{NAMESPACE}", 9090))
sock.send(b"name?")
print(sock.recv(100).decode())
"""

_GREETING: Final = f"""
import socket, time
slowest = 0
for _ in range(3):
    start = time.monotonic()
    with socket.create_connection(("tcp-first.{NAMESPACE}", 7000), 5) as sock:
        assert sock.recv(6) == b"hello\\n"
        slowest = max(slowest, time.monotonic() - start)
        sock.sendall(b"x")
        sock.recv(1)
print(slowest)
"""


@pytest.mark.pod_addresses
def test_datagrams(there: Laptop) -> None:
    with intercepted(there, "proxy", "deploy/udp-echo", NAMESPACE, "--port", "9090/udp"):
        assert in_pod(NAMESPACE, _UDP) == f"{LOCAL}\n"
    assert in_pod(NAMESPACE, _UDP) == "udp-echo\n"


def test_a_server_that_speaks_first(there: Laptop) -> None:
    """mesh: the original, not slower than it is; proxy: the laptop's."""
    with intercepted(there, "mesh", "deploy/tcp-first", NAMESPACE, "-H", "a=1", "--port", "7000"):
        assert float(in_pod(NAMESPACE, _GREETING)) < 0.05
    with intercepted(there, "proxy", "deploy/tcp-first", NAMESPACE):
        before = counts_of(there, "deployment/tcp-first")
        assert float(in_pod(NAMESPACE, _GREETING)) > 0
        until("they are counted", lambda: counts_of(there, "deployment/tcp-first") >= before + 3, 5)


def counts_of(laptop: Laptop, target: str) -> int:
    (found,) = (each for each in laptop.status()["intercepts"] if each["target"] == target)
    matched: int = found["counts"]["matched"]
    return matched


def test_an_undeclared_port_and_another_local_one(there: Laptop) -> None:
    """The port's number is enough, wherever B' listens; the declared one is left alone."""
    (address,) = pods.addresses(NAMESPACE, "app=undeclared")
    other, declared = f"http://{address}:8081/", f"http://undeclared.{NAMESPACE}/"
    with intercepted(there, "mesh", "deploy/undeclared", NAMESPACE, "-H", "a", "--port", "8080:8081"):
        asked = ask(NAMESPACE, (other, {"A": "anything"}), (other, {}), (declared, {"A": "anything"}))
        assert asked == [(200, LOCAL), (200, "undeclared"), (200, "undeclared")]


def test_a_local_port_alone_is_the_targets_port_of_that_number(there: Laptop) -> None:
    """Of a target that has others, too."""
    with intercepted(there, "mesh", "deploy/two", NAMESPACE, "-H", "a=1", "--port", "5432") as told:
        assert told["ports"] == ["5432:5432/tcp"]
    code, error = refused(there, "mesh", "deploy/two", "-n", NAMESPACE, "-H", "a=1", "--port", "3000", "--detach")
    assert code == 60
    assert "deployment/two has the ports 5432/tcp (db), 8080/tcp (http)" in error["message"]


def test_the_command_to_try_it_works_and_a_database_has_none(there: Laptop) -> None:
    said = there.meshdev("mesh", "deploy/web", "-n", NAMESPACE, "-H", "a=1", "--detach")
    try:
        (command,) = (line.removeprefix("Try it: ") for line in said.splitlines() if line.startswith("Try it: "))
        assert there.ok(*shlex.split(command)) == LOCAL
    finally:
        there.meshdev("leave", "deploy/web", "-n", NAMESPACE)
    for mode, flags, commands in (("mesh", ("-H", "a=1"), []), ("proxy", (), [f"Try it: nc -v two.{NAMESPACE} 5432"])):
        said = there.meshdev(mode, "svc/two", "-n", NAMESPACE, *flags, "--port", "8080:5432", "--detach")
        there.meshdev("leave", "svc/two", "-n", NAMESPACE)
        assert [line for line in said.splitlines() if line.startswith("Try it")] == commands
