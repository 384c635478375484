"""Messages as `ip` sends them (strace of iproute2 6.1), and whatever the kernel or chance may answer."""

import struct
from ipaddress import IPv4Address, IPv4Network

from hypothesis import given
from hypothesis import strategies as st

from meshdev.netlink.messages import (
    KernelRoute,
    attribute,
    attributes,
    link_forwarding,
    nested,
    parse_flow,
    parse_route,
    replies,
    route_add,
    route_delete,
    routes_dump,
)


def test_a_route_to_add() -> None:
    message = route_add(IPv4Network("10.96.0.0/16"), 7, IPv4Address("198.18.0.7"))
    assert message.pack(5) == bytes.fromhex(
        "3c000000 1800 0506 05000000 00000000"  # length, RTM_NEWROUTE, REQUEST ACK EXCL CREATE, sequence, port
        "02 10 00 00 fe fd fd 01 00000000"  # AF_INET /16, table main, protocol 253, scope link, unicast
        "0800 0100 0a600000"  # RTA_DST
        "0800 0400 07000000"  # RTA_OIF
        "0800 0600 07000000"  # RTA_PRIORITY
        "0800 0700 c6120007"  # RTA_PREFSRC
    )


def test_a_device_may_forward() -> None:
    assert link_forwarding(7).body == bytes.fromhex(
        "00000000 07000000 00000000 00000000"  # struct ifinfomsg
        "1400 1a80"  # IFLA_AF_SPEC
        "1000 0280"  # AF_INET
        "0c00 0180"  # IFLA_INET_CONF
        "0800 0100 01000000"  # IPV4_DEVCONF_FORWARDING
    )


def test_a_route_to_delete_names_device_and_protocol() -> None:
    message = route_delete(IPv4Network("10.96.0.0/16"), 7)
    assert (
        message.body.hex() == "02100000fefdfd0100000000" + "080001000a600000" + "0800040007000000" + "0800060007000000"
    )


def test_a_route_is_read_as_it_was_written() -> None:
    body = memoryview(route_add(IPv4Network("10.96.0.0/16"), 7, IPv4Address("198.18.0.7")).body)
    assert parse_route(body) == KernelRoute(IPv4Network("10.96.0.0/16"), 7, None, 254, 1, 253)


def test_a_default_route_with_a_gateway_in_a_big_table() -> None:
    body = struct.pack("<BBBBBBBBI", 2, 0, 0, 0, 0, 3, 0, 1, 0)
    body += attribute(15, struct.pack("<I", 51820)) + attribute(5, bytes([192, 0, 2, 1])) + attribute(4, b"\x02\0\0\0")
    assert parse_route(memoryview(body)) == KernelRoute(
        IPv4Network("0.0.0.0/0"), 2, IPv4Address("192.0.2.1"), 51820, 1, 3
    )


def test_what_is_no_ipv4_route_is_skipped() -> None:
    assert parse_route(memoryview(b"")) is None
    assert parse_route(memoryview(struct.pack("<BBBBBBBBI", 10, 0, 0, 0, 0, 3, 0, 1, 0))) is None
    assert parse_route(memoryview(struct.pack("<BBBBBBBBI", 2, 32, 0, 0, 0, 3, 0, 1, 0x200))) is None


def test_messages_and_attributes_are_padded_and_cut_off_ones_end_the_list() -> None:
    datagram = routes_dump().pack(1) + routes_dump().pack(2)
    assert [reply.sequence for reply in replies(datagram)] == [1, 2]
    assert [reply.sequence for reply in replies(datagram[:-1])] == [1]
    data = memoryview(attribute(1, b"abc") + nested(2, attribute(3, b"x")))
    assert {kind: bytes(value) for kind, value in attributes(data).items()} == {1: b"abc", 2: attribute(3, b"x")}
    assert list(attributes(data[:9])) == [1]


def test_a_tracked_flow() -> None:
    def tuple_(kind: int, source: bytes, destination: bytes, ports: tuple[int, int]) -> bytes:
        ip = nested(1, attribute(1, source), attribute(2, destination))
        numbers = [attribute(number + 2, port.to_bytes(2, "big")) for number, port in enumerate(ports)]
        zone = attribute(3, b"\x12\x34") if kind == 1 else b""
        return nested(kind, ip, nested(2, attribute(1, b"\x11"), *numbers), zone)

    me, server, loopback = bytes([192, 0, 2, 2]), bytes([192, 0, 2, 1]), bytes([127, 0, 0, 1])
    body = struct.pack(">BBH", 2, 0, 0) + tuple_(1, me, server, (4000, 53)) + tuple_(2, loopback, me, (5300, 4000))
    flow = parse_flow(memoryview(body + attribute(12, b"\1\2\3\4")))
    assert flow is not None
    assert (flow.protocol, flow.source, flow.zone) == (17, (me, 4000), 0x1234)
    assert (flow.sent_to, flow.went_to) == ((server, 53), (loopback, 5300))
    assert flow.key.endswith(attribute(12, b"\1\2\3\4"))


@given(st.binary(max_size=300))
def test_random_bytes_are_harmless(data: bytes) -> None:
    list(replies(data))
    attributes(memoryview(data))
    for parse in (parse_route, parse_flow):
        try:
            parse(memoryview(data))
        except (ValueError, IndexError):
            raise AssertionError(data.hex()) from None
