"""Policy rules: bytes from a real kernel (6.18), and what is cut off."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.netlink.rules import KernelRule, parse_rule, rules_dump

LOCAL = "02000000 ff000001 00000000 08000f00 ff000000 08000e00 ffffffff 05001500 02000000"
VPN = (
    "02100000 fc000001 00000000 08000f00 6cca0000 08000e00 ffffffff 05001500 00000000 08000600 63000000 08000100 "
    "0a600000"
)  # 99: from all to 10.96.0.0/16 lookup 51820
MAIN = "02000000 fe000001 00000000 08000f00 fe000000 08000e00 ffffffff 05001500 02000000 08000600 fe7f0000"


def test_question() -> None:
    assert rules_dump().pack(1).hex(" ", 4) == "1c000000 22000103 01000000 00000000 02000000 00000000 00000000"


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


@given(st.binary(max_size=64))
def test_whatever_comes_is_survived(data: bytes) -> None:
    parse_rule(memoryview(data))
