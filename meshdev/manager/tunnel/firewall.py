"""The nft table of the manager's pod: who may send what, and the relays (docs/design/0004, 0010).

A relay is a port of a session's address. For TCP the container *relay* connects to it, on behalf of an Envoy that has
shown who it is, and may connect to nothing else. For UDP the same port of the pod's address is forwarded to it, for
allowed sources only; for everybody else nobody listens there. What arrives at the laptop comes from the manager's
address on that session's device, so the laptop answers into the tunnel, whatever it routes there.

The table outlives the process, while devices go with it. What would then leave by the uplink that it came by is
refused, so that relays of a tunnel that has ended keep nobody waiting.
"""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from meshdev.config import CONTROL_PORT, CONTROL_UID, METRICS_PORT, RELAY_UID, RELAYS_PORT
from meshdev.errors import FirewallError
from meshdev.nft import Nftables
from meshdev.wire.ports import Transport

log = logging.getLogger(__name__)

#: A relay's port, with the kernel's protocol.
RelayPort = tuple[Transport, int]

#: TLS handshakes that one address may begin in a second, and at once: each costs a millisecond. All pods behind a node
#: that hides them (kube-proxy --masquerade-all) are one address. What is more is dropped, and tried a second later.
_DIALS_PER_SECOND: Final = 500
_DIALS_AT_ONCE: Final = 1000
#: Connections to control that one address may have, a quarter of control's: one that says nothing keeps its place there
#: until its handshake is late (meshdev.manager.control.service). Agents and Envoys of 256 pods behind such a node have
#: 512. More are dropped.
CONNECTIONS: Final = 640
#: The same of connections for metrics, which have no handshake: a scraper makes one in some seconds.
_SCRAPES_PER_SECOND: Final = 20
_SCRAPES_AT_ONCE: Final = 40

_RULES: Final = """\
table inet meshdev
delete table inet meshdev
table inet meshdev {
  set sessions { type ifname . ipv4_addr; }
  set addresses { type ipv4_addr; }
  set silent { type ipv4_addr; }
  set declared { type ipv4_addr . inet_service; }
  set allowed { type ipv4_addr . inet_proto . inet_service; }
  set dialling { type ipv4_addr; size 4096; flags dynamic; timeout 10s; }
  set scraping { type ipv4_addr; size 4096; flags dynamic; timeout 10s; }
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
  chain input {
    type filter hook input priority filter; policy accept;
    iifname "mesh*" tcp dport { CONTROL_PORT, RELAYS_PORT } reject with tcp reset
    iifname UPLINK tcp dport { CONTROL_PORT, RELAYS_PORT } tcp flags & (fin|syn|rst|ack) == syn \
      update @dialling { ip saddr limit rate over DIALS/second burst BURST packets } drop
    tcp dport METRICS_PORT tcp flags & (fin|syn|rst|ack) == syn \
      update @scraping { ip saddr limit rate over SCRAPES/second burst FEW packets } drop
  }
  chain output {
    type filter hook output priority filter; policy accept;
    meta skuid RELAY_UID jump relay_sends
    meta skuid CONTROL_UID jump control_sends
  }
  chain relay_sends {
    tcp sport RELAYS_PORT tcp flags & (syn|ack) != syn accept
    oifname "mesh*" ct state established accept
    meta l4proto tcp tcp flags & (fin|syn|rst|ack) != syn reject with tcp reset
    oifname "mesh*" ip daddr != @silent ip daddr . tcp dport @declared accept
    meta l4proto tcp reject with tcp reset
    reject
  }
  chain control_sends {
    tcp sport { CONTROL_PORT, METRICS_PORT } tcp flags & (syn|ack) != syn accept
    EXPORTS
    meta l4proto tcp reject with tcp reset
    reject
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
#: By itself: not every kernel can count them (CONFIG_NFT_CONNLIMIT).
_COUNTING: Final = """\
add set inet meshdev connected { type ipv4_addr; size 4096; flags dynamic; }
add rule inet meshdev input iifname UPLINK tcp dport CONTROL_PORT ct state new \
  add @connected { ip saddr ct count over CONNECTIONS } drop
"""
#: What control sends by OTLP, where the Deployment's environment says so, and the names that this takes. Never to a
#: laptop, nor to this pod, nor to the node's metadata.
_EXPORTS: Final = """\
    oifname UPLINK ip daddr != 169.254.0.0/16 tcp dport { PORTS } accept
