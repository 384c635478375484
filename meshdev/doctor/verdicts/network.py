"""This machine's network: names, ranges that overlap, other VPNs, translations and packet filters."""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import Final

from meshdev.config import ADDRESS_POOLS
from meshdev.doctor.verdicts.finding import Finding, failed, ok, skipped, warning
from meshdev.host.dns import Decision
from meshdev.host.plan import DesiredRoutes, LaptopNetwork, LocalRoute, plan, usable_pools
from meshdev.text import first_few

_HOW: Final = {
    "resolved": "systemd-resolved sends the cluster's names into the tunnel",
    "redirect": "queries are redirected to meshdev by nftables",
    "file": "/etc/resolv.conf is changed while you are connected",
}


@dataclass(frozen=True, slots=True)
class DnsFacts:
    """What was chosen, and the state of /etc/resolv.conf: *ours* has our lines in it."""

    decision: Decision
    exists: bool
    ours: bool
    connected: bool
    writable: bool = True


def dns(facts: DnsFacts) -> Finding:
    """How queries would reach the cluster's DNS."""
    if facts.ours and not facts.connected:
        return failed("/etc/resolv.conf still has the lines of a connection that crashed", "meshdev restore")
    if not facts.exists:
        return warning(
            "/etc/resolv.conf does not exist, so most programs resolve no names",
            "ln -s /run/systemd/resolve/stub-resolv.conf /etc/resolv.conf, or as your distribution does it",
        )
    how = _HOW[facts.decision.integration]
    if facts.decision.integration == "file" and not facts.writable:
        return failed(
            f"names cannot be sent into the tunnel: /etc/resolv.conf cannot be written ({facts.decision.why})",
            "install nftables (Debian, Ubuntu: apt install nftables)",
        )
    return ok(f"{how} ({facts.decision.why})")


@dataclass(frozen=True, slots=True)
class RangeFacts:
    """The cluster's ranges as far as they may be read, and this machine's network without meshdev's devices."""

    cluster: Sequence[IPv4Network]
    laptop: LaptopNetwork


def ranges(facts: RangeFacts) -> Finding:
    """Whether the cluster's addresses are this machine's own, too."""
    if not usable_pools(facts.laptop):
        return failed(
            f"all ranges for a connection's own address are in use here: {first_few(ADDRESS_POOLS)}",
            "end the program that uses them: ip route",
        )
    if not facts.cluster:
        return skipped("the cluster's ranges are not known: they may not be read, or the API server does not answer")
    overlapping = [each for each in facts.cluster if any(map(each.overlaps, _own(facts.laptop)))]
    if overlapping:
        notes = plan(facts.laptop, DesiredRoutes(ranges=tuple(facts.cluster))).notes
        first = overlapping[0]
        return warning(
            " ".join(notes).rstrip(".") or f"the cluster's range {first} overlaps this machine's network",
            f"meshdev connect --also {first} routes all of it into the tunnel, --never {first} none",
        )
    return ok(f"{first_few(facts.cluster)}: nothing here overlaps")


def _own(laptop: LaptopNetwork) -> list[IPv4Network]:
    return [route.network for route in laptop.networks]


@dataclass(frozen=True, slots=True)
class Vpn:
    """A device of another VPN that is up; *kind* as people call it."""

    device: str
    kind: str


@dataclass(frozen=True, slots=True)
class VpnFacts:
    """The VPNs, all routes of this machine, and the ranges that meshdev needs: the cluster's, and for its addresses."""

    vpns: Sequence[Vpn]
    routes: Sequence[LocalRoute] = ()
    needed: Sequence[IPv4Network] = ()
    rules: Sequence[int] = ()
    """Tables that policy rules consult before the main one, where VPNs put their routes."""


