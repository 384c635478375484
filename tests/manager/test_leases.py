"""Which address a session gets."""

from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.config import ADDRESS_POOLS, gateway
from meshdev.errors import TunnelError
from meshdev.manager.tunnel.leases import lease

FIRST, SECOND, THIRD = ADDRESS_POOLS


def at(text: str) -> IPv4Address:
    return IPv4Address(text)


@pytest.mark.parametrize(
    ("pools", "wanted", "taken", "after", "expected"),
    [
        ([FIRST], None, [], None, "198.18.0.2"),
        ([FIRST], None, ["198.18.0.2"], None, "198.18.0.3"),
        ([FIRST], None, [], "198.18.0.2", "198.18.0.3"),
        ([FIRST], None, ["198.18.0.3"], "198.18.0.2", "198.18.0.4"),
        ([FIRST], None, [], "198.18.255.254", "198.18.0.2"),
        ([FIRST], None, ["198.18.0.2"], "198.18.255.253", "198.18.255.254"),
        ([FIRST], "198.18.7.7", [], "198.18.0.2", "198.18.7.7"),
        ([FIRST], "198.18.7.7", ["198.18.7.7"], None, "198.18.0.2"),
        ([FIRST], "198.18.0.1", [], None, "198.18.0.2"),
        ([FIRST], "198.18.0.0", [], None, "198.18.0.2"),
        ([FIRST], "198.18.255.255", [], None, "198.18.0.2"),
        ([FIRST], "10.0.0.5", [], None, "198.18.0.2"),
        ([SECOND], "198.18.7.7", [], None, "198.19.0.2"),
        ([SECOND, FIRST], None, [], "198.18.0.9", "198.19.0.2"),
        ([THIRD, FIRST], "198.18.7.7", [], None, "198.18.7.7"),
        ([IPv4Network("10.0.0.0/8"), FIRST], None, [], None, "198.18.0.2"),
    ],
)
def test_the_table(
    pools: list[IPv4Network], wanted: str | None, taken: list[str], after: str | None, expected: str
) -> None:
    address, pool = lease(
        pools, at(wanted) if wanted else None, {at(one) for one in taken}, at(after) if after else None
    )
    assert address == at(expected)
    assert address in pool


def test_foreign_ranges_only() -> None:
    with pytest.raises(TunnelError, match="none of the address ranges"):
        lease([IPv4Network("10.0.0.0/8")], None, set(), None)
    with pytest.raises(TunnelError, match="none of the address ranges"):
        lease([], at("198.18.0.2"), set(), None)


class Everything(frozenset[IPv4Address]):
    """Contains every address."""

    def __contains__(self, _: object) -> bool:
        return True


def test_a_full_pool() -> None:
    with pytest.raises(TunnelError, match="every session address is taken"):
        lease([FIRST], None, Everything(), None)


near = st.integers(0, 12).map(lambda n: FIRST[n]) | st.integers(1, 12).map(lambda n: FIRST[-n])


@given(st.sets(near), st.none() | near, st.none() | near)
def test_never_taken_never_the_gateway_and_what_was_wanted_where_possible(
    taken: set[IPv4Address], wanted: IPv4Address | None, after: IPv4Address | None
) -> None:
    address, pool = lease([FIRST], wanted, taken, after)
    assert pool == FIRST
    assert address not in taken
    assert gateway(FIRST) < address < FIRST.broadcast_address
    if wanted is not None and wanted not in taken and gateway(FIRST) < wanted < FIRST.broadcast_address:
        assert address == wanted


@given(st.integers(1, 40))
def test_a_freed_address_is_used_again_last(rounds: int) -> None:
    last, seen = None, set()
    for _ in range(rounds):
        last, _ = lease([FIRST], None, set(), last)
        assert last not in seen
        seen.add(last)