"""
_NAMES: Final = """\
    oifname UPLINK ip daddr { NAMESERVERS } meta l4proto { tcp, udp } th dport 53 accept
"""
_NUMBERS: Final = {
    "CONTROL_PORT": CONTROL_PORT,
    "CONTROL_UID": CONTROL_UID,
    "METRICS_PORT": METRICS_PORT,
    "SCRAPES": _SCRAPES_PER_SECOND,
    "FEW": _SCRAPES_AT_ONCE,
    "RELAYS_PORT": RELAYS_PORT,
    "RELAY_UID": RELAY_UID,
    "DIALS": _DIALS_PER_SECOND,
    "BURST": _DIALS_AT_ONCE,
    "CONNECTIONS": CONNECTIONS,
}


@dataclass(frozen=True)
class ExportPorts:
    """The *ports* of OTLP receivers, and who resolves their names."""

    ports: tuple[int, ...]
    nameservers: tuple[IPv4Address, ...]

    def rules(self) -> str:
        """What control may send."""
        found = _EXPORTS.replace("PORTS", ", ".join(map(str, self.ports)))
        if self.nameservers:
            found += _NAMES.replace("NAMESERVERS", ", ".join(map(str, self.nameservers)))
        return found


class SessionFirewall:
    """The table, for as long as this process runs. Every method raises FirewallError; nothing has changed then."""

    def __init__(self, uplink: str, pod: IPv4Address, exports: "ExportPorts | None" = None) -> None:
        self._nft = Nftables()
        rules = _RULES.replace("    EXPORTS\n", exports.rules() if exports is not None else "")
        self._nft.run(_filled_in(rules, uplink, pod))
        try:
            self._nft.run(_filled_in(_COUNTING, uplink, pod))
        except FirewallError as error:
            log.warning("what one address may keep open at control is not limited: %s", error.message)

    def add_session(self, device: str, address: IPv4Address) -> None:
        """Only that address may come from *device*."""
        self._nft.run(_session("add", device, address))

    def delete_session(self, device: str, address: IPv4Address) -> None:
        """Nothing may come from *device* any more."""
        self._nft.run(_session("delete", device, address))

    def add_relays(self, relays: Iterable[RelayPort], address: IPv4Address) -> None:
        """The relay process may connect to those of TCP; forward those of UDP to *address*, for no source yet."""
        self._relays("add", relays, address)

    def delete_relays(self, relays: Iterable[RelayPort], address: IPv4Address) -> None:
        """Undo :meth:`add_relays`. Their allowed sources are to be removed first."""
        self._relays("delete", relays, address)

    def _relays(self, verb: str, relays: Iterable[RelayPort], address: IPv4Address) -> None:
        relays = list(relays)
        forwarded = [f"{_port(relay)} : {address}" for relay in relays if relay[0] == "udp"]
        declared = [f"{address} . {port}" for transport, port in relays if transport == "tcp"]
        self._nft.run(_elements(verb, "relays", forwarded) + _elements(verb, "declared", declared))

    def allow(self, relay: RelayPort, more: Iterable[IPv4Address], less: Iterable[IPv4Address]) -> None:
        """Accept new flows of a relay of UDP from *more*, and none from *less*; existing flows stay."""
        for verb, sources in (("add", more), ("delete", less)):
            self._nft.run(_elements(verb, "allowed", [f"{source} . {_port(relay)}" for source in sources]))

    def silence(self, address: IPv4Address, silent: bool) -> None:
        """Answer new flows to *address* with a reset (UDP: port unreachable), or do not."""
        self._nft.run(_elements("add" if silent else "delete", "silent", [str(address)]))


def _filled_in(rules: str, uplink: str, pod: IPv4Address) -> str:
    for name, value in _NUMBERS.items():
        rules = rules.replace(name, str(value))
    return rules.replace("UPLINK", f'"{uplink}"').replace("POD", str(pod))


def _elements(verb: str, name: str, elements: Sequence[str]) -> str:
    return f"{verb} element inet meshdev {name} {{ {', '.join(elements)} }}\n" if elements else ""


def _port(relay: RelayPort) -> str:
    return f"{relay[0]} . {relay[1]}"


def _session(verb: str, device: str, address: IPv4Address) -> str:
    return (
        f'{verb} element inet meshdev sessions {{ "{device}" . {address} }}\n'
        f"{verb} element inet meshdev addresses {{ {address} }}\n"
    )
