"""Ports on which nothing listens in the pods: said, gone on without, and taken as soon as something listens there."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import pytest

from tests.cluster.manifests import App, Port
from tests.e2e import pods, workloads
from tests.e2e.accounts import uninstall
from tests.e2e.conftest import CHECKOUT, Laptop, until
from tests.e2e.intercepting import A1, LOCAL, ask, listed, local
from tests.e2e.workloads import http, of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(90)]

NAMESPACE: Final = "intercept-listeners"
TARGET: Final = "deployment/late"
FLAGS: Final = ("-n", NAMESPACE, "--header", "a=1")
UDP: Final = App(
    "datagrams", ("--name=datagrams", "--udp-port=9090", "--port=8080"), (Port("udp", 9090, protocol="UDP"),)
)

#: Listens in the container until its input ends.
_LISTEN: Final = """
import http.server, os, sys, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "4")
        self.end_headers()
        self.wfile.write(b"late")
server = http.server.ThreadingHTTPServer(("0.0.0.0", 9999), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
os._exit(0)
"""


@pytest.fixture(scope="module")
def there(cluster: None) -> Iterator[Laptop]:  # noqa: ARG001 -- for its effect
    """The workloads, B' on the laptop, and the laptop connected."""
    laptop = Laptop(1)
    laptop.clean()
    uninstall()  # one of former sources says nothing of listeners
    made = [*of(http("late", 2), NAMESPACE), *of(UDP, NAMESPACE)]
    with workloads.namespace(NAMESPACE, *made), laptop.connected(), local(laptop):
        yield laptop
    laptop.clean()


@contextmanager
def listening(pod: str) -> Iterator[None]:
    """Something listens on port 9999 of the pod."""
    command = ("kubectl", "-n", NAMESPACE, "exec", "-i", pod, "--", "python3", "-c", _LISTEN)
    with subprocess.Popen(
        [sys.executable, "-m", "tests.cluster", *command],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield
        finally:
            process.stdin.close()
            process.wait(10)


def told(laptop: Laptop) -> tuple[dict[str, Any], dict[str, Any]]:
    """What ``status`` and ``list`` say of the only intercept."""
    (own,) = laptop.status()["intercepts"]
    (row,) = listed(laptop, "-n", NAMESPACE)
    return own, row


def states(laptop: Laptop, state: str, acked: int, pending: int) -> bool:
    """Both say that it is in that state, acknowledged by so many pods, and pending in so many."""
    own, row = told(laptop)
    ports = [{"port": 9999, "transport": "tcp", "pods": pending}] if pending else []
    return (own["state"], own["pods"]["acked"], own["pending_listeners"]) == (state, acked, ports) and (
        row["state"],
        row["pods"],
        row["pending_listeners"],
    ) == (state, {"acked": acked, "total": 2}, ["9999/tcp"] if pending else [])


def test_a_port_is_pending_until_something_listens_there(there: Laptop) -> None:
    ran = there.run("meshdev", "mesh", TARGET, *FLAGS, "--port", "8080:9999", "--detach")
    assert ran.returncode == 0, ran.stderr
    assert "(port 9999 → 8080; pending listener: 9999/tcp in 2 of 2 pods)" in ran.stdout
    assert "Try it" not in ran.stdout
    assert "pending listener: nothing listens on port 9999/tcp in 2 of 2 pods" in ran.stderr
    try:
        assert states(there, "pending", 0, 2), told(there)
        assert "pending (pending listener: 9999/tcp)" in there.meshdev("list", "-n", NAMESPACE)
        assert "pending listener: 9999/tcp in 2 of 2 pods" in there.meshdev("status")
        urls = [f"http://{address}:9999/" for address in pods.addresses(NAMESPACE, "app=late")]
        assert [status for status, _ in ask(NAMESPACE, *((url, A1) for url in urls))] == [0, 0]  # refused, as before
        with ExitStack() as listeners:
            one, two = (pod["metadata"]["name"] for pod in pods.pods(NAMESPACE, "app=late"))
            listeners.enter_context(listening(one))
            until("one pod has it", lambda: states(there, "active", 1, 1), 10)
            listeners.enter_context(listening(two))
            until("both pods have it", lambda: states(there, "active", 2, 0), 10)
            assert ask(NAMESPACE, *((url, A1) for url in urls)) == [(200, LOCAL)] * 2
            assert ask(NAMESPACE, *((url, {}) for url in urls)) == [(200, "late")] * 2
        until("it is pending again", lambda: states(there, "pending", 0, 2), 10)
    finally:
        there.meshdev("leave", TARGET, "-n", NAMESPACE)


def test_one_port_of_two_is_pending_and_the_other_is_served(there: Laptop) -> None:
    ran = there.run("meshdev", "mesh", TARGET, *FLAGS, "--port", "8080", "--port", "8081:9999", "--detach")
    assert ran.returncode == 0, ran.stderr
    try:
        assert states(there, "active", 0, 2), told(there)
        url = f"http://late.{NAMESPACE}/"
        assert ask(NAMESPACE, (url, A1), (url, {})) == [(200, LOCAL), (200, "late")]
    finally:
        there.meshdev("leave", TARGET, "-n", NAMESPACE)


def test_datagrams(there: Laptop) -> None:
    ran = there.run("meshdev", "proxy", "deploy/datagrams", "-n", NAMESPACE, "--port", "9191:9191/udp", "--detach")
    assert ran.returncode == 0, ran.stderr
    try:
        own, row = told(there)
        assert own["pending_listeners"] == [{"port": 9191, "transport": "udp", "pods": 1}]
        assert (own["state"], row["pending_listeners"]) == ("pending", ["9191/udp"])
    finally:
        there.meshdev("leave", "deploy/datagrams", "-n", NAMESPACE)
    ran = there.run("meshdev", "proxy", "deploy/datagrams", "-n", NAMESPACE, "--port", "9191:udp", "--detach")
    try:
        own, _ = told(there)
        assert (own["pending_listeners"], own["pods"]) == ([], {"acked": 1, "total": 1})
    finally:
        there.meshdev("leave", "deploy/datagrams", "-n", NAMESPACE)
