"""Rules and routes of a mark: the bytes, there and back."""

from hypothesis import given
from hypothesis import strategies as st

from meshdev.netlink.rules import (
    MarkRule,
    local_route_add,
    local_route_delete,
    mark_rule_add,
    mark_rule_delete,
    parse_mark_rule,
    rules_dump,
)

RULE = MarkRule(2, 0x12340D13)
#: struct fib_rule_hdr; FRA_FWMARK, FRA_FWMASK, FRA_TABLE, FRA_PROTOCOL.
BODY = bytes.fromhex(
    "02 00 00 00 00 00 00 01 000000000800 0a00 130d3412  0800 1000 ffffffff  0800 0f00 130d3412  0500 1500 fd 000000"
)


def test_a_rule() -> None:
    added, deleted = mark_rule_add(RULE), mark_rule_delete(RULE)
    assert (added.kind, added.flags, added.body) == (32, 0x604, BODY)
    assert (deleted.kind, deleted.flags, deleted.body) == (33, 0x4, BODY)
    assert parse_mark_rule(memoryview(BODY)) == RULE


def test_rules_of_others() -> None:
    changes = {
        "another protocol": (40, b"\x03"),
        "another mask": (24, b"\xff\x0f\0\0"),
        "another table": (32, b"\x85\0\0\0"),
        "unreachable": (7, b"\x07"),
    }
    for name, (offset, value) in changes.items():
        body = BODY[:offset] + value + BODY[offset + len(value) :]
        assert body != BODY, name
        assert parse_mark_rule(memoryview(body)) is None, name
    assert parse_mark_rule(memoryview(BODY[:12])) is None


def test_a_route() -> None:
    body = bytes.fromhex("02 00 00 00 00 fd fe 02 00000000  0800 0f00 130d3412  0800 0400 01000000")
    assert (local_route_add(RULE, 1).kind, local_route_add(RULE, 1).body) == (24, body)
    assert (local_route_delete(RULE, 1).kind, local_route_delete(RULE, 1).body) == (25, body)


def test_of_ipv6() -> None:
    assert mark_rule_add(MarkRule(10, 1)).body[0] == local_route_add(MarkRule(10, 1), 1).body[0] == 10
    assert rules_dump(10).body[0] == 10


@given(st.binary(max_size=100))
def test_random_bytes_are_harmless(data: bytes) -> None:
    parse_mark_rule(memoryview(data))
