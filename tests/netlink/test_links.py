"""Devices and addresses as the kernel lists them."""

import struct
from ipaddress import IPv4Interface

from hypothesis import given
from hypothesis import strategies as st

from meshdev.netlink.links import (
    KernelAddress,
    KernelLink,
    addresses_dump,
    links_dump,
    parse_address,
    parse_link,
    parse_tunnel,
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
    found = [
        parse_tunnel(memoryview(struct.pack("<BxHiII", 0, 1, 7, flags, 0))) for flags in (ethernet, tun, wireguard)
    ]
    assert found == [None, 7, 7]
    assert parse_tunnel(memoryview(_HEAD[:-1])) is None


def test_an_address_with_its_network() -> None:
    body = struct.pack("<BBBBI", 2, 16, 0, 0, 4) + attribute(2, bytes([172, 17, 0, 1]))
    assert parse_address(memoryview(body)) == KernelAddress(4, IPv4Interface("172.17.0.1/16"))


def test_an_ipv6_address_is_left_out() -> None:
    assert parse_address(memoryview(struct.pack("<BBBBI", 10, 64, 0, 0, 4) + attribute(2, bytes(16)))) is None


def test_dumps() -> None:
    assert links_dump().pack(1).hex() == "2000000012000103" + "0100000000000000" + bytes(16).hex()
    assert addresses_dump().pack(1).hex() == "1800000016000103" + "0100000000000000" + "0200000000000000"


@given(st.binary(max_size=200))
def test_anything_is_read_without_an_error(data: bytes) -> None:
    parse_link(memoryview(data))
    parse_address(memoryview(data))
