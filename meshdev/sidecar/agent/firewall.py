"""The nft table that redirects new connections to the passthrough proxy, and datagrams to Envoy.

It belongs to this process: the kernel removes it once agent, passthrough worker and Envoy have ended.

Each sidecar has a table of its own. Which of those in a pod may redirect is decided by another one, without rules: only
its owner does. So one that is not needed any more can let the next one begin, while the connections that it once
redirected go on to be translated.
"""

import asyncio
import logging
import re
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from ipaddress import IPv4Address
from typing import Final

from meshdev.errors import FirewallError
from meshdev.netlink.messages import Flow
from meshdev.netlink.netfilter import forget_flows
from meshdev.nft import Nftables
from meshdev.sidecar.agent.listener_ports import RANGE
from meshdev.wire.agent import PodPort

log = logging.getLogger(__name__)

#: A sidecar that lost its manager leaves within 60 s and takes 25 s for that.
TAKE_SECONDS: Final = 100.0
_TAKE_AGAIN_SECONDS: Final = 0.25

#: Its owner may redirect. Sidecars of earlier versions had their rules in it, too.
_TURN: Final = "inet meshdev"
_SYN: Final = "tcp flags & (fin | syn | rst | ack) == syn"

#: Only what comes to the pod's own address, not to those of its other networks (Multus): proxy and Envoy know the app
#: by that one. Only the first packet of a connection is translated, and only if it is one: after tracking begins,
#: packets of connections that are older look new to the kernel. What answers the pod's own flows passes: of another
#: transport they may begin at a listener port. The chain stays when nothing is redirected any more: without a
#: nat chain the kernel would stop to translate the connections that were.
_RULES: Final = """\
add table TABLE { flags owner; }
add map TABLE tcp_listeners { type inet_service : inet_service; }
add map TABLE udp_listeners { type inet_service : inet_service; }
add set TABLE listeners { type inet_service; }
add chain TABLE arrivals { type nat hook prerouting priority -101; policy accept; }
add rule TABLE arrivals iifname "lo" accept
add rule TABLE arrivals meta nfproto != ipv4 accept
add rule TABLE arrivals ip daddr != ADDRESS accept
add rule TABLE arrivals meta l4proto udp redirect to :udp dport map @udp_listeners
add chain TABLE only_redirected { type filter hook input priority -1; policy accept; }
add rule TABLE only_redirected ct direction reply accept
add rule TABLE only_redirected tcp dport @listeners ct status & dnat == 0 reject with tcp reset
add rule TABLE only_redirected udp dport @listeners ct status & dnat == 0 reject
"""
#: Only where the app listens: whoever connects while it does not is refused by the kernel, as without a sidecar. A
#: kernel may lack nft_socket: there a port is redirected until the agent has seen that nobody listens.
_REDIRECT: Final = f"add rule TABLE arrivals {_SYN} LOOK redirect to :tcp dport map @tcp_listeners\n"
_LOOK: Final = "socket transparent { 0, 1 }"
#: A client that connects between the end of the listeners and that of the redirect, when the agent was killed, is not
#: refused: its kernel retransmits the SYN, which reaches the app. Any socket will do ("transparent 0" is true of each):
#: a client that uses a port again meets one in TIME_WAIT, of which nothing else can be asked ("wildcard" fails), and
#: the kernel finds the listener from there (seen on Linux 6.18). Optional, since it needs nft_socket.
_NOBODY: Final = f"""\
add rule TABLE only_redirected tcp dport @listeners {_SYN} socket transparent 0 accept
add rule TABLE only_redirected tcp dport @listeners {_SYN} drop
"""


#: The worker's connections to the app begin at their clients' addresses, and so have the same ends as those that were
#: redirected: only what they send is tracked in a zone of its own, of the agent's number. The app's answers have other
#: ends than the redirected connection's (its replies begin at the listener port), so they are found without one. They
#: get the mark, and with it the way to the worker (``client_addresses``). Zones need CONFIG_NF_CONNTRACK_ZONES.
_CLIENT_ADDRESSES: Final = """\
add chain TABLE to_app {{ type filter hook output priority raw; policy accept; }}
add chain TABLE from_app {{ type route hook output priority mangle; policy accept; }}
add rule TABLE to_app meta mark {mark} ct original zone set {zone}
add rule TABLE from_app ct direction reply ct original zone {zone} meta mark set {mark}
"""
_NAME: Final = re.compile(r"table inet meshdev_([0-9a-f]{4})[0-9a-f]{4}", re.ASCII)


