"""What the kernel's routes say about the laptop."""

from ipaddress import IPv4Address, IPv4Network

from meshdev.host.plan import LaptopNetwork, LocalRoute
from meshdev.netlink.messages import KernelRoute
from meshdev.session.surroundings import describe

NAMES = {1: "lo", 2: "eth0", 3: "meshdev0", 4: "meshdev-lab"}
MAIN, LOCAL, UNICAST, TYPE_LOCAL = 254, 255, 1, 2


def route(
    network: str, index: int, gateway: str | None = None, *, table: int = MAIN, kind: int = UNICAST
) -> KernelRoute:
    return KernelRoute(IPv4Network(network), index, IPv4Address(gateway) if gateway else None, table, kind, 4)


def test_networks_addresses_and_gateways_are_told_apart() -> None:
    found = [
        route("0.0.0.0/0", 2, "192.168.1.1"),
        route("192.168.1.0/24", 2),
        route("10.8.0.0/16", 2, "192.168.1.7"),
        route("192.168.1.5/32", 2, table=LOCAL, kind=TYPE_LOCAL),
        route("192.168.1.255/32", 2, table=LOCAL, kind=3),
    ]
    assert describe(found, NAMES, [IPv4Address("192.168.1.1")]) == LaptopNetwork(
        routes=(
            LocalRoute(IPv4Network("192.168.1.0/24"), "eth0"),
            LocalRoute(IPv4Network("10.8.0.0/16"), "eth0", on_link=False),
        ),
        addresses=(IPv4Address("192.168.1.5"),),
        gateways=(IPv4Address("192.168.1.1"),),
        resolvers=(IPv4Address("192.168.1.1"),),
    )


def test_of_devices_of_meshdev_only_the_addresses_are_told() -> None:
    found = [route("10.96.0.0/16", 3), route("198.18.0.2/32", 3, table=LOCAL, kind=TYPE_LOCAL)]
    assert describe(found, NAMES, []) == LaptopNetwork(sessions=(IPv4Address("198.18.0.2"),))


def test_what_is_behind_a_tunnel_is_no_neighbour() -> None:
    (found,) = describe([route("10.8.0.0/16", 4)], NAMES, [], tunnels={4}).routes
    assert not found.on_link


def test_a_device_that_only_looks_like_ours_counts() -> None:
    found = [route("10.96.0.0/16", 4)]
    assert describe(found, NAMES, []).routes == (LocalRoute(IPv4Network("10.96.0.0/16"), "meshdev-lab"),)
