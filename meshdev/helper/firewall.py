"""Our nftables table: the guard at the device, the redirect of DNS, DNAT of relays, and rules for containers.

The netlink socket inside libnftables' context owns the table (``flags owner``: Linux 5.12, nftables 0.9.9): nobody
else can change it, and it is removed when this process ends, however that happens. On older ones the table has no owner
and is in the journal. Source: libnftables(3).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from meshdev.errors import FirewallError
from meshdev.helper.bridges import Bridge
from meshdev.helper.journal import Journal
from meshdev.helper.kept_table import KeptTable, deletion
from meshdev.host.journal import DeleteTable, table_name
from meshdev.nft import Nftables
from meshdev.wire.helper.requests import RelayTarget
from meshdev.wire.values import IPAddress

#: Mark of the sockets through which the forwarder asks the former resolvers. kube-proxy (0x4000, 0x8000) and tailscale
#: (0xff0000) use none of its bits.
MARK: Final = 0x0D53

#: Before Docker's own DNAT (of 127.0.0.11, of published ports) at dstnat (-100): the first one wins.
_PRIORITY: Final = -110
#: Before other programs' masquerading (srcnat, 100), which may choose another address.
_SOURCE_PRIORITY: Final = 90
_NO_CONTAINERS: Final[dict[str, list[str]]] = {
    "container_dns": [],
    "container_queries": [],
    "container_source": [],
}
_KINDS: Final = ("udp", "tcp")


@dataclass(frozen=True, slots=True)
class ContainerDns:
    """The name servers that containers ask, and the port of the session's address that answers in their place."""

    servers: tuple[IPv4Address, ...]
    port: int


