"""Which routes the plan makes of a laptop and a desired: the resulting state as text."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.host.plan import (
    DesiredRoutes,
    LaptopNetwork,
    LocalRoute,
    RoutePlan,
    came_between,
    may_route,
    plan,
    route_steps,
    subtract,
    usable_pools,
)
from meshdev.wire.helper.limits import MAX_ROUTES


def nets(text: str) -> tuple[IPv4Network, ...]:
    return tuple(map(IPv4Network, text.split()))


def ips(text: str) -> tuple[IPv4Address, ...]:
    return tuple(map(IPv4Address, text.split()))


def laptop(
    networks: str = "192.168.1.0/24", *, addresses: str = "192.168.1.7", gateways: str = "192.168.1.1"
) -> LaptopNetwork:
    return LaptopNetwork(
        routes=tuple(LocalRoute(network, "wlan0") for network in nets(networks)),
        addresses=ips(addresses),
        gateways=ips(gateways),
        resolvers=ips(gateways),
    )


def text(made: RoutePlan) -> str:
    return " ".join(map(str, made.routes))


def covered(made: RoutePlan, local: LaptopNetwork, address: str) -> bool:
    """What the kernel would do: the longest prefix wins, the laptop's own on a tie."""
    target = IPv4Address(address)
    ours = max((route.prefixlen for route in made.routes if target in route), default=-1)
    own = max((route.network.prefixlen for route in local.routes if target in route.network), default=-1)
    return ours > own


def test_ranges_and_single_addresses() -> None:
    made = plan(laptop(), DesiredRoutes(ranges=nets("10.96.0.0/16"), hosts=ips("10.244.0.7 10.96.0.10")))
    assert text(made) == "10.96.0.0/16 10.244.0.7/32"
    assert made.notes == ()


def test_api_server_gateway_and_resolver_are_cut_out_of_every_route() -> None:
    desired = DesiredRoutes(ranges=nets("172.30.0.0/29"), outside=(IPv4Address("172.30.0.2"),))
    made = plan(laptop(), desired)
    assert text(made) == "172.30.0.0/31 172.30.0.3/32 172.30.0.4/30"
    assert made.notes == ("172.30.0.2 stays outside the tunnel: the connection to the cluster goes there.",)
    made = plan(laptop(), DesiredRoutes(also=nets("192.168.1.0/29")))
    assert text(made) == "192.168.1.0/32 192.168.1.2/31 192.168.1.4/31 192.168.1.6/32"


def test_never_wins_over_everything() -> None:
    desired = DesiredRoutes(
        ranges=nets("10.96.0.0/24"), also=nets("10.96.0.0/16"), hosts=ips("10.96.0.7"), never=nets("10.96.0.0/17")
    )
    assert text(plan(laptop(), desired)) == "10.96.128.0/17"


def test_a_local_network_stays_and_is_told_but_single_addresses_in_it_are_routed() -> None:
    local = laptop("192.168.1.0/24 10.96.4.0/24")
    desired = DesiredRoutes(
        ranges=nets("10.96.0.0/21"), hosts=ips("10.96.4.9 10.96.1.1 192.168.1.50 192.168.1.1 192.168.1.7")
    )
    made = plan(local, desired)
    assert text(made) == "10.96.0.0/22 10.96.4.9/32 10.96.5.0/24 10.96.6.0/23 192.168.1.50/32"
    assert " ".join(made.notes) == (
        "The cluster's range 10.96.0.0/21 overlaps this machine's own network 10.96.4.0/24 (wlan0), which stays as it "
        "is. --also 10.96.0.0/21 would take all of it."
    )


def test_a_broader_local_route_hides_the_range_but_not_its_addresses() -> None:
    made = plan(laptop("10.0.0.0/8"), DesiredRoutes(ranges=nets("10.96.0.0/16"), hosts=ips("10.96.0.10")))
    assert text(made) == "10.96.0.10/32"
    assert len(made.notes) == 1


def test_also_wins_over_a_local_network_by_more_specific_routes() -> None:
    local = laptop("172.20.0.0/16 192.168.1.0/24")
    made = plan(local, DesiredRoutes(also=nets("172.20.0.0/16")))
    assert text(made) == "172.20.0.0/17 172.20.128.0/17"
    assert made.notes == ("--also 172.20.0.0/16 takes over this machine's own network 172.20.0.0/16 (wlan0).",)
    wider = plan(local, DesiredRoutes(also=nets("172.16.0.0/12")))
    assert text(wider) == "172.16.0.0/12 172.20.0.0/17 172.20.128.0/17"
    inside = plan(local, DesiredRoutes(also=nets("172.20.5.0/24")))
    assert text(inside) == "172.20.5.0/24"
    assert inside.notes == ()


