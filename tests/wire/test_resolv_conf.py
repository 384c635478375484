"""resolv.conf as programs read it."""

from ipaddress import IPv4Address, ip_address

import pytest

from meshdev.wire.helper.limits import MAX_UPSTREAMS
from meshdev.wire.resolv_conf import ResolvConf, parse_resolv_conf


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ResolvConf()),
        ("nameserver 192.0.2.1\n", ResolvConf((IPv4Address("192.0.2.1"),))),
        (
            "nameserver\t192.0.2.1 # x\r\nnameserver 2001:db8::1",
            ResolvConf((ip_address("192.0.2.1"), ip_address("2001:db8::1"))),
        ),
        ("nameserver fe80::1%eth0", ResolvConf((ip_address("fe80::1%eth0"),))),
        ("#nameserver 192.0.2.1\n; nameserver 192.0.2.2\nnameserver\nnameserver x\nnameserver 1.2.3.4.5", ResolvConf()),
        ("nameserver 192.0.2.1\nnameserver 192.0.2.1", ResolvConf((ip_address("192.0.2.1"),))),
        ("search A.Example. b.example .", ResolvConf((), ("a.example", "b.example"))),
        ("search a.example\ndomain b.example", ResolvConf((), ("b.example",))),
        ("search a b\nsearch", ResolvConf()),
        ("search $(reboot) a\x00b ok ..", ResolvConf((), ("ok",))),
        ("options ndots:2 rotate\noptions edns0", ResolvConf((), (), ("ndots:2", "rotate", "edns0"))),
        ("NAMESERVER 192.0.2.1", ResolvConf()),
    ],
)
def test_resolv_conf(text: str, expected: ResolvConf) -> None:
    assert parse_resolv_conf(text) == expected


def test_a_file_without_nameservers_means_this_machine() -> None:
    assert parse_resolv_conf("").asked == (IPv4Address("127.0.0.1"),)


def test_there_is_an_end_to_what_is_read() -> None:
    text = "".join(f"nameserver 10.0.{number >> 8}.{number & 255}\n" for number in range(10_000))
    assert len(parse_resolv_conf(text).nameservers) == MAX_UPSTREAMS
    assert len(parse_resolv_conf("search " + " ".join(f"n{number}" for number in range(1000))).search) == 32
