"""Socket diagnosis: bytes of the kernel, and this machine's own sockets."""

import socket
from ipaddress import IPv4Address, IPv6Address

import pytest

from meshdev.netlink import diag
from meshdev.netlink.diag import Socket, ends, mirror, parse_socket, socket_at, socket_destroy, sockets_dump
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


def test_the_other_end_of_a_connection() -> None:
    other = bytes.fromhex("9c40 1f90 0a000009" + 24 * "0" + "0a000007" + 24 * "0")
    assert ends(memoryview(MESSAGE)) == KEY[: len(other)]
    assert mirror(memoryview(MESSAGE)) == other
    assert mirror(memoryview(b"\2\1\0\0" + other + bytes(32))) == KEY[: len(other)]
    mapped, six = "0" * 20 + "ffff", "20010db8" + 23 * "0"
    of_ipv4 = bytes.fromhex("0a 01 00 00 1f90 9c40" + mapped + "0a000007" + mapped + "0a000009")
    assert mirror(memoryview(of_ipv4)) == other
    of_ipv6 = bytes.fromhex("0a 01 00 00 1f90 9c40" + six + "7" + six + "9")
    assert mirror(memoryview(of_ipv6)) == bytes.fromhex("9c40 1f90" + six + "9" + six + "7")


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


LOCALHOST = IPv4Address("127.0.0.1")


def holder(protocol: int, address: IPv4Address | IPv6Address, port: int) -> Socket | None:
    """Who takes what is sent there."""
    with Netlink(diag.NETLINK_SOCK_DIAG) as netlink:
        try:
            (body,) = netlink.dump(socket_at(address, port, protocol))
        except FileNotFoundError:  # ENOENT
            return None
    return parse_socket(body)


def bound(protocol: int, host: str, *, v6only: bool = False) -> socket.socket:
    kind = socket.SOCK_STREAM if protocol == diag.TCP else socket.SOCK_DGRAM
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    if ":" in host:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    sock.bind((host, 0))
    if protocol == diag.TCP:
        sock.listen()
    return sock


def test_the_question_who_is_there() -> None:
    asked = socket_at(LOCALHOST, 8080, diag.TCP).pack(7)
    ends = "1f901f90" + 2 * ("7f000001" + 24 * "0")
    assert asked.hex() == "4800000014000500" + "0700000000000000" + "0206000000000000" + ends + 8 * "0" + 16 * "f"


@pytest.mark.parametrize("protocol", [diag.TCP, diag.UDP])
@pytest.mark.parametrize(
    ("host", "v6only", "by_ipv4", "by_ipv6"),
    [
        ("127.0.0.1", False, True, False),
        ("0.0.0.0", False, True, False),
        ("127.0.0.2", False, False, False),
        ("::", False, True, True),
        ("::", True, False, True),
        ("::1", False, False, True),
        ("::ffff:127.0.0.1", False, True, False),
    ],
)
def test_the_kernel_tells_who_takes_it(protocol: int, host: str, v6only: bool, by_ipv4: bool, by_ipv6: bool) -> None:
    with bound(protocol, host, v6only=v6only) as sock:
        port = sock.getsockname()[1]
        found = [holder(protocol, address, port) for address in (LOCALHOST, IPv6Address("::1"))]
    assert [each is not None for each in found] == [by_ipv4, by_ipv6]
    state = diag.LISTEN if protocol == diag.TCP else diag.UNCONNECTED
    assert {each.state for each in found if each} <= {state}


def test_nobody_is_where_a_socket_is_connected_only() -> None:
    with bound(diag.UDP, "127.0.0.1") as sock, bound(diag.UDP, "127.0.0.1") as other:
        sock.connect(other.getsockname())
        assert holder(diag.UDP, LOCALHOST, sock.getsockname()[1]) is None