def test_also_over_nested_local_networks() -> None:
    local = laptop("10.0.0.0/8 10.1.0.0/16")
    made = plan(local, DesiredRoutes(also=nets("10.0.0.0/8")))
    assert text(made) == "10.0.0.0/9 10.1.0.0/17 10.1.128.0/17 10.128.0.0/9"
    for address in ("10.0.0.1", "10.1.2.3", "10.1.200.3", "10.200.0.1"):
        assert covered(made, local, address)


def test_also_cannot_beat_a_route_to_one_address() -> None:
    made = plan(laptop("10.1.1.1/32"), DesiredRoutes(also=nets("10.1.1.0/30"), hosts=ips("10.1.1.1")))
    assert text(made) == "10.1.1.0/30"
    assert made.notes == ("10.1.1.1/32 stays local: this machine has a route to exactly that address (wlan0).",)


@pytest.mark.parametrize("network", ["0.0.0.0/0", "0.0.0.0/1", "12.0.0.0/6"])
def test_too_broad(network: str) -> None:
    made = plan(laptop(), DesiredRoutes(also=nets(network), ranges=nets(network)))
    assert made.routes == ()
    assert len(made.notes) == 2


def test_also_of_nothing_routable() -> None:
    made = plan(laptop(), DesiredRoutes(also=nets("127.0.0.0/8 169.254.0.0/16")))
    assert made.routes == ()
    assert len(made.notes) == 2


def test_split_default_routes_are_no_local_network() -> None:
    made = plan(laptop("0.0.0.0/1 128.0.0.0/1 8.0.0.0/5"), DesiredRoutes(ranges=nets("10.96.0.0/16")))
    assert text(made) == "10.96.0.0/16"
    assert made.notes == ()


def test_limit() -> None:
    hosts = tuple(IPv4Address(int(IPv4Address("10.0.0.0")) + 2 * number) for number in range(MAX_ROUTES))
    made = plan(laptop(), DesiredRoutes(ranges=nets("172.16.0.0/16"), hosts=hosts))
    assert len(made.routes) == MAX_ROUTES
    assert IPv4Network("172.16.0.0/16") in made.routes
    assert made.notes == (f"1 single addresses are not routed: {MAX_ROUTES} routes are the limit.",)


@pytest.mark.parametrize(
    ("came", "desired", "named"),
    [
        ("10.96.0.0/17 10.96.128.0/17", DesiredRoutes(ranges=nets("10.96.0.0/16")), "10.96.0.0/17 10.96.128.0/17"),
        ("10.96.0.0/16", DesiredRoutes(ranges=nets("10.96.0.0/16")), "10.96.0.0/16"),
        ("10.0.0.0/8", DesiredRoutes(ranges=nets("10.96.0.0/16")), "10.0.0.0/8"),
        ("10.96.4.0/24 10.7.0.0/16", DesiredRoutes(ranges=nets("10.96.0.0/16")), "10.96.4.0/24"),
        ("10.96.4.0/24", DesiredRoutes(ranges=nets("10.96.0.0/16"), also=nets("10.96.4.0/24")), ""),
        ("10.96.4.0/24", DesiredRoutes(ranges=nets("10.96.0.0/16"), never=nets("10.96.0.0/17")), ""),
        ("0.0.0.0/1 128.0.0.0/1", DesiredRoutes(ranges=nets("10.96.0.0/16")), ""),
        ("10.96.0.7/32", DesiredRoutes(hosts=ips("10.96.0.7")), "10.96.0.7/32"),
        ("10.96.0.0/24", DesiredRoutes(hosts=ips("10.96.0.7"), outside=(IPv4Address("10.96.0.7"),)), ""),
        ("10.96.0.0/24", DesiredRoutes(hosts=ips("10.96.0.7")), ""),  # routed in spite of it, as a single address
    ],
)
def test_what_came_between(came: str, desired: DesiredRoutes, named: str) -> None:
    before = laptop("192.168.1.0/24")
    after = laptop(f"192.168.1.0/24 {came}")
    known = [route.network for route in before.routes]
    assert came_between(before, desired, plan(before, desired).routes, known) == ()
    found = came_between(after, desired, plan(after, desired).routes, known)
    assert " ".join(str(own.network) for own in found) == named
    assert came_between(after, desired, plan(after, desired).routes, [own.network for own in after.routes]) == ()


