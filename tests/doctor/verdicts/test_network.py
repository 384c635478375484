"""This machine's network."""

from ipaddress import IPv4Address, IPv4Network

import pytest

from meshdev.doctor.verdicts import network
from meshdev.doctor.verdicts.network import DnsFacts, FirewallFacts, RangeFacts, TranslationFacts, Vpn, VpnFacts
from meshdev.host.dns import Decision
from meshdev.host.plan import LaptopNetwork, LocalRoute
from meshdev.wire.helper.limits import Integration

SERVICES, PODS = IPv4Network("10.96.0.0/16"), IPv4Network("10.244.0.0/16")
TUNNEL = Vpn("wg0", "WireGuard")


@pytest.mark.parametrize(
    ("integration", "exists", "ours", "connected", "writable", "state", "words"),
    [
        ("resolved", True, False, False, True, "ok", "systemd-resolved sends"),
        ("redirect", True, False, False, False, "ok", "nftables (why)"),
        ("file", True, True, True, True, "ok", "while you are connected"),
        ("file", True, True, False, True, "failed", "meshdev restore"),
        ("file", True, False, False, False, "failed", "apt install nftables"),
        ("redirect", False, False, False, True, "warning", "does not exist"),
    ],
)
def test_names(
    integration: Integration, exists: bool, ours: bool, connected: bool, writable: bool, state: str, words: str
) -> None:
    found = network.dns(DnsFacts(Decision(integration, "why"), exists, ours, connected, writable))
    assert found.state == state
    assert words in f"{found.detail} {found.hint}"


@pytest.mark.parametrize(
    ("cluster", "routes", "state", "words"),
    [
        ([SERVICES, PODS], [], "ok", "10.96.0.0/16, 10.244.0.0/16: nothing here overlaps"),
        ([], [], "skipped", "not known"),
        ([SERVICES], ["10.96.4.0/24"], "warning", "overlaps this machine's own network 10.96.4.0/24 (eth0)"),
        ([SERVICES], ["10.0.0.0/8"], "warning", "--also 10.96.0.0/16"),
        ([SERVICES], ["10.97.0.0/16"], "ok", "nothing"),
        ([SERVICES], ["198.18.0.0/15"], "ok", "nothing"),
        ([SERVICES], ["198.18.0.0/15", "100.64.0.0/10"], "failed", "all ranges"),
    ],
)
def test_overlaps(cluster: list[IPv4Network], routes: list[str], state: str, words: str) -> None:
    laptop = LaptopNetwork(tuple(LocalRoute(IPv4Network(each), "eth0") for each in routes))
    found = network.ranges(RangeFacts(cluster, laptop))
    assert found.state == state, found
    assert words in f"{found.detail} {found.hint}"


@pytest.mark.parametrize(
    ("facts", "state", "words"),
    [
        (VpnFacts([]), "ok", "none"),
        (VpnFacts([TUNNEL]), "ok", "wg0 (WireGuard): no route"),
        (VpnFacts([TUNNEL], [LocalRoute(IPv4Network("0.0.0.0/1"), "wg0")], [SERVICES]), "ok", "no route"),
        (VpnFacts([TUNNEL], [LocalRoute(IPv4Network("10.96.0.0/12"), "wg0")], [SERVICES]), "ok", "no route"),
        (VpnFacts([TUNNEL], [LocalRoute(SERVICES, "wg0")], [SERVICES]), "warning", "takes addresses of 10.96.0.0/16"),
        (VpnFacts([TUNNEL], [LocalRoute(IPv4Network("10.96.1.0/24"), "wg0")], [SERVICES]), "warning", "10.96.1.0/24"),
        (VpnFacts([TUNNEL], [LocalRoute(SERVICES, "eth0")], [SERVICES]), "ok", "no route"),
        (VpnFacts([TUNNEL], rules=[51820]), "warning", "tables 51820"),
        (VpnFacts([], rules=[51820]), "ok", "none"),
    ],
)
def test_other_vpns(facts: VpnFacts, state: str, words: str) -> None:
    found = network.vpns(facts)
    assert found.state == state
    assert words in found.detail


@pytest.mark.parametrize(
    ("facts", "state", "words"),
    [
        (TranslationFacts(None, [SERVICES]), "skipped", "root alone"),
        (TranslationFacts([], [SERVICES]), "ok", "no other program"),
        (TranslationFacts([], session=True), "ok", "no other program"),
        (TranslationFacts([]), "skipped", "nothing to compare"),
        (TranslationFacts(["packets to 10.96.0.1 …"], [SERVICES]), "warning", "packets to 10.96.0.1"),
    ],
)
def test_translations(facts: TranslationFacts, state: str, words: str) -> None:
    found = network.translations(facts)
    assert found.state == state
    assert words in found.detail


@pytest.mark.parametrize(
    ("facts", "state", "words"),
    [
        (FirewallFacts(None, dropping=[]), "ok", "nftables is usable"),
        (FirewallFacts(None), "ok", "root alone"),
        (FirewallFacts("libnftables.so.1 is not installed"), "failed", "apt install nftables"),
        (FirewallFacts(None, ["ufw"]), "warning", "ufw allow in on meshdev0"),
        (FirewallFacts(None, ["firewalld"]), "warning", "firewall-cmd"),
        (FirewallFacts(None, ["ufw", "firewalld"]), "warning", "ufw and firewalld may drop"),
        (FirewallFacts(None, dropping=["inet filter input"]), "warning", "insert rule inet filter input iifname"),
    ],
)
def test_firewalls(facts: FirewallFacts, state: str, words: str) -> None:
    found = network.firewall(facts)
    assert found.state == state
    assert words in f"{found.detail} {found.hint}"


def test_chains_that_drop() -> None:
    listing = """\
table ip filter {
	chain INPUT {
		type filter hook input priority filter; policy drop;
	}
	chain OUTPUT {
		type filter hook output priority filter; policy drop;
	}
	chain ufw-user-input {
	}
}
table ip6 filter {
	chain INPUT {
		type filter hook input priority filter; policy drop;
	}
}
table inet filter {
	chain input {
		type filter hook input priority 0; policy accept;
	}
}
table inet mine {
	chain in {
		type filter hook input priority 10; policy drop;
	}
}
"""
    assert network.dropping_chains(listing) == ("ip filter INPUT", "inet mine in")


def test_an_address_alone_is_no_network() -> None:
    assert network.ranges(RangeFacts([PODS], LaptopNetwork(addresses=(IPv4Address("10.244.0.9"),)))).state == "ok"
