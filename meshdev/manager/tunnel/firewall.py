"""The nft table of the manager's pod: who may send what, and the relays (docs/design/0004, 0010).

A relay is a port of the pod's address that is forwarded to the same port of a session's address, for allowed sources
only; for everybody else nobody listens there. What arrives at the laptop comes from the manager's address on
that session's device, so the laptop answers into the tunnel, whatever it routes there.

The table outlives the process, while devices go with it. What would then leave by the uplink that it came by is
refused, so that relays of a tunnel that has ended keep nobody waiting.
"""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address
from typing import Final

from meshdev.nft import Nftables
from meshdev.wire.ports import Transport

#: A relay's port, with the kernel's protocol.
RelayPort = tuple[Transport, int]

_RULES: Final = """\
table inet meshdev
delete table inet meshdev
table inet meshdev {
  set sessions { type ifname . ipv4_addr; }
  set addresses { type ipv4_addr; }
  set silent { type ipv4_addr; }
  set allowed { type ipv4_addr . inet_proto . inet_service; }
  map relays { type inet_proto . inet_service : ipv4_addr; }
  chain source {
    type filter hook prerouting priority raw; policy accept;
    iifname != "mesh*" accept
    meta nfproto != ipv4 drop
    iifname . ip saddr != @sessions drop
    ip daddr 169.254.0.0/16 drop
  }
  chain relay {
    type nat hook prerouting priority dstnat; policy accept;
    iifname UPLINK ip daddr POD ip saddr . meta l4proto . th dport @allowed \\
      dnat ip to meta l4proto . th dport map @relays
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname "mesh*" oifname "mesh*" drop
    oifname "mesh*" ct state established,related accept
    oifname "mesh*" ct status dnat jump relayed
    oifname "mesh*" drop
    iifname UPLINK meta l4proto tcp reject with tcp reset
    iifname UPLINK reject
  }
  chain relayed {
    meta l4proto tcp tcp flags & (fin|syn|rst|ack) != syn reject with tcp reset
    ip daddr @silent meta l4proto tcp reject with tcp reset
    ip daddr @silent reject
    accept
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "mesh*" ct status dnat masquerade
    ip saddr @addresses oifname != "mesh*" masquerade
  }
}
"""


class SessionFirewall:
    """The table, for as long as this process runs. Every method raises FirewallError; nothing has changed then."""

    def __init__(self, uplink: str, pod: IPv4Address) -> None:
        self._nft = Nftables()
        self._nft.run(_RULES.replace("UPLINK", f'"{uplink}"').replace("POD", str(pod)))

    def add_session(self, device: str, address: IPv4Address) -> None:
        """Only that address may come from *device*."""
        self._nft.run(_session("add", device, address))

    def delete_session(self, device: str, address: IPv4Address) -> None:
        """Nothing may come from *device* any more."""
        self._nft.run(_session("delete", device, address))

    def add_relays(self, relays: Iterable[RelayPort], address: IPv4Address) -> None:
        """Forward them to *address*, for no source yet."""
        self._elements("add", "relays", [f"{_port(relay)} : {address}" for relay in relays])

    def delete_relays(self, relays: Iterable[RelayPort]) -> None:
        """Forward them no more. Their allowed sources are to be removed first."""
        self._elements("delete", "relays", [_port(relay) for relay in relays])

    def allow(self, relay: RelayPort, more: Iterable[IPv4Address], less: Iterable[IPv4Address]) -> None:
        """Accept new flows from *more*, and none from *less*; existing flows stay."""
        for verb, sources in (("add", more), ("delete", less)):
            self._elements(verb, "allowed", [f"{source} . {_port(relay)}" for source in sources])

    def silence(self, address: IPv4Address, silent: bool) -> None:
        """Answer new flows to *address* with a reset (UDP: port unreachable), or do not."""
        self._elements("add" if silent else "delete", "silent", [str(address)])

    def _elements(self, verb: str, name: str, elements: Sequence[str]) -> None:
        if elements:
            self._nft.run(f"{verb} element inet meshdev {name} {{ {', '.join(elements)} }}\n")


def _port(relay: RelayPort) -> str:
    return f"{relay[0]} . {relay[1]}"


def _session(verb: str, device: str, address: IPv4Address) -> str:
    return (
        f'{verb} element inet meshdev sessions {{ "{device}" . {address} }}\n'
        f"{verb} element inet meshdev addresses {{ {address} }}\n"
    )
