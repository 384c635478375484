"""Which address a session gets, and how long it rests afterwards."""

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.config import ADDRESS_POOLS, gateway
from meshdev.errors import TunnelError
from meshdev.manager.tunnel import address_file, addresses
from meshdev.manager.tunnel.addresses import REST_SECONDS, SessionAddresses
from tests.loops import Clock

FIRST, SECOND, THIRD = ADDRESS_POOLS
ANN, BOB = b"ann", b"bob"


def at(text: str) -> IPv4Address:
    return IPv4Address(text)


def made(taken: list[str], after: str | None) -> SessionAddresses:
    """Leases with these taken, *after* being the last one given."""
    found = SessionAddresses(Clock())
    for one in [*taken, *([after] if after else [])]:
        lease = found.take(ADDRESS_POOLS, at(one), BOB)
        assert lease.address == at(one)
    if after and after not in taken:
        found.cancel(lease)
    return found


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
        ([FIRST], "198.18.7.7", ["198.18.7.7"], None, "198.18.7.8"),
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
    lease = made(taken, after).take(pools, at(wanted) if wanted else None, ANN)
    assert lease.address == at(expected)
    assert lease.address in lease.pool
    assert not lease.stale


def test_foreign_ranges_only() -> None:
    with pytest.raises(TunnelError, match="none of the address ranges"):
        SessionAddresses(Clock()).take([IPv4Network("10.0.0.0/8")], None, ANN)
    with pytest.raises(TunnelError, match="none of the address ranges"):
        SessionAddresses(Clock()).take([], at("198.18.0.2"), ANN)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> IPv4Network:
    """A pool of five addresses: 2 to 6 (1 is the gateway, 7 the broadcast address)."""
    pool = IPv4Network("198.18.0.0/29")
    monkeypatch.setattr(addresses, "ADDRESS_POOLS", (pool,))
    return pool


def test_an_address_rests_and_only_its_session_gets_it_back(small: IPv4Network) -> None:
    clock = Clock()
    found = SessionAddresses(clock)
    address = found.take([small], None, ANN).address
    found.release(address)
    assert found.take([small], address, BOB).address != address
    again = found.take([small], address, ANN)
    assert (again.address, again.stale) == (address, False)


def test_after_its_rest_and_a_flush_anybody_gets_it(small: IPv4Network) -> None:
    clock = Clock()
    found = SessionAddresses(clock)
    address = found.take([small], None, ANN).address
    assert found.next_due() is None
    found.release(address)
    assert (found.due(), found.next_due()) == ([], REST_SECONDS)
    clock.now += REST_SECONDS
    (rest,) = found.due()
    assert (rest.address, found.due(), found.next_due()) == (address, [], None)
    assert found.take([small], address, BOB).address != address, "its connections are not forgotten yet"
    found.free(rest)
    lease = found.take([small], address, BOB)
    assert (lease.address, lease.stale) == (address, False)


def test_a_failed_flush_begins_the_rest_anew(small: IPv4Network) -> None:
    clock = Clock()
    found = SessionAddresses(clock)
    found.release(found.take([small], None, ANN).address)
    clock.now += REST_SECONDS
    found.rest_again(found.due()[0])
    assert (found.due(), found.next_due()) == ([], REST_SECONDS)


def test_a_flush_that_ends_late_does_not_free_what_was_taken_and_rests_anew(small: IPv4Network) -> None:
    clock = Clock()
    found = SessionAddresses(clock)
    address = found.take([small], None, ANN).address
    found.release(address)
    clock.now += REST_SECONDS
    (rest,) = found.due()
    assert found.take([small], address, ANN).address == address
    found.release(address)
    found.free(rest)
    assert found.take([small], address, BOB).address != address


def test_the_one_that_rested_longest_is_given_where_nothing_else_is_left(small: IPv4Network) -> None:
    clock = Clock()
    found = SessionAddresses(clock)
    addresses = [found.take([small], None, ANN).address for _ in range(5)]
    with pytest.raises(TunnelError, match="every session address is taken"):
        found.take([small], None, BOB)
    for address in (addresses[3], addresses[1]):
        found.release(address)
        clock.now += 1
    lease = found.take([small], None, BOB)
    assert (lease.address, lease.stale) == (addresses[3], True)


def test_who_was_refused_has_no_claim_on_the_address(small: IPv4Network) -> None:
    found = SessionAddresses(Clock())
    addresses = [found.take([small], None, ANN).address for _ in range(5)]
    found.release(addresses[0])
    lease = found.take([small], None, BOB)
    assert lease.stale
    found.cancel(lease)
    assert found.take([small], addresses[0], BOB).stale, "it is still the former session's"


def test_a_bounded_number_rests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "MAX_RESTING", 3)
    found = SessionAddresses(Clock())
    taken = [found.take([FIRST], None, ANN).address for _ in range(5)]
    for address in taken:
        found.release(address)
    assert [rest.address for rest in found.due()] == taken[:2]


def test_the_next_process_of_the_pod_knows_them(tmp_path: Path) -> None:
    file = tmp_path / "addresses.json"
    assert address_file.read(file) == {}
    found = SessionAddresses(Clock())
    resting, live = (found.take([FIRST], None, proof).address for proof in (ANN, BOB))
    found.release(resting)
    address_file.write(file, found.known())
    after = SessionAddresses(Clock(), address_file.read(file))
    assert after.take([FIRST], resting, BOB).address not in {resting, live}
    assert after.take([FIRST], live, BOB).address == live
    assert after.take([FIRST], resting, ANN).address == resting


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '{"a": "b"}', '{"198.18.0.2": 1}', "[" * 100_000, '{"198.18.0.2":"zz"}']
)
def test_a_file_that_says_nothing_is_no_harm(tmp_path: Path, text: str) -> None:
    file = tmp_path / "addresses.json"
    file.write_text(text)
    assert address_file.read(file) == {}


near = st.integers(0, 12).map(lambda n: FIRST[n]) | st.integers(1, 12).map(lambda n: FIRST[-n])


@given(st.sets(near), st.none() | near)
def test_never_taken_never_the_gateway_and_what_was_wanted_where_possible(
    taken: set[IPv4Address], wanted: IPv4Address | None
) -> None:
    found = SessionAddresses(Clock())
    held = {found.take([FIRST], one, BOB).address for one in taken}
    lease = found.take([FIRST], wanted, ANN)
    assert lease.pool == FIRST
    assert lease.address not in held
    assert gateway(FIRST) < lease.address < FIRST.broadcast_address
    if wanted is not None and wanted not in held and gateway(FIRST) < wanted < FIRST.broadcast_address:
        assert lease.address == wanted


@given(st.integers(1, 40))
def test_a_freed_address_is_used_again_last(rounds: int) -> None:
    clock = Clock()
    found = SessionAddresses(clock)
    seen = set()
    for _ in range(rounds):
        clock.now += REST_SECONDS
        address = found.take([FIRST], None, ANN).address
        found.release(address)
        for rest in found.due():
            found.free(rest)
        assert address not in seen
        seen.add(address)
