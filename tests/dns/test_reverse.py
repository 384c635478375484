"""Reverse names, both directions."""

from ipaddress import IPv4Address, IPv4Network

import dns.name

from meshdev.dns.reverse import reverse_address, reverse_zones


def test_reverse_address() -> None:
    assert reverse_address(dns.name.from_text("7.0.96.10.in-addr.arpa")) == IPv4Address("10.96.0.7")
    assert reverse_address(dns.name.from_text("256.0.96.10.in-addr.arpa")) is None
    assert reverse_address(dns.name.from_text("a.b.c.d.in-addr.arpa")) is None


def test_zones_of_ranges() -> None:
    networks = [IPv4Network("10.244.3.7/32"), IPv4Network("10.96.0.0/16"), IPv4Network("10.8.0.0/15")]
    assert reverse_zones(networks, 9) == (
        "8.10.in-addr.arpa",
        "9.10.in-addr.arpa",
        "96.10.in-addr.arpa",
        "7.3.244.10.in-addr.arpa",
    )


def test_a_range_of_too_many_zones_is_left_out() -> None:
    assert reverse_zones([IPv4Network("10.0.0.0/9"), IPv4Network("10.244.0.0/24")], 64) == ("0.244.10.in-addr.arpa",)
    assert reverse_zones([IPv4Network("10.0.0.0/8")], 1) == ("10.in-addr.arpa",)