def test_a_single_address_that_is_not_trusted_there_came_between() -> None:
    """The plan got the trusted ones only; the desired has all that were used."""
    after = laptop("192.168.1.0/24 10.96.0.0/24")
    desired = DesiredRoutes(hosts=ips("10.96.0.7"))
    (found,) = came_between(after, desired, (), nets("192.168.1.0/24"))
    assert found.network == IPv4Network("10.96.0.0/24")


def test_may_route() -> None:
    desired = DesiredRoutes(outside=(IPv4Address("10.0.0.1"),), never=nets("10.7.0.0/16"))
    for address in ("10.0.0.1", "10.7.1.1", "192.168.1.1", "192.168.1.7", "127.0.0.1", "169.254.169.254", "224.0.0.1"):
        assert not may_route(IPv4Address(address), laptop(), desired)
    assert may_route(IPv4Address("10.8.0.1"), laptop(), desired)


def test_steps() -> None:
    add, delete = route_steps(nets("10.0.0.0/8 10.2.0.0/16"), nets("10.1.0.0/16 10.2.0.0/16"))
    assert (add, delete) == (list(nets("10.0.0.0/8")), list(nets("10.1.0.0/16")))


def test_subtract_leaves_few_pieces() -> None:
    assert subtract(nets("10.0.0.0/8"), nets("10.0.0.0/9")) == list(nets("10.128.0.0/9"))
    assert len(subtract(nets("10.0.0.0/8"), nets("10.1.2.3/32"))) == 24
    assert subtract(nets("10.0.0.0/8"), nets("8.0.0.0/5")) == []


_networks = st.lists(
    st.tuples(st.integers(0, 255), st.integers(24, 32)).map(
        lambda pair: IPv4Network((int(IPv4Address("10.0.0.0")) + pair[0], pair[1]), strict=False)
    ),
    max_size=4,
    unique=True,
).map(tuple)
_addresses = st.lists(st.integers(0, 255).map(lambda n: IPv4Address("10.0.0.0") + n), max_size=3).map(tuple)


@given(_networks, _addresses, _networks, _networks, _addresses, _networks, _addresses)
def test_the_rules_hold_for_every_address(
    own: tuple[IPv4Network, ...],
    single: tuple[IPv4Address, ...],
    ranges: tuple[IPv4Network, ...],
    also: tuple[IPv4Network, ...],
    hosts: tuple[IPv4Address, ...],
    never: tuple[IPv4Network, ...],
    outside: tuple[IPv4Address, ...],
) -> None:
    local = LaptopNetwork(tuple(LocalRoute(network, "eth0") for network in own), single, (), ())
    made = plan(local, DesiredRoutes(ranges, hosts, also, never, outside))
    exact = {network.network_address for network in own if network.prefixlen == 32}
    assert not set(made.routes) & set(own)  # the kernel would refuse it
    for number in range(256):
        address = IPv4Address("10.0.0.0") + number
        tunnelled = covered(made, local, str(address))
        forbidden = address in (*single, *outside) or any(address in network for network in never)
        if forbidden or address in exact:
            assert not tunnelled
        elif any(address in network for network in also) or address in hosts:
            assert tunnelled
        elif any(address in network for network in own):
            assert not tunnelled
        else:
            assert tunnelled == any(address in network for network in ranges)


@pytest.mark.parametrize(
    ("networks", "addresses", "expected"),
    [
        ("192.168.1.0/24", "192.168.1.7", "198.18.0.0/16 198.19.0.0/16 100.127.0.0/16"),
        ("198.18.0.0/16", "192.168.1.7", "198.19.0.0/16 100.127.0.0/16"),
        ("198.18.0.0/15", "192.168.1.7", "100.127.0.0/16"),
        ("198.18.0.0/30", "192.168.1.7", "198.19.0.0/16 100.127.0.0/16"),
        ("192.168.1.0/24", "198.19.0.1", "198.18.0.0/16 100.127.0.0/16"),
        ("100.64.0.0/10 198.18.0.0/15", "192.168.1.7", ""),
        ("128.0.0.0/1 0.0.0.0/1", "192.168.1.7", "198.18.0.0/16 198.19.0.0/16 100.127.0.0/16"),
    ],
)
def test_pools(networks: str, addresses: str, expected: str) -> None:
    assert " ".join(map(str, usable_pools(laptop(networks, addresses=addresses)))) == expected


def test_a_pool_with_another_session_of_this_laptop_comes_last() -> None:
    others = replace(laptop(), sessions=ips("198.18.0.2 198.19.0.2"))
    assert usable_pools(others) == nets("100.127.0.0/16 198.18.0.0/16 198.19.0.0/16")
