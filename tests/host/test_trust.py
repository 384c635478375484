"""The table of which single addresses may be routed, row by row."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.host.plan import LaptopNetwork, LocalRoute
from meshdev.host.trust import MAX_LOGGED, MAX_REFUSALS, PRIVATE, Judge, Origin, Refusals, Trust

LAPTOP = LaptopNetwork(
    routes=(
        LocalRoute(IPv4Network("192.168.77.0/24"), "eth0"),
        LocalRoute(IPv4Network("10.0.0.0/8"), "vpn0", on_link=False),
        LocalRoute(IPv4Network("8.8.0.0/16"), "eth0"),
    )
)
RANGES = frozenset(map(IPv4Network, ("10.96.0.0/16", "10.244.0.0/24", "30.0.0.0/16")))
NODES = frozenset({IPv4Address("172.20.0.5"), IPv4Address("203.0.113.5")})
MANAGER = frozenset({IPv4Address("10.96.0.10"), IPv4Address("10.244.0.9")})
COMPLETE = Trust(RANGES, NODES, MANAGER)
#: The network plugin gives addresses of its own: the manager's pod is in no node's range.
OTHERWISE = Trust(RANGES, NODES, frozenset({IPv4Address("10.96.0.10"), IPv4Address("10.9.0.9")}))
#: What an account of one namespace knows.
UNKNOWN = Trust(manager=MANAGER)

ORIGINS: tuple[Origin, ...] = ("object", "service", "name")


@pytest.mark.parametrize(
    ("address", "trust", "routed"),
    [
        ("192.168.77.55", COMPLETE, ""),
        ("192.168.77.55", UNKNOWN, ""),
        ("8.8.4.4", UNKNOWN, ""),
        ("10.96.3.4", COMPLETE, "object service name"),
        ("10.244.0.7", COMPLETE, "object service name"),
        ("30.0.0.7", COMPLETE, "object service name"),
        ("9.9.9.9", COMPLETE, ""),
        ("9.9.9.9", UNKNOWN, ""),
        ("203.0.113.5", COMPLETE, ""),
        ("172.20.0.5", COMPLETE, "object service"),
        ("10.20.30.40", COMPLETE, "object"),
        ("100.64.3.4", COMPLETE, "object"),
        ("10.20.30.40", OTHERWISE, "object service"),
        ("10.96.3.4", UNKNOWN, "object service"),
        ("100.64.3.4", UNKNOWN, "object service"),
        ("172.32.0.1", UNKNOWN, ""),
        ("198.18.0.1", UNKNOWN, ""),
    ],
)
def test_the_table(address: str, trust: Trust, routed: str) -> None:
    judge = Judge(LAPTOP, trust)
    found = [origin for origin in ORIGINS if judge.refusal(IPv4Address(address), origin) is None]
    assert found == routed.split()


def test_ranges_are_complete_where_what_is_known_to_be_there_is_in_them() -> None:
    assert Judge(LAPTOP, COMPLETE).complete
    assert not Judge(LAPTOP, OTHERWISE).complete
    assert not Judge(LAPTOP, UNKNOWN).complete
    assert not Judge(LAPTOP, Trust(RANGES)).complete


@given(st.integers(0, 2**32 - 1).map(IPv4Address), st.sampled_from(ORIGINS), st.sampled_from([COMPLETE, UNKNOWN]))
def test_no_address_of_others_for_any_name(address: IPv4Address, origin: Origin, trust: Trust) -> None:
    routed = Judge(LAPTOP, trust).refusal(address, origin) is None
    if address in LAPTOP.routes[0].network:
        assert not routed
    elif not any(address in network for network in trust.ranges):
        assert not (routed and (origin == "name" or not any(address in network for network in PRIVATE)))


def test_refusals_are_bounded_and_the_log_is() -> None:
    refusals = Refusals()
    one = IPv4Address("8.8.4.4")
    assert refusals.add(one, "no")
    assert not refusals.add(one, "no")
    assert refusals.notes(lambda _: False) == ("no",)
    assert refusals.notes(lambda address: address == one) == ()
    logged = [refusals.add(one + number, str(number)) for number in range(1, 2 * MAX_LOGGED)]
    assert sum(logged) == MAX_LOGGED - 1
    latest = tuple(map(str, range(2 * MAX_LOGGED - MAX_REFUSALS, 2 * MAX_LOGGED)))
    assert refusals.notes(lambda _: False) == latest
