"""Containers of this machine in the tunnel: their packets as the session's address, their questions to the forwarder.

Who counts is decided in :mod:`meshdev.helper.bridges`. A container asks the name servers that this machine has (Docker
and podman copy them), so its questions to those are led to a listener of its own at the session's address; Docker's
server inside a container (127.0.0.11) asks on from there and is led the same way. What asks from this machine's own
network (podman's aardvark-dns) is led like any program of it.
"""

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from typing import Final

from meshdev.errors import DnsError, LaptopError
from meshdev.helper.bridges import Bridge, find_bridges, forwards
from meshdev.helper.device import Device
from meshdev.helper.dns import ListenerPair
from meshdev.helper.firewall import ContainerDns, LaptopFirewall
from meshdev.helper.sockets import DNS_PORT
from meshdev.netlink import messages
from meshdev.netlink.netfilter import forget_flows
from meshdev.netlink.sock import Netlink
from meshdev.wire.values import IPAddress

#: What Docker gives its containers where all name servers of the machine are on its loopback (moby: resolvconf.go).
_DOCKERS: Final = (IPv4Address("8.8.8.8"), IPv4Address("8.8.4.4"))


class Containers:
    """The containers' part of a connection. Its rules are the firewall's, its listener is closed by :meth:`close`."""

    def __init__(self, netlink: Netlink, news: Callable[[], int]) -> None:
        """*news* gives another number when links, addresses or routes of this machine may have changed."""
        self._netlink = netlink
        self._news = news
        self._firewall: LaptopFirewall | None = None
        self._found: tuple[int, tuple[Bridge, ...]] | None = None
        self._ear: ListenerPair | None = None
        self._done: tuple[Device, IPv4Address, tuple[Bridge, ...], ContainerDns] | None = None
        self._forwarding = False

    def listen(self, address: IPv4Address) -> list[ListenerPair]:
        """Any port of the session's address; another address, another listener. None where nothing can lead there."""
        if self._firewall is None:
            return []
        if self._ear is not None and self._ear.at.address != address:
            self.close()
        if self._ear is None:
            try:
                self._ear = ListenerPair(address, 0, machine_only=False)
            except OSError as error:
                raise DnsError(f"no listener on {address}: {error.strerror}") from error
        return [self._ear]

    @property
    def asks_us(self) -> bool:
        """True while questions of containers are led to the listener."""
        return self._done is not None and bool(self._done[3].servers)

    def follow(self, device: Device, servers: Sequence[IPAddress]) -> None:
        """Let in who is there now; *servers* are those of this machine, none while nobody answers.

        Raises FirewallError, LaptopError.
        """
        if device.address is not None:
            self._let_in(device, device.address, self._find(), servers)

    def silence(self) -> None:
        """Lead no questions any more; their packets still come in. Raises FirewallError, LaptopError."""
        if self._done is not None:
            device, address, bridges, _ = self._done
            self._let_in(device, address, bridges, ())

    def _let_in(
        self, device: Device, address: IPv4Address, bridges: tuple[Bridge, ...], servers: Sequence[IPAddress]
    ) -> None:
        if self._firewall is None:
            return
        led = _asked(servers) if self._ear is not None and servers else ()
        dns = ContainerDns(led, self._ear.at.port if self._ear is not None else 0)
        wanted = (device, address, bridges, dns)
        if wanted == self._done or (self._done is None and not bridges):
            return
        self._firewall.carry(device.name, address, bridges, dns)
        if not self._forwarding and any(map(forwards, bridges)):
            self._forward(device)
        # A flow of questions that is tracked already would not see the new rules.
        changed = {(server.packed, DNS_PORT) for server in {*led, *(self._done[3].servers if self._done else ())}}
        forget_flows(lambda flow: flow.protocol == 17 and flow.sent_to in changed)
        self._done = wanted

    def guarded(self, firewall: LaptopFirewall | None) -> None:
        """That firewall's guard was put at the device, and all rules of ours are gone. None: there is no guard.

        Neighbours on every network of this machine would reach a listener that no guard keeps them off, so then there
        is none.
        """
        self._done, self._firewall = None, firewall
        if firewall is None:
            self.close()

    def note(self) -> str | None:
        """Why containers of this machine do not reach the cluster, for people; None where they do or there are none."""
        bridges = self._find()
        if not bridges:
            return None
        if self._firewall is None:
            return f"containers ({_names(bridges)}) do not reach the cluster: it takes nftables"
        closed = [bridge for bridge in bridges if not forwards(bridge)]
        if not closed:
            return None
        return (
            f"containers ({_names(closed)}) do not reach the cluster: this machine does not forward their packets "
            f"(sysctl net.ipv4.ip_forward=1 changes that, for all of its interfaces)"
        )

    def _find(self) -> tuple[Bridge, ...]:
        news = self._news()
        if self._found is None or self._found[0] != news:
            try:
                self._found = news, find_bridges(self._netlink)
            except OSError as error:
                raise LaptopError(f"the kernel does not tell its bridges: {error}") from error
        return self._found[1]

    def _forward(self, device: Device) -> None:
        """Forward what comes in at our device: answers (the packet filter lets nothing else pass)."""
        try:
            self._netlink.run(messages.link_forwarding(device.index))
        except OSError as error:
            raise LaptopError(f"{device.name} does not forward answers to containers: {error.strerror}") from error
        self._forwarding = True

    def close(self) -> None:
        """Close the listener."""
        if self._ear is not None:
            self._ear.close()
            self._ear = None


def _asked(servers: Sequence[IPAddress]) -> tuple[IPv4Address, ...]:
    """Whom containers ask on a machine with those name servers."""
    found = tuple(server for server in servers if isinstance(server, IPv4Address) and not server.is_loopback)
    return found if any(not server.is_loopback for server in servers) else _DOCKERS


def _names(bridges: Sequence[Bridge]) -> str:
    return ", ".join(dict.fromkeys(bridge.name for bridge in bridges))
