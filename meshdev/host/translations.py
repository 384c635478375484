"""Which destinations this machine's packet filter translates, according to nft's listing. Pure.

A kube-proxy on the laptop (a kubelet, k3s, minikube without a driver) sends packets for a ClusterIP to pods of its own
cluster before routing. Rules of ``iptables-nft`` are nft's, too. Sources: nft(8), kube-proxy's ``pkg/proxy``.
"""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, collapse_addresses
from typing import Final

_TABLE: Final = re.compile(r"table ([a-z0-9]+) ([A-Za-z0-9_./-]+) \{")
_BLOCK: Final = re.compile(r"\s*(chain|map|set) (\S+) \{")
_HOOK: Final = re.compile(r"\s*type nat hook (output|prerouting) ")
_DESTINATION: Final = re.compile(r"ip daddr (\{[^}]*\}|[0-9./-]+)")
#: An element of a verdict map whose key begins with an address: ``10.96.0.10 . udp . 53 : goto service-…``.
_ELEMENT: Final = re.compile(r"([0-9.]+(?:/[0-9]+)?)(?: \. [^:,]*?)? : (?:goto|jump) ([^\s,}]+)")
_TARGET: Final = re.compile(r"\b(?:goto|jump) ([^\s,}]+)")
_TRANSLATES: Final = re.compile(r"\b(?:dnat|redirect)\b")
_LAST: Final = (1 << 32) - 1
#: In each sentence of :func:`concerning`.
TRANSLATED: Final = "get another destination before they reach the tunnel"
_NETWORK: Final = re.compile(r"[0-9]+(?:\.[0-9]+){3}(?:/[0-9]+)?")


@dataclass(frozen=True, slots=True)
class Translation:
    """A rule, or an element of a map, that translates the destination *network*. *place* is for people."""

    place: str
    network: IPv4Network


@dataclass(slots=True)
class _Table:
    """How one table treats destinations."""

    name: str
    edges: dict[str, set[str]] = field(default_factory=dict)
    """By chain, the chains it jumps to."""
    translating: set[str] = field(default_factory=set)
    """Chains with a rule that translates."""
    found: list[tuple[str, IPv4Network, str]] = field(default_factory=list)
    """Place, destination, and the chain that decides on it."""

    def translations(self) -> Iterator[Translation]:
        ending = self._ending()
        return (Translation(f"{self.name}, {place}", network) for place, network, to in self.found if to in ending)

    def _ending(self) -> set[str]:
        """Chains from which packets reach a translation."""
        before: dict[str, set[str]] = {}
        for chain, targets in self.edges.items():
            for target in targets:
                before.setdefault(target, set()).add(chain)
        ending, todo = set(self.translating), list(self.translating)
        while todo:
            new = before.get(todo.pop(), set()) - ending
            ending |= new
            todo += new
        return ending


def nat_tables(chains: str) -> list[tuple[str, str]]:
    """Family and name of the tables that may translate destinations, from the output of ``list chains``."""
    found: dict[tuple[str, str], None] = {}
    table = ("", "")
    for line in chains.splitlines():
        if (match := _TABLE.match(line)) is not None:
            table = match[1], match[2]
        elif _HOOK.match(line) and table[0] in {"ip", "inet"}:
            found[table] = None
    return list(found)


def of_nft(listing: str) -> list[Translation]:
    """The translations in the output of ``list table``."""
    made = _Table("")
    kind = block = ""
    for line in listing.splitlines():
        if (match := _TABLE.match(line)) is not None:
            made.name = f"table {match[1]} {match[2]}"
        elif (match := _BLOCK.match(line)) is not None:
            kind, block = match[1], match[2]
        elif kind == "map":
            for text, target in _ELEMENT.findall(line):
                made.found += [(f"map {block}", network, target) for network in _networks(text)]
        elif kind == "chain":
            _read_rule(made, block, line)
    return list(made.translations())


def _read_rule(made: _Table, chain: str, line: str) -> None:
    translates = _TRANSLATES.search(line) is not None
    targets = _TARGET.findall(line)
    made.edges.setdefault(chain, set()).update(targets)
    if translates:
        made.translating.add(chain)
    if (match := _DESTINATION.search(line)) is not None:
        for network in _networks(match[1]):
            made.found += [(f"chain {chain}", network, to) for to in ([chain] if translates else targets)]


def of_flow(sent_to: IPv4Address, port: int, went_to: IPv4Address) -> Translation | None:
    """The translation that a tracked connection shows: it was sent to one address and went to another."""
    if sent_to == went_to:
        return None
    return Translation(f"a connection to {sent_to}:{port} went to {went_to}", IPv4Network(sent_to))


def concerning(found: Iterable[Translation], routes: Sequence[IPv4Network]) -> tuple[str, ...]:
    """A sentence for each place that translates addresses in *routes*."""
    by_place: dict[str, list[IPv4Network]] = {}
    # Disjoint and in order: thousands of rules are compared with thousands of routes.
    ranges = [(int(each.network_address), int(each.broadcast_address)) for each in sorted(collapse_addresses(routes))]
    for each in found:
        before = bisect_right(ranges, (int(each.network.broadcast_address), _LAST))
        if before and ranges[before - 1][1] >= int(each.network.network_address):
            by_place.setdefault(each.place, []).append(each.network)
    return tuple(_sentence(place, list(dict.fromkeys(networks))) for place, networks in by_place.items())


def _sentence(place: str, networks: Sequence[IPv4Network]) -> str:
    first = networks[0]
    shown = str(first.network_address if first.prefixlen == first.max_prefixlen else first)
    more = f" and {len(networks) - 1} more of the cluster's addresses" if len(networks) > 1 else ""
    who = " (a kube-proxy on this machine?)" if "kube" in place.lower() else ""
    return f"packets to {shown}{more} {TRANSLATED}: {place}{who}"


def _networks(text: str) -> Iterator[IPv4Network]:
    for word in _NETWORK.findall(text):
        try:
            yield IPv4Network(word, strict=False)
        except ValueError:  # 999.1.1.1: no address of any packet
            continue
