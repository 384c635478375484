"""Destinations, policy rules and notifications: bytes from a real kernel (6.18), and what is cut off."""

from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.netlink.lookups import (
    KernelRule,
    Lookup,
    concerns,
    parse_lookup,
    parse_rule,
    route_get,
    rules_dump,
)
from meshdev.netlink.messages import RTM_DELADDR, RTM_DELLINK, RTM_DELROUTE

LINK = bytes.fromhex("0000feff 07000000 d1100100 00000000 08000400aa050000")  # index 7, up, MTU 1450
DOWN = bytes.fromhex("0000feff 07000000 90100000 00000000 08000400aa050000")
ADDRESS = bytes.fromhex("02208000 07000000 08000100c6120007 08000200c6120007")  # 198.18.0.7/32
ROUTE = bytes.fromhex("02200000 fefd0001 00020000 08000f00fe000000 080001000a600001 0800040007000000")
RULED = bytes.fromhex("02200000 fcfd0001 00020000 08000f0000010000 080001000a600001 0800040009000000")

LOCAL = "02000000 ff000001 00000000 08000f00 ff000000 08000e00 ffffffff 05001500 02000000"
VPN = (
    "02100000 fc000001 00000000 08000f00 6cca0000 08000e00 ffffffff 05001500 00000000 08000600 63000000 08000100 "
    "0a600000"
)  # 99: from all to 10.96.0.0/16 lookup 51820
MAIN = "02000000 fe000001 00000000 08000f00 fe000000 08000e00 ffffffff 05001500 02000000 08000600 fe7f0000"


def view(data: bytes) -> memoryview:
    """As the socket gives it."""
    return memoryview(data)


def test_questions() -> None:
    assert route_get(IPv4Address("10.96.0.1")).pack(1).hex(" ", 4) == (
        "24000000 1a000500 01000000 00000000 02200000 00000000 00100000 08000100 0a600001"
    )
    assert rules_dump().pack(1).hex(" ", 4) == "1c000000 22000103 01000000 00000000 02000000 00000000 00000000"


def test_answers() -> None:
    assert parse_lookup(view(ROUTE)) == Lookup(7, 254)
    assert parse_lookup(view(RULED)) == Lookup(9, 256)


@pytest.mark.parametrize(
    ("kind", "body", "index", "concerned"),
    [
        (16, DOWN, 7, True),
        (16, DOWN, 8, False),
        (RTM_DELLINK, LINK, 7, True),
        (RTM_DELADDR, ADDRESS, 7, True),
        (RTM_DELADDR, ADDRESS, 6, False),
        (RTM_DELROUTE, ROUTE, 7, True),
        (RTM_DELROUTE, RULED, 7, False),
        (20, ADDRESS, 7, False),  # an address more takes nothing away
        (24, ROUTE, 7, False),  # nor does a route
    ],
)
def test_what_news_concern(kind: int, body: bytes, index: int, concerned: bool) -> None:
    assert concerns(kind, view(body), index) is concerned


@given(st.integers(0, 40), st.binary(max_size=64))
def test_whatever_comes_is_survived(kind: int, data: bytes) -> None:
    concerns(kind, view(data), 7)
    parse_lookup(view(data))
    parse_rule(view(data))


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (LOCAL, KernelRule(0, 255)),
        (VPN, KernelRule(99, 51820)),
        (MAIN, KernelRule(32766, 254)),
        ("02000000 ff000001 00000000", KernelRule(0, 255)),
        ("02000000 ff0000", None),
    ],
)
def test_rules(data: str, found: KernelRule | None) -> None:
    assert parse_rule(memoryview(bytes.fromhex(data))) == found


def test_what_is_cut_off_is_nothing() -> None:
    assert parse_lookup(view(ROUTE[:7])) is None
