"""Socket diagnosis: bytes of the kernel, and this machine's own sockets."""

import socket
from ipaddress import IPv4Address, IPv6Address

import pytest

from meshdev.netlink import diag
from meshdev.netlink.diag import Socket, parse_socket, socket_destroy, sockets_dump
from meshdev.netlink.sock import Netlink

#: 10.0.0.7:8080 ← 10.0.0.9:40000, established, on interface 0, cookie 0102030405060708.
KEY = bytes.fromhex("1f90 9c400a000007" + 24 * "0" + "0a000009" + 24 * "0" + "000000000102030405060708")
MESSAGE = bytes.fromhex("02 01 00 00") + KEY + bytes(20)


def test_a_socket() -> None:
    found = parse_socket(memoryview(MESSAGE))
    assert found == Socket(2, 1, IPv4Address("10.0.0.7"), 8080, IPv4Address("10.0.0.9"), KEY)


def test_an_ipv4_peer_of_an_ipv6_socket() -> None:
    mapped = "0" * 20 + "ffff"
    key = bytes.fromhex("1f90 9c40" + mapped + "0a000007" + mapped + "0a000009" + 24 * "0")
    found = parse_socket(memoryview(bytes.fromhex("0a 01 00 00") + key + bytes(20)))
    assert found is not None
    assert (found.local, found.remote) == (IPv4Address("10.0.0.7"), IPv4Address("10.0.0.9"))


@pytest.mark.parametrize("body", [b"", MESSAGE[:40], b"\x01" + MESSAGE[1:]])
def test_what_is_none(body: bytes) -> None:
    assert parse_socket(memoryview(body)) is None


def test_requests() -> None:
    dump = sockets_dump(diag.AF_INET, diag.TCP, (diag.LISTEN, diag.ESTABLISHED)).pack(7)
    assert dump.hex() == "4800000014000103070000000000000002 06 00 00 02040000".replace(" ", "") + 96 * "0"
    found = parse_socket(memoryview(MESSAGE))
    assert found is not None
    destroy = socket_destroy(found, diag.TCP)
    assert (destroy.kind, destroy.body) == (21, bytes.fromhex("02 06 00 00 02000000") + KEY)


@pytest.mark.parametrize(("family", "host"), [(diag.AF_INET, "127.0.0.1"), (diag.AF_INET6, "::1")])
def test_the_kernel_tells_of_a_listener(family: int, host: str) -> None:
    kind = socket.AF_INET if family == diag.AF_INET else socket.AF_INET6
    with socket.create_server((host, 0), family=kind) as listener, Netlink(diag.NETLINK_SOCK_DIAG) as netlink:
        bodies = netlink.dump(sockets_dump(family, diag.TCP, (diag.LISTEN,)))
        found = {(each.local, each.port) for each in map(parse_socket, bodies) if each is not None}
        local = IPv4Address(host) if family == diag.AF_INET else IPv6Address(host)
        assert (local, listener.getsockname()[1]) in found
