"""Devices and addresses: bytes as the kernel lists them (some from a real one, 6.18), and what is cut off."""

import struct
from ipaddress import IPv4Interface

from hypothesis import given
from hypothesis import strategies as st

from meshdev.netlink.links import (
    KernelAddress,
    KernelLink,
    addresses_dump,
    link_get,
    links_dump,
    parse_address,
    parse_link,
)
from meshdev.netlink.messages import attribute, nested

_HEAD = struct.pack("<BxHiII", 0, 1, 7, 0, 0)


def test_a_port_of_a_bridge() -> None:
    body = _HEAD + attribute(3, b"veth1\0") + attribute(10, struct.pack("<I", 4))
    body += nested(18, attribute(1, b"veth\0")) + attribute(37, struct.pack("<i", 0))
    assert parse_link(memoryview(body)) == KernelLink(7, "veth1", "veth", 4, peer_elsewhere=True)


def test_a_physical_device() -> None:
    assert parse_link(memoryview(_HEAD + attribute(3, b"eth0\0"))) == KernelLink(7, "eth0", "", 0, peer_elsewhere=False)


def test_devices_without_neighbours() -> None:
    ethernet, tun, wireguard = 0x11043, 0x110D1, 0x100C1  # flags of linux/if.h
    found = [parse_link(memoryview(struct.pack("<BxHiII", 0, 1, 7, flags, 0))) for flags in (ethernet, tun, wireguard)]
    assert [link is not None and link.tunnel for link in found] == [False, True, True]


def test_a_device_of_ours() -> None:
    """Index 7, up or down, MTU 1450."""
    up = bytes.fromhex("0000feff 07000000 d1100100 00000000 08000400aa050000")
    down = bytes.fromhex("0000feff 07000000 90100000 00000000 08000400aa050000")
    assert parse_link(memoryview(up)) == KernelLink(7, tunnel=True, up=True, mtu=1450)
    assert parse_link(memoryview(down)) == KernelLink(7, tunnel=True, up=False, mtu=1450)
    assert parse_link(memoryview(up[:7])) is None
    assert parse_link(memoryview(_HEAD[:-1])) is None


def test_an_address_of_ours() -> None:
    body = bytes.fromhex("02208000 07000000 08000100c6120007 08000200c6120007")
    assert parse_address(memoryview(body)) == KernelAddress(7, IPv4Interface("198.18.0.7/32"))
    assert parse_address(memoryview(body[:7])) is None


def test_an_address_with_its_network() -> None:
    body = struct.pack("<BBBBI", 2, 16, 0, 0, 4) + attribute(2, bytes([172, 17, 0, 1]))
    assert parse_address(memoryview(body)) == KernelAddress(4, IPv4Interface("172.17.0.1/16"))


def test_an_ipv6_address_is_left_out() -> None:
    assert parse_address(memoryview(struct.pack("<BBBBI", 10, 64, 0, 0, 4) + attribute(2, bytes(16)))) is None


def test_requests() -> None:
    assert link_get(7).pack(1).hex(" ", 4) == "20000000 12000500 01000000 00000000 00000000 07000000 00000000 00000000"
    assert links_dump().pack(1).hex() == "2000000012000103" + "0100000000000000" + bytes(16).hex()
    assert addresses_dump().pack(1).hex() == "1800000016000103" + "0100000000000000" + "0200000000000000"


@given(st.binary(max_size=200))
def test_anything_is_read_without_an_error(data: bytes) -> None:
    parse_link(memoryview(data))
    parse_address(memoryview(data))
