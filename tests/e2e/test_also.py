"""``--also`` and ``--never``: more and less in the tunnel than the cluster says, and never the API server itself."""

from typing import Final

import pytest

from tests.cluster import addresses
from tests.e2e.conftest import Laptop

pytestmark = pytest.mark.cluster

DEVICE: Final = "meshdev0"


def device_to(laptop: Laptop, address: object) -> str:
    """The device by which the laptop's kernel sends to *address*."""
    words = laptop.ok("ip", "route", "get", str(address)).split()
    return words[words.index("dev") + 1]


def answers(laptop: Laptop, address: object) -> bool:
    """Whether something speaks TLS there."""
    return laptop.run("curl", "-sk", "--max-time", "2", f"https://{address}:6443/version").returncode == 0


def test_a_network_beside_the_cluster(laptop: Laptop) -> None:
    assert not answers(laptop, addresses.VPC)
    with laptop.connected("--also", "172.31.0.0/24"):
        assert answers(laptop, addresses.VPC)
        assert device_to(laptop, addresses.VPC) == DEVICE
        assert device_to(laptop, addresses.NODE) == "node0"
    assert not answers(laptop, addresses.VPC)


@pytest.mark.parametrize("anyone", [(1, "root"), (2, "dev")], ids=["root@laptop1", "dev@laptop2"], indirect=True)
def test_the_network_of_the_nodes(anyone: Laptop) -> None:
    """The way to the API server is inside it: everything else goes into the tunnel, and the tunnel lives on."""
    with anyone.connected("--also", str(addresses.NODE_NETWORK)):
        assert device_to(anyone, addresses.NODE) == "node0"
        assert device_to(anyone, addresses.NODE_NETWORK[99]) == DEVICE
        assert anyone.ok("curl", "-sS", "--max-time", "5", "http://c/") == "service-c"
        status = anyone.status()
        assert status["state"] == "connected"
        assert [note for note in status["notes"] if str(addresses.NODE) in note]


def test_never(laptop: Laptop) -> None:
    with laptop.connected("--never", "10.244.0.128/25"):
        assert device_to(laptop, "10.244.0.1") == DEVICE
        assert device_to(laptop, "10.244.0.129") == "eth0"