class LaptopFirewall:
    """The table ``inet meshdev_UID``, created when it is first needed."""

    def __init__(self, journal: Journal) -> None:
        """Check what nftables can do; changes nothing. Raises FirewallError when that is not enough."""
        self._journal = journal
        self._table = table_name(journal.uid)
        self._library: Nftables | KeptTable = Nftables()
        self._entry: DeleteTable | None = None
        self._made = False
        try:
            self._owner = self._probe()
        except FirewallError:
            self._library.close()
            raise
        #: The netlink socket that owns the table until its last copy is closed; None where tables have no owner.
        self.descriptor = self._library.descriptor if self._owner else None
        if not self._owner:
            self._library = KeptTable(self._library, self._table)

    def guard(self, device: str, address: IPv4Address) -> None:
        """Accept at the device only answers to *address*, and what :meth:`forward_relays` translated.

        In one transaction, so that there is never a moment without rules.
        """
        self._make()
        # Accept packets to our address only: else a forged packet could pass for an answer within a connection of
        # another interface (CVE-2019-14899). Before connection tracking, which puts other addresses into answers.
        ours, answers = f"ip daddr {address} accept", "ct state established,related accept"
        # Linux accepts packets to any of its addresses on any interface (the weak host model, RFC 1122 section
        # 3.3.4.2): neighbours on the LAN would reach listeners at our address. This machine's own packets come by lo.
        elsewhere = f'iifname != {{ "lo", "{device}" }} ip daddr {address} drop'
        # By the original destination port: another program's DNAT does not open anything.
        relayed = "ct status dnat meta l4proto { tcp, udp } ct original proto-dst @relay_ports accept"
        others = f'iifname != "{device}" accept'
        chains = {
            "arriving": ["jump container_queries", elsewhere, others, ours, "drop"],
            "guard": [others, answers, relayed, "drop"],
            # Docker translates what comes to a published port into a container: forwarded packets need a chain, too.
            "passing": [others, answers, "drop"],
            # Hosts for which this machine is a router get into the tunnel by :meth:`carry` alone.
            "entering": [f'oifname != "{device}" accept', "drop"],
            **_NO_CONTAINERS,
        }
        self._replace(chains)

    def carry(self, device: str, address: IPv4Address, bridges: Iterable[Bridge], dns: ContainerDns) -> None:
        """Let packets from *bridges* alone into the tunnel, with *address* as source, and redirect their DNS queries.

        Call after :meth:`guard`, which reverts it.
        """
        entering, source, arriving, queries = [f'oifname != "{device}" accept'], [], [], []
        for bridge in bridges:
            behind = f"ip saddr {bridge.network}"
            entering.append(f'iifname "{bridge.name}" {behind} accept')
            source.append(f'oifname "{device}" {behind} masquerade')
            # Containers started meanwhile get the servers of resolved's links, and so our address, as name server.
            arriving += [
                f'iifname "{bridge.name}" {behind} ip daddr {address} {kind} dport 53 accept' for kind in _KINDS
            ]
            for server in (*dns.servers, *([address] if dns.servers else ())):
                asked = f'iifname "{bridge.name}" {behind} ip daddr {server}'
                queries += [f"{asked} {kind} dport 53 dnat ip to {address}:{dns.port}" for kind in _KINDS]
        self._replace(
            {
                "entering": [*entering, "drop"],
                "container_source": source,
                "container_queries": arriving,
                "container_dns": queries,
            }
        )

    def redirect_dns(self, ports: Mapping[IPAddress, int]) -> None:
        """Redirect queries to these nameservers to ports of this machine, except those of marked sockets."""
        self._make()
        rules = [f"flush chain inet {self._table} dns", self._rule("dns", f"meta mark {MARK:#x} return")]
        for server, port in ports.items():
            target = f"{'ip' if server.version == 4 else 'ip6'} daddr {str(server).partition('%')[0]}"
            rules += [self._rule("dns", f"{target} {kind} dport 53 redirect to :{port}") for kind in _KINDS]
        self._library.run("\n".join(rules) + "\n")

    def forward_relays(self, device: str, relays: Iterable[RelayTarget]) -> None:
        """Forward new connections from *device* to these ports, and no others, to programs of this machine."""
        self._make()
        relays = tuple(relays)
        lines = [
            f"add map inet {self._table} relays {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}",
            f"add chain inet {self._table} relayed {{ type nat hook prerouting priority {_PRIORITY}; policy accept; }}",
            f"flush chain inet {self._table} relayed",
            f"flush map inet {self._table} relays",
            f"flush set inet {self._table} relay_ports",
            self._rule("relayed", f'iifname "{device}" dnat ip addr . port to meta l4proto . th dport map @relays'),
        ]
        if relays:
            pairs = ", ".join(f"{each.protocol} . {each.relay} : {each.address} . {each.port}" for each in relays)
            lines.append(f"add element inet {self._table} relays {{ {pairs} }}")
            ports = ", ".join({str(each.relay) for each in relays})
            lines.append(f"add element inet {self._table} relay_ports {{ {ports} }}")
        self._library.run("\n".join(lines) + "\n")

    def put_back(self) -> str | None:
        """Restore the table where others could change it; returns what was found, for people."""
        if self._made and isinstance(self._library, KeptTable) and self._library.put_back():
            return "our nftables table was changed or deleted"
        return None

    def remove_redirect(self) -> None:
        """Remove the redirect of DNS."""
        if self._made:
            self._library.run(f"flush chain inet {self._table} dns\n")

    def close(self) -> None:
        """Delete the table."""
        if self._made:
            self._library.run(deletion(self._table))
            self._made = False
        if self._entry is not None:
            self._journal.remove(self._entry)
        self._library.close()

    def _replace(self, chains: Mapping[str, Iterable[str]]) -> None:
        """Replace the rules of these chains, in one transaction."""
        lines = []
        for chain, rules in chains.items():
            lines.append(f"flush chain inet {self._table} {chain}")
            lines += [self._rule(chain, rule) for rule in rules]
        self._library.run("\n".join(lines) + "\n")

    def _rule(self, chain: str, rule: str) -> str:
        return f"add rule inet {self._table} {chain} {rule}"

    def _probe(self) -> bool:
        """Whether tables can have an owner. A dry run: the kernel checks everything and changes nothing."""
        try:
            self._library.run(self._definition(owner=True), dry=True)
        except FirewallError:
            self._library.run(self._definition(owner=False), dry=True)
            return False
        return True

    def _make(self) -> None:
        if self._made:
            return
        if not self._owner:
            self._entry = DeleteTable(self._table)
            self._journal.add(self._entry)
        self._library.run(self._definition(owner=self._owner))
        self._made = True

    def _definition(self, *, owner: bool) -> str:
        return (
            f"table inet {self._table} {{\n"
            f"  {'flags owner' if owner else ''}\n"
            "  set relay_ports { type inet_service; }\n"
            "  chain container_queries { }\n"
            "  chain arriving { type filter hook prerouting priority raw; policy accept; }\n"
            "  chain guard { type filter hook input priority filter - 5; policy accept; }\n"
            "  chain passing { type filter hook forward priority filter - 5; policy accept; }\n"
            "  chain entering { type filter hook forward priority filter - 5; policy accept; }\n"
            f"  chain container_dns {{ type nat hook prerouting priority {_PRIORITY}; policy accept; }}\n"
            f"  chain container_source {{ type nat hook postrouting priority {_SOURCE_PRIORITY}; policy accept; }}\n"
            f"  chain dns {{ type nat hook output priority {_PRIORITY}; policy accept; }}\n"
            "}\n"
            f"add rule inet {self._table} dns udp dport 53 redirect to :53\n"
            f"flush chain inet {self._table} dns\n"
        )


def delete_table(name: str) -> None:
    """Remove a table that a killed helper left; does nothing when it is gone."""
    library = Nftables()
    try:
        library.run(f"add table inet {name}\ndelete table inet {name}\n")
    finally:
        library.close()