class PodFirewall:
    """The table. Needs CAP_NET_ADMIN; raises FirewallError with nft's own message."""

    def __init__(self, address: IPv4Address) -> None:
        """*address* is the pod's own, where proxy and Envoy expect the app; what comes to others is left alone."""
        self._nft = Nftables()
        try:
            tables = self._nft.show("list tables inet")
            taken = _numbers(tables)
            #: This agent's in this pod, from 1 to 65535.
            self.number: Final = secrets.choice([number for number in range(1, 1 << 16) if number not in taken])
            self._table = f"inet meshdev_{self.number:04x}{secrets.token_hex(2)}"
            if _TURN not in tables:  # nor has any sidecar one, whose name begins so
                _forget_former()
            self._nft.run(_RULES.replace("TABLE", self._table).replace("ADDRESS", str(address)))
            #: Whether what is redirected is refused while its app does not listen.
            self.looks: Final = self._add_redirect()
            if self.looks:
                self._nft.run(_NOBODY.replace("TABLE", self._table))
        except FirewallError:
            self._nft.close()
            raise
        self._redirected: dict[PodPort, int] = {}
        #: What owns the table, for worker and Envoy to inherit. When this process is killed, they are, too, and the
        #: table stays until their copies are closed: after their connections, because the kernel closes the descriptors
        #: of a dead process from the newest to the oldest (task_work_run; seen on Linux 6.18). So their ends are still
        #: translated, and clients notice them, instead of sending to the app on a connection that it never had.
        self.hold: Final = () if self._nft.descriptor is None else (self._nft.descriptor,)

    def _add_redirect(self) -> bool:
        rule = _REDIRECT.replace("TABLE", self._table)
        try:
            self._nft.run(rule.replace("LOOK", _LOOK))
        except FirewallError as error:
            log.info("this kernel cannot look for listeners: %s", error.message)
            self._nft.run(rule.replace("LOOK", ""))
            return False
        return True

    @property
    def redirected(self) -> Mapping[PodPort, int]:
        """What new connections meet instead."""
        return dict(self._redirected)

    def redirect(self, wanted: Mapping[PodPort, int]) -> None:
        """Exactly *wanted* is redirected afterwards, in one step; nothing else changes for anybody."""
        commands = [
            f"delete element {self._table} {port.transport}_listeners {{ {port.number} : {listener} }}"
            for port, listener in self._redirected.items()
            if wanted.get(port) != listener
        ]
        commands += [
            f"add element {self._table} {port.transport}_listeners {{ {port.number} : {listener} }}"
            for port, listener in wanted.items()
            if self._redirected.get(port) != listener
        ]
        # Once a listener port, always one: connections that were redirected still come through it.
        commands += [
            f"add element {self._table} listeners {{ {listener} }}" for listener in sorted(set(wanted.values()))
        ]
        if wanted != self._redirected:
            self._nft.run("\n".join(commands) + "\n")
            changed = dict(wanted.items() ^ self._redirected.items()).keys()
            self._redirected = dict(wanted)
            _forget_senders({port.number for port in changed if port.transport == "udp"})

    def living(self) -> frozenset[int]:
        """The numbers of the agents that have a table in this pod, this one's included once it has one."""
        return _numbers(self._nft.show("list tables inet"))

    def keep_marked(self, mark: int) -> None:
        """Track what the worker sends to the app with this mark apart, and mark the app's answers.

        Raises FirewallError, having changed nothing.
        """
        self._nft.run(_CLIENT_ADDRESSES.replace("TABLE", self._table).format(mark=mark, zone=self.number))

    def take_turn(self) -> bool:
        """From now on it may redirect. False where another sidecar does."""
        try:
            self._nft.run(f"add table {_TURN} {{ flags owner; }}\n")
        except FirewallError:  # whoever has one table may have another, unless it is somebody's
            return False
        return True

    def give_turn(self) -> None:
        """Redirect nothing, and let another one do it; connections that were redirected go on to be translated."""
        self.redirect({})
        self._nft.run(f"delete table {_TURN}\n")

    def close(self) -> None:
        """The table is removed once passthrough worker and Envoy have ended, too."""
        self._nft.close()


def _numbers(tables: str) -> frozenset[int]:
    """Of the agents that have a table, from what nft lists."""
    found = map(_NAME.fullmatch, tables.splitlines())
    return frozenset(int(each[1], 16) for each in found if each is not None)


def _forget_former() -> None:
    """Forget the connections of former sidecars, before there is a nat chain again: no other sidecar has a table.

    They ended without being tracked. A client that has used a port of theirs again since then, while nothing was
    translated, would be sent to a listener that is gone, from the moment of the chain on. What workers had open to the
    app has a zone, and the answers to it none: the kernel would give a client that has such a port now another one.
    """
    listeners = frozenset(RANGE)
    forget_flows(
        lambda flow: _is_redirected(flow, listeners) or (flow.protocol == socket.IPPROTO_TCP and flow.zone > 0)
    )


def _is_redirected(flow: Flow, listeners: AbstractSet[int]) -> bool:
    """Whether it is a TCP connection that goes to one of these instead of where its client sent it."""
    return flow.protocol == socket.IPPROTO_TCP and flow.went_to[1] in listeners and flow.sent_to[1] not in RANGE


def _forget_senders(ports: AbstractSet[int]) -> None:
    """Who sends datagrams from one socket all the time is one flow to the kernel: the next datagram begins another."""
    if ports:
        forget_flows(lambda flow: flow.protocol == socket.IPPROTO_UDP and flow.sent_to[1] in ports)


def _forget_the_dead(listening: AbstractSet[PodPort]) -> None:
    """The connections of a sidecar that was killed. Its table went at once and tracking with it, so to the kernel they
    go on for days: a client that used a port again would be sent to a port where nobody listens. One that lives, and
    has connections left, still listens.
    """
    dead = set(RANGE) - {port.number for port in listening if port.transport == "tcp"}
    forget_flows(lambda flow: _is_redirected(flow, dead))


async def wait_for_turn(firewall: PodFirewall, listening: Callable[[], AbstractSet[PodPort] | None]) -> None:
    """Return when no other sidecar in this pod redirects: one of another manager may be about to leave.

    *listening*: the ports of the pod where somebody listens; None where the kernel does not say. Raises FirewallError
    where the other one does not leave.
    """
    until, logged = time.monotonic() + TAKE_SECONDS, False
    while not firewall.take_turn():
        if time.monotonic() > until:
            raise FirewallError(f"another sidecar in this pod has not left for {TAKE_SECONDS:.0f} s")
        if not logged:
            log.info("another sidecar is in this pod; waiting for it to leave")
            logged = True
        await asyncio.sleep(_TAKE_AGAIN_SECONDS)
    if (ports := listening()) is not None:
        _forget_the_dead(ports)
