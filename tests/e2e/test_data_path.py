"""Everything that a pod can reach works from a connected laptop, byte for byte, by both kinds of carrier."""

import json
import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.e2e.conftest import Laptop, kubectl

pytestmark = [pytest.mark.cluster, pytest.mark.every_cluster]

GIGABYTE: Final = 10**9
CHAIN: Final = "service-a>service-b>service-c"
#: The rest of the world as the laptop sees it: name, alias, the way that DNS and the web server are asked.
_OUTSIDE: Final = """
for name in www alias dual; do getent ahosts $name.example.test; done
curl -sS --max-time 5 http://www.example.test/ http://www.example.test/whoami
ip route get 203.0.113.80 | head -1
"""


def outside(laptop: Laptop) -> str:
    """What the laptop sees of the wan."""
    return laptop.ok("sh", "-c", _OUTSIDE)


def traffic(laptop: Laptop, *arguments: str | int) -> dict[str, Any]:
    """Run tests.e2e.traffic there."""
    result: dict[str, Any] = json.loads(laptop.ok("python", "-m", "tests.e2e.traffic", *map(str, arguments)))
    return result


def pod_address(app: str) -> str:
    """The address of the first pod of *app*."""
    return kubectl("get", "pod", "-l", f"app={app}", "-o", "jsonpath={.items[0].status.podIP}")


def cluster_address(service: str) -> str:
    """The Service's ClusterIP."""
    return kubectl("get", "service", service, "-o", "jsonpath={.spec.clusterIP}")


@pytest.fixture(scope="module", params=["spdy", "websocket"])
def here(request: pytest.FixtureRequest) -> Iterator[Laptop]:
    """Laptop 1 connected by each kind of carrier; the wan is as it was before, and snapshots are equal afterwards."""
    laptop = Laptop(1)
    laptop.run("meshdev", "disconnect")
    before = outside(laptop)
    with laptop.connected("--carrier", request.param):
        assert laptop.status()["carrier"] == request.param
        assert outside(laptop) == before
        yield laptop
        assert outside(laptop) == before
    assert outside(laptop) == before


@pytest.mark.parametrize("size", [56, 1400, 4000])
def test_ping_of_a_pod(here: Laptop, size: int) -> None:
    said = here.ok("ping", "-n", "-c", "3", "-i", "0.2", "-W", "2", "-s", str(size), pod_address("a"))
    assert f"{size + 8} bytes from {pod_address('a')}" in said
    assert " 0% packet loss" in said


def test_http_by_pod_address(here: Laptop) -> None:
    assert here.ok("curl", "-sS", "--max-time", "5", f"http://{pod_address('a')}:8080/") == CHAIN


def test_http_by_cluster_address(here: Laptop) -> None:
    assert here.ok("curl", "-sS", "--max-time", "5", f"http://{cluster_address('a')}/") == CHAIN


@pytest.mark.parametrize(
    "name", ["a", "a.default", "a.default.svc", "a.default.svc.cluster.local", "a.default.svc.cluster.local."]
)
def test_http_by_name(here: Laptop, name: str) -> None:
    assert here.ok("curl", "-sS", "--max-time", "5", f"http://{name}/") == CHAIN


def test_http_by_the_name_of_a_pod(here: Laptop) -> None:
    assert here.ok("curl", "-sS", "--max-time", "5", "http://db-1.db:5432/") == "db"


@pytest.mark.parametrize("place", ["name", "service", "pod"])
def test_udp_echo_of_every_size(here: Laptop, place: str) -> None:
    """1,422 bytes fill the tunnel's MTU; more travels in fragments."""
    host = {"name": "udp-echo", "service": cluster_address("udp-echo"), "pod": pod_address("udp-echo")}[place]
    sizes = [1, 512, 1422, 1423, 4000, 9000]
    assert traffic(here, "udp", host, 9090, *sizes) == {"echoed": sizes}


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_gigabyte_arrives_as_it_was_sent(here: Laptop, direction: str) -> None:
    result = traffic(here, direction, "bulk", GIGABYTE)
    print(f"{direction}: {GIGABYTE / 1e6 / result['seconds']:.0f} MB/s")
    assert (result["bytes"], result["equal"]) == (GIGABYTE, True)


def test_a_closed_port_is_refused_at_once(here: Laptop) -> None:
    result = traffic(here, "refused", pod_address("a"), 9)
    assert result["raised"] == "ConnectionRefusedError"
    assert result["seconds"] < 1


def test_half_close_is_kept(here: Laptop) -> None:
    assert traffic(here, "half_close", "bulk", 50_000) == {"echoed": True, "farewell": True, "ended": True}


def test_two_hundred_connections_at_once(here: Laptop) -> None:
    result = traffic(here, "many", "bulk", 200, 100_000)
    assert result["equal"] == 200
    assert result["seconds"] < 20


def test_large_answers_of_the_rest_of_the_world(here: Laptop) -> None:
    """Its text does not fit a datagram: the question is asked again over TCP, past the forwarder or through it."""
    script = "import dns.resolver; print(len(dns.resolver.resolve('large.example.test', 'TXT')[0].to_text()))"
    start = time.monotonic()
    assert int(here.ok("python", "-c", script)) > 2000
    assert time.monotonic() - start < 5