def vpns(facts: VpnFacts) -> Finding:
    """Whether another VPN takes what should go into the tunnel."""
    names = first_few([f"{each.device} ({each.kind})" for each in facts.vpns])
    devices = {each.device for each in facts.vpns}
    colliding = [
        (route, needed)
        for route in facts.routes
        for needed in facts.needed
        # An equal or more specific route wins; a wider one (a VPN's default route) loses against the tunnel's.
        if route.device in devices and route.network.subnet_of(needed)
    ]
    if colliding:
        route, needed = colliding[0]
        return warning(
            f"{names}: its route {route.network} ({route.device}) takes addresses of {needed}",
            f"exclude {needed} in that VPN, or disconnect it",
        )
    if facts.vpns and facts.rules:
        return warning(
            f"{names}, with policy rules of its own (tables {first_few(facts.rules)}): these may come before the "
            "tunnel's routes",
            "ip rule; exclude the cluster's ranges in that VPN",
        )
    return ok(f"{names}: no route of theirs takes the cluster's addresses" if facts.vpns else "none")


@dataclass(frozen=True, slots=True)
class TranslationFacts:
    """A sentence for each place that translates the *cluster*'s addresses, by the rules as root reads them or by a
    running *session*; None where neither is there."""

    found: Sequence[str] | None
    cluster: Sequence[IPv4Network] = ()
    session: bool = False


def translations(facts: TranslationFacts) -> Finding:
    """Whether another program's DNAT rules give the cluster's packets another destination."""
    if facts.found is None:
        return skipped("other programs' rules can be read by root alone; once connected, the helper reads them")
    if facts.found:
        return warning(
            first_few(facts.found),
            "stop that program, or meshdev connect --never ADDRESS/32 if the translation is intended",
        )
    if not facts.cluster and not facts.session:
        return skipped("the cluster's ranges are not known, so there is nothing to compare the rules with")
    return ok("no other program translates the cluster's addresses")


@dataclass(frozen=True, slots=True)
class FirewallFacts:
    """*unusable*: why nftables cannot be used, None where it can. *managers* are running front ends (ufw, firewalld).

    *dropping* are base chains of others with policy drop at the hook input, None where rules cannot be read.
    """

    unusable: str | None
    managers: Sequence[str] = ()
    dropping: Sequence[str] | None = None


_ALLOW: Final = {
    "ufw": "sudo ufw allow in on meshdev0",
    "firewalld": "sudo firewall-cmd --zone=trusted --add-interface=meshdev0",
}


def firewall(facts: FirewallFacts) -> Finding:
    """Whether meshdev can guard its device, and whether another packet filter would drop intercepted requests."""
    if facts.unusable is not None:
        return failed(
            f"no packet filter can keep the cluster out of this machine: {facts.unusable}",
            "install nftables (Debian, Ubuntu: apt install nftables), or meshdev connect --unguarded",
        )
    if facts.managers:
        names = " and ".join(facts.managers)
        return warning(
            f"{names} may drop intercepted requests on their way to local programs; connect alone is not affected",
            _ALLOW.get(facts.managers[0]),
        )
    if facts.dropping:
        chain = facts.dropping[0]
        return warning(
            f"the packet filter drops what comes in unless it is allowed ({first_few(facts.dropping)}): intercepted "
            "requests may not reach local programs",
            f"sudo nft insert rule {chain} iifname meshdev0 accept",
        )
    rules = "" if facts.dropping is not None else "; rules of others can be read by root alone"
    return ok(f"nftables is usable{rules}")


def dropping_chains(listing: str) -> tuple[str, ...]:
    """Family, table and name of the base chains with policy drop at input, from ``nft list chains``."""
    found, table, chain = [], "", ""
    for line in listing.splitlines():
        words = line.split()
        match words:
            case ["table", family, name, "{"]:
                table = f"{family} {name}"
            case ["chain", name, "{"]:
                chain = name
            case ["type", "filter", "hook", "input", *rest] if "drop;" in rest:
                if table.split()[0] in {"ip", "inet"}:
                    found.append(f"{table} {chain}")
            case _:
                pass
    return tuple(found)
