"""``connect --socks`` as a user who has no root and uses none: the cluster by a proxy, and an untouched machine."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.e2e import workloads
from tests.e2e.conftest import Laptop, kubectl, until
from tests.e2e.intercepting import LOCAL, intercepted, local

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(60)]

AT: Final = "127.0.0.1:1080"
SOCKS: Final = ("--proxy", f"socks5h://{AT}")
HTTP: Final = ("--proxy", f"http://{AT}")

#: What a server that speaks first sends to a client of SOCKS5.
_FIRST_LINE: Final = """
import socket, sys
host, port = sys.argv[1].encode(), int(sys.argv[2])
sock = socket.create_connection(("127.0.0.1", 1080), 10)
sock.sendall(b"\\x05\\x01\\x00\\x05\\x01\\x00\\x03" + bytes([len(host)]) + host + port.to_bytes(2, "big"))
print(sock.makefile("rb").read(2 + 10 + 6)[12:].decode(), end="")
"""


@dataclass
class Proxied:
    """A connection that all tests share, and the machine before it."""

    laptop: Laptop
    before: str

    def curl(self, *words: str) -> str:
        """What curl gets; an HTTP error has a body, too."""
        return self.laptop.ok("curl", "-sS", "--max-time", "20", *words)


@pytest.fixture(scope="module", params=[1, 2], ids=["laptop1", "laptop2"])
def proxied(request: pytest.FixtureRequest) -> Iterator[Proxied]:
    """Connected by *dev*."""
    laptop = Laptop(request.param, "dev")
    laptop.clean()
    before = laptop.snapshot()
    try:
        laptop.meshdev("connect", "--socks")
        yield Proxied(laptop, before)
    finally:
        laptop.run("meshdev", "disconnect")


@pytest.mark.parametrize("proxy", [SOCKS, HTTP, (*HTTP, "--proxytunnel")], ids=["socks", "http", "connect"])
def test_names_and_pods_of_the_cluster_and_everything_else(proxied: Proxied, proxy: tuple[str, ...]) -> None:
    for name in ("b", "b.default", "b.default.svc.cluster.local"):
        assert proxied.curl(*proxy, f"http://{name}/") == "service-b>service-c"
    pod = json.loads(kubectl("get", "pods", "-l", "app=b", "-o", "json"))["items"][0]["status"]["podIP"]
    assert proxied.curl(*proxy, f"http://{pod}:8080/") == "service-b>service-c"
    assert "rest of the world" in proxied.curl(*proxy, "http://www.example.test/")


def test_other_protocols_and_errors(proxied: Proxied) -> None:
    assert proxied.laptop.ok("python", "-c", _FIRST_LINE, "tcp-first.default.svc", "7000") == "hello\n"
    status = ("-w", " %{http_code}")
    assert proxied.curl(*HTTP, *status, "http://no-such.default.svc/") == (
        "meshdev: the cluster has no address of no-such.default.svc\n 502"
    )


def test_no_root_is_used_and_nothing_of_the_machine_changes(proxied: Proxied) -> None:
    assert proxied.laptop.snapshot() == proxied.before
    status = proxied.laptop.status()
    assert (status["state"], status["socks"]) == ("connected", AT)
    owners = {Path(f"/proc/{pid}").stat().st_uid for pid in status["pids"].values()}
    assert owners == {int(proxied.laptop.ok("id", "-u"))}
    direct = proxied.laptop.run("curl", "-sS", "--max-time", "3", "http://b.default.svc.cluster.local/")
    assert direct.returncode != 0, "programs without the proxy have the machine's network"


def test_a_program_of_run_has_a_connection_of_its_own_beside_it(proxied: Proxied) -> None:
    assert proxied.laptop.ok("meshdev", "run", "--", "curl", "-sS", "http://b/") == "service-b>service-c"


def test_an_intercept_brings_requests_to_a_program_of_the_machine(dev: Laptop) -> None:
    """The relay ends in the other network, the program listens in the machine's."""
    with workloads.namespace("socks", *workloads.of(workloads.http("b"), "socks")) as there:
        dev.meshdev("connect", "--socks", "1081", "-n", there)
        with local(dev), intercepted(dev, "mesh", "deployment/b", there, "--header", "a=1"):
            asked = ("curl", "-sS", "--max-time", "8", "--proxy", "socks5h://127.0.0.1:1081", "http://b/")
            assert (dev.ok(*asked, "-H", "a: 1"), dev.ok(*asked)) == (LOCAL, "b")


def test_the_end_of_the_connection_is_the_end_of_the_proxy(dev: Laptop) -> None:
    before = dev.snapshot()
    dev.meshdev("connect", "--socks", "1081")
    taken = dev.run("meshdev", "connect", "--socks", "1082", "-o", "json")
    assert "serves a proxy at 127.0.0.1:1081" in json.loads(taken.stdout)["error"]["message"]
    pids = dev.status()["pids"].values()
    dev.meshdev("disconnect")
    assert dev.run("curl", "-sS", "--proxy", "socks5h://127.0.0.1:1081", "http://b/").returncode == 7
    until("the processes are gone", lambda: not any(Path(f"/proc/{pid}/ns/net").exists() for pid in pids))
    assert dev.snapshot() == before
