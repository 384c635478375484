"""An address that had a session: when another one gets it, and what is done before."""

from concurrent.futures import Future
from ipaddress import IPv4Network

import pytest

from meshdev.config import ADDRESS_POOLS, GRACE_SECONDS
from meshdev.errors import FirewallError
from meshdev.manager.tunnel import address_file, addresses, server
from tests.manager.standin import Manager, Visitor, hello
from tests.manager.test_server import BYE


def test_an_address_rests_after_its_session_and_its_connections_are_forgotten_before_another_has_it(
    timed: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "ADDRESS_POOLS", (ADDRESS_POOLS[0],))
    with Visitor(timed) as ann:
        address = ann.say(hello("ann")).welcome().address
        ann.say(BYE)
        assert ann.gone()
    timed.until(lambda: timed.network.flushed == [address])  # she does not come back
    with Visitor(timed) as bob:
        assert bob.say(hello("bob", wanted=address, secret="c" * 32)).welcome().address != address
        bob.say(BYE)
        assert bob.gone()
    with Visitor(timed) as ann:
        assert ann.say(hello("ann again", wanted=address)).welcome().address == address
        ann.say(BYE)
        assert ann.gone()
    timed.until(lambda: timed.network.flushed.count(address) == 2)
    timed.network.flushed.clear()
    timed.pass_time(addresses.REST_SECONDS + 1)
    assert address in timed.network.flushed
    with Visitor(timed) as bob:
        assert bob.say(hello("bob", wanted=address, secret="c" * 32)).welcome().address == address


def test_a_session_whose_grace_is_over_keeps_its_connections_until_the_rest_is(timed: Manager) -> None:
    with Visitor(timed) as ann:
        address = ann.say(hello("ann")).welcome().address
    timed.until(lambda: timed.network.attached(address) == [False])
    timed.pass_time(GRACE_SECONDS + 1)
    assert timed.network.flushed == []
    timed.pass_time(addresses.REST_SECONDS + 1)
    assert timed.network.flushed == [address]


def test_the_file_is_written_once_for_all_that_are_flushed_together(
    timed: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        with Visitor(timed) as one:
            one.say(hello(f"dev-{number}")).welcome()
            one.say(BYE)
            assert one.gone()
    timed.until(lambda: not timed.server._sessions)  # the last one's address is written, too
    written: list[int] = []
    monkeypatch.setattr(address_file, "write", lambda _path, known: written.append(len(known)))
    timed.pass_time(addresses.REST_SECONDS + 1)
    timed.until(lambda: bool(written))
    assert written == [0]


def test_the_last_address_is_flushed_before_it_is_given(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = IPv4Network("198.18.0.0/30")
    monkeypatch.setattr(addresses, "ADDRESS_POOLS", (pool,))
    with Visitor(manager) as ann:
        address = ann.say(hello("ann", pools=(pool,))).welcome().address
        ann.say(BYE)
        assert ann.gone()
    manager.until(lambda: manager.network.flushed == [address])
    manager.network.refusal = FirewallError("tracked connections cannot be forgotten: busy")
    with Visitor(manager) as bob:
        assert bob.say(hello("bob", pools=(pool,), secret="c" * 32)).refusal().code == "address"
    manager.network.refusal = None
    manager.network.flushed.clear()
    with Visitor(manager) as bob:
        assert bob.say(hello("bob", pools=(pool,), secret="c" * 32)).welcome().address == address
    assert manager.network.flushed == [address]


def test_nobody_waits_long_for_the_last_address(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = IPv4Network("198.18.0.0/30")
    monkeypatch.setattr(addresses, "ADDRESS_POOLS", (pool,))
    monkeypatch.setattr(server, "FLUSH_SECONDS", 0.05)
    with Visitor(manager) as ann:
        ann.say(hello("ann", pools=(pool,))).welcome()
        ann.say(BYE)
        assert ann.gone()
    manager.until(lambda: len(manager.network.flushed) == 1)
    monkeypatch.setattr(manager.network, "flush", lambda _address: Future[None]())
    with Visitor(manager) as bob:
        refusal = bob.say(hello("bob", pools=(pool,), secret="c" * 32)).refusal()
    assert (refusal.code, "still being forgotten" in refusal.reason) == ("address", True)
