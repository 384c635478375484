"""What the real kernel tells of a laptop's networks: who is a neighbour, and who is behind a gateway or a tunnel."""

from ipaddress import IPv4Address

from meshdev.host.trust import Judge, Trust
from meshdev.session.surroundings import look
from tests.netns.laptop import ADDRESS, GATEWAY, Laptop

_OTHERS = f"""
ip tuntap add tun7 mode tun
ip addr add 10.9.0.2/24 dev tun7
ip link set tun7 up
ip route add 10.8.0.0/16 dev tun7
ip route add 10.7.0.0/16 via {GATEWAY}
ip link add bridge7 type bridge
ip addr add 172.18.0.1/16 dev bridge7
ip link set bridge7 up
"""


def test_neighbours_are_told_from_what_is_behind_something(laptop: Laptop) -> None:
    laptop.run("sh", "-ec", _OTHERS)
    with laptop.inside():
        found = look([])
    assert {(str(route.network), route.device): route.on_link for route in found.routes} == {
        ("192.0.2.0/24", "cable"): True,
        ("172.18.0.0/16", "bridge7"): True,
        ("10.7.0.0/16", "cable"): False,
        ("10.8.0.0/16", "tun7"): False,
        ("10.9.0.0/24", "tun7"): False,
    }
    assert IPv4Address(ADDRESS) in found.addresses
    judge = Judge(found, Trust())
    assert judge.refusal(IPv4Address("10.8.3.4"), "object") is None
    assert judge.refusal(IPv4Address("172.18.0.9"), "object") == (
        "it is in this machine's own network 172.18.0.0/16 (bridge7)"
    )
