"""Who may use relays: what is sent of it, to whom, and what is not sent again."""

from ipaddress import IPv4Address

from meshdev.manager.control.permissions import RelayPermissions
from meshdev.wire.intercepts import Relay
from meshdev.wire.manager import MAX_ADDRESSES, Allow, Claimed, ToTunnel
from meshdev.wire.relay import MAX_KEYS, RelayEndpoint, RelayRemoved, RelaysSynced, ToRelay

SESSION, POD = IPv4Address("198.18.0.2"), IPv4Address("10.244.0.7")
KEY = "a" * 64
CLAIM = Claimed("1" * 32, "{}", "ann", SESSION, (Relay(80, "tcp", 20000), Relay(90, "udp", 20001)), ())


class Sent:
    def __init__(self) -> None:
        self.tunnel: list[ToTunnel] = []
        self.relay: list[ToRelay] = []
        self.permissions = RelayPermissions(
            lambda _, message: self.tunnel.append(message), lambda _, message: self.relay.append(message)
        )


def test_keys_are_for_tcp_and_addresses_for_udp() -> None:
    sent = Sent()
    for _ in range(2):
        sent.permissions.permit(CLAIM, {KEY}, [POD, POD], keep=False)
    assert sent.relay == [RelayEndpoint(20000, SESSION, frozenset({KEY}))]
    assert sent.tunnel == [Allow(20001, (POD,), False)]
    assert list(sent.permissions.for_tunnel()) == [("allow 20001", sent.tunnel[0])]
    assert list(sent.permissions.for_relay()) == [("relay 20000", sent.relay[0])]


def test_a_relay_has_all_when_it_is_told_so() -> None:
    sent = Sent()
    sent.permissions.permit(CLAIM, {KEY}, [], keep=True)
    assert "synced" not in dict(sent.permissions.for_relay()), "what it has of a control of before stays"
    sent.permissions.sync()
    assert sent.relay[-1] == RelaysSynced()
    assert [key for key, _ in sent.permissions.for_relay()] == ["relay 20000", "synced"]


def test_what_a_claim_had_is_removed_unless_it_is_anothers() -> None:
    sent = Sent()
    sent.permissions.permit(CLAIM, {KEY}, [], keep=False)
    other = Claimed("2" * 32, "{}", "eve", SESSION, (Relay(80, "tcp", 20000),), ())
    sent.permissions.permit(other, set(), [], keep=False)
    sent.relay.clear()
    sent.permissions.remove(CLAIM)
    assert sent.relay == []
    sent.permissions.remove(other)
    assert sent.relay == [RelayRemoved(20000)]
    assert list(sent.permissions.for_tunnel()) == []


def test_there_are_no_more_than_one_datagram_holds() -> None:
    sent = Sent()
    keys = {f"{number:064x}" for number in range(MAX_KEYS + 1)}
    sent.permissions.permit(CLAIM, keys, [POD + each for each in range(MAX_ADDRESSES + 1)], keep=False)
    assert isinstance(sent.relay[0], RelayEndpoint)
    assert isinstance(sent.tunnel[0], Allow)
    assert (len(sent.relay[0].keys), len(sent.tunnel[0].addresses)) == (MAX_KEYS, MAX_ADDRESSES)
