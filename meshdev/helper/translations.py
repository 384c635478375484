"""Find DNAT rules of other programs for the cluster's addresses in this machine's packet filter."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from socket import AF_INET
from typing import Final

from meshdev.errors import FirewallError
from meshdev.host.journal import TABLE_PREFIX
from meshdev.host.translations import Translation, concerning, nat_tables, of_flow, of_nft
from meshdev.netlink.messages import Flow, flows_dump, parse_flow
from meshdev.netlink.netfilter import ruleset_generation
from meshdev.netlink.sock import NETLINK_NETFILTER, Netlink
from meshdev.nft import Nftables
from meshdev.wire.helper.limits import MAX_PROBLEMS

#: The tables of legacy iptables in use; absent where the kernel has none (net/netfilter/x_tables.c).
_LEGACY_TABLES: Final = Path("/proc/thread-self/net/ip_tables_names")


class TranslationFinder:
    """Finds them. Rules are read again only after a change: a table of 10,000 takes 0.3 s."""

    def __init__(self) -> None:
        self._generation: int | None = None
        self._rules: list[Translation] = []

    def find(self, routes: Sequence[IPv4Network]) -> tuple[str, ...]:
        """A sentence for each place (the first few) that translates addresses in *routes*.

        What cannot be read is reported the same way. Rules of legacy iptables cannot be read without CAP_NET_RAW: where
        there are some, tracked connections show the translation.
        """
        found: list[Translation] = []
        unknown: list[str] = []
        for read in (self._read_rules, _connections):
            try:
                found += read()
            except (FirewallError, OSError) as error:
                unknown.append(f"whether another program translates the cluster's addresses is unknown: {error}")
        return (*concerning(found, routes), *unknown)[:MAX_PROBLEMS]

    def _read_rules(self) -> list[Translation]:
        generation = ruleset_generation()  # before the rules: a change meanwhile is read the next time
        if generation != self._generation:
            self._rules, self._generation = _rules(), generation
        return self._rules


def _rules() -> list[Translation]:
    library = Nftables()
    try:
        found: list[Translation] = []
        for family, name in nat_tables(library.show("list chains")):
            if not name.startswith(TABLE_PREFIX):
                found += of_nft(library.show(f"list table {family} {name}"))
        return found
    finally:
        library.close()


def _connections() -> list[Translation]:
    try:
        tables = _LEGACY_TABLES.read_text().split()
    except FileNotFoundError:
        return []
    if "nat" not in tables:
        return []
    with Netlink(NETLINK_NETFILTER) as netlink:
        flows = filter(None, map(parse_flow, netlink.walk(flows_dump(AF_INET))))
        return [each for flow in flows if flow.sent_to[1] and (each := _translation(flow)) is not None]


def _translation(flow: Flow) -> Translation | None:
    return of_flow(IPv4Address(flow.sent_to[0]), flow.sent_to[1], IPv4Address(flow.went_to[0]))
