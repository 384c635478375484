"""What is permitted follows control's last state, whatever the order of its messages."""

from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from meshdev.manager.relay.permissions import Permissions
from meshdev.wire.relay import RelayEndpoint, RelayRemoved, RelaysSynced

A, B = IPv4Address("198.18.0.2"), IPv4Address("198.18.0.3")
KEY, OTHER = "a" * 64, "b" * 64


def test_a_key_at_a_relay_to_an_address() -> None:
    permissions = Permissions()
    assert permissions.address(20001) is None
    assert permissions.address(None) is None
    assert permissions.take(RelayEndpoint(20001, A, frozenset({KEY}))) == {20001}
    assert permissions.address(20001) == A
    assert permissions.permits(20001, A, KEY)
    assert permissions.permits(20001, A, None), "it has shown none yet"
    assert not permissions.permits(20001, A, OTHER)
    assert not permissions.permits(20001, B, KEY)
    assert not permissions.permits(20002, A, KEY)


def test_a_relay_that_becomes_another_sessions_keeps_nothing() -> None:
    permissions = Permissions()
    permissions.take(RelayEndpoint(20001, A, frozenset({KEY})))
    permissions.take(RelayEndpoint(20001, B, frozenset({OTHER})))
    assert not permissions.permits(20001, A, KEY)
    assert not permissions.permits(20001, B, KEY)
    assert permissions.permits(20001, B, OTHER)


def test_removed() -> None:
    permissions = Permissions()
    permissions.take(RelayEndpoint(20001, A, frozenset({KEY})))
    assert permissions.take(RelayRemoved(20001)) == {20001}
    assert permissions.take(RelayRemoved(20001)) == frozenset()
    assert not permissions.permits(20001, A, KEY)


def test_what_a_new_control_does_not_send_ends_once_it_has_sent_all() -> None:
    permissions = Permissions()
    for relay in (20001, 20002):
        permissions.take(RelayEndpoint(relay, A, frozenset({KEY})))
    permissions.begin()
    assert permissions.permits(20001, A, KEY)
    permissions.take(RelayEndpoint(20002, A, frozenset({KEY})))
    assert permissions.permits(20001, A, KEY)
    assert permissions.take(RelaysSynced()) == {20001}
    assert not permissions.permits(20001, A, KEY)
    assert permissions.permits(20002, A, KEY)
    assert permissions.take(RelaysSynced()) == frozenset()


_relays = st.integers(20000, 20004)
_endpoints = st.builds(RelayEndpoint, _relays, st.sampled_from((A, B)), st.frozensets(st.sampled_from((KEY, OTHER))))
_changes = st.lists(_endpoints | st.builds(RelayRemoved, _relays), max_size=20)


@given(_changes, _changes)
def test_after_synced_it_is_what_the_newest_control_sent(
    before: list[RelayEndpoint | RelayRemoved], after: list[RelayEndpoint | RelayRemoved]
) -> None:
    permissions, fresh = Permissions(), Permissions()
    for message in before:
        permissions.take(message)
    permissions.begin()
    for message in after:
        permissions.take(message)
        fresh.take(message)
    permissions.take(RelaysSynced())
    assert len(permissions) == len(fresh)
    for relay in range(20000, 20005):
        for address in (A, B):
            for key in (None, KEY, OTHER):
                assert permissions.permits(relay, address, key) == fresh.permits(relay, address, key)
