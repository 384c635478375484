"""Which bridges have containers behind them: a table of what machines have, and the decision."""

from ipaddress import IPv4Address, IPv4Interface, IPv4Network

import pytest

from meshdev.helper.bridges import Bridge, container_bridges
from meshdev.netlink.links import KernelAddress, KernelLink
from meshdev.netlink.messages import KernelRoute

_BRIDGE = KernelLink(4, "docker0", "bridge", 0, peer_elsewhere=False)
_PORT = KernelLink(7, "veth1", "veth", 4, peer_elsewhere=True)
_ADDRESS = KernelAddress(4, IPv4Interface("172.17.0.1/16"))
_UPLINK = KernelRoute(IPv4Network("0.0.0.0/0"), 2, IPv4Address("192.168.1.1"), 254, 1, 3)
_DOCKER0 = Bridge("docker0", IPv4Network("172.17.0.0/16"))

#: What is not as with Docker; links, addresses, routes.
_CASES: list[tuple[str, list[KernelLink], list[KernelAddress], list[KernelRoute], tuple[Bridge, ...]]] = [
    ("Docker's", [_BRIDGE, _PORT], [_ADDRESS], [_UPLINK], (_DOCKER0,)),
    ("no container runs", [_BRIDGE], [_ADDRESS], [_UPLINK], ()),
    (
        "a physical port beside the container's: neighbours",
        [_BRIDGE, _PORT, KernelLink(2, "eth0", "", 4, peer_elsewhere=False)],
        [_ADDRESS],
        [],
        (),
    ),
    ("a VLAN as port", [_BRIDGE, _PORT, KernelLink(8, "eth0.7", "vlan", 4, peer_elsewhere=True)], [_ADDRESS], [], ()),
    ("a tap as port: a VPN, a virtual machine", [_BRIDGE, KernelLink(8, "tap0", "tun", 4, False)], [_ADDRESS], [], ()),
    ("a veth to another bridge of this machine", [_BRIDGE, KernelLink(8, "v", "veth", 4, False)], [_ADDRESS], [], ()),
    ("no bridge: a hotspot, a cable", [KernelLink(4, "wlan0", "", 0, peer_elsewhere=False)], [_ADDRESS], [], ()),
    ("a bond of veths", [KernelLink(4, "bond0", "bond", 0, peer_elsewhere=False), _PORT], [_ADDRESS], [], ()),
    ("no address: this machine routes nothing", [_BRIDGE, _PORT], [], [_UPLINK], ()),
    (
        "a public network",
        [_BRIDGE, _PORT],
        [KernelAddress(4, IPv4Interface("203.0.113.1/24"))],
        [_UPLINK],
        (),
    ),
    (
        "the uplink of a machine that is a container itself",
        [_BRIDGE, _PORT],
        [_ADDRESS],
        [KernelRoute(IPv4Network("0.0.0.0/0"), 4, IPv4Address("172.17.0.254"), 254, 1, 3)],
        (),
    ),
    ("a name that is none", [KernelLink(4, 'a"; drop', "bridge", 0, False), _PORT], [_ADDRESS], [], ()),
    (
        "two networks on one bridge",
        [_BRIDGE, _PORT],
        [_ADDRESS, KernelAddress(4, IPv4Interface("10.7.0.1/24"))],
        [],
        (Bridge("docker0", IPv4Network("10.7.0.0/24")), _DOCKER0),
    ),
]


@pytest.mark.parametrize(
    ("links", "addresses", "routes", "bridges"), [case[1:] for case in _CASES], ids=[case[0] for case in _CASES]
)
def test_decision(
    links: list[KernelLink],
    addresses: list[KernelAddress],
    routes: list[KernelRoute],
    bridges: tuple[Bridge, ...],
) -> None:
    assert container_bridges(links, addresses, routes) == bridges
