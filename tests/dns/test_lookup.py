"""What the session itself finds by the forwarder: only what is the cluster's."""

import dns.name
import pytest

from meshdev.errors import DnsError, RouteError
from tests.dns.conftest import Laptop, connected


async def found(laptop: Laptop, name: str) -> list[str] | None:
    """The addresses of *name*."""
    assert laptop.made is not None
    addresses = await laptop.made.lookup(dns.name.from_text(name))
    return None if addresses is None else [str(address) for address in sorted(addresses)]


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("b", ["10.96.0.7"]),
        ("B.NS", ["10.96.0.7"]),
        ("b.other.svc.cluster.local", ["10.96.0.8"]),
        ("db-0.db", ["10.244.0.9"]),
        ("big", [f"10.244.0.{host}" for host in range(1, 120)]),
        ("ext.ns.svc.cluster.local", ["192.0.2.1"]),
        ("no.ns.svc.cluster.local", []),
        ("wpad.ns.svc.cluster.local", []),
        ("www.example.test", None),
        ("example.test", None),
        ("printer", None),
        ("localhost", None),
        ("no-such-name", None),
    ],
)
async def test_a_name(laptop: Laptop, name: str, addresses: list[str] | None) -> None:
    assert await found(laptop, name) == addresses
    assert not laptop.answers, "no program has asked"


async def test_addresses_are_routed_before_they_are_known(laptop: Laptop) -> None:
    assert await found(laptop, "db-0.db") == ["10.244.0.9"]
    assert laptop.routed == ["10.244.0.9"]
    laptop.route_error = RouteError("no")
    with pytest.raises(DnsError, match="does not answer"):
        await found(laptop, "db-0.db")


async def test_a_cluster_that_cannot_be_asked_is_an_error_for_its_names_alone() -> None:
    async with connected(Laptop(up=False)) as laptop:
        with pytest.raises(DnsError, match="does not answer"):
            await found(laptop, "b.ns.svc")
        assert await found(laptop, "www.example.test") is None
