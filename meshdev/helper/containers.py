"""Containers of this machine in the tunnel: their packets get the session's address, their queries the forwarder.

:mod:`meshdev.helper.bridges` decides which containers. They ask this machine's name servers (Docker and podman copy
them), so queries to those are redirected to a listener of their own at the session's address; Docker's server inside a
container (127.0.0.11) forwards queries from there and is redirected, too. What asks from this machine's own network
(podman's aardvark-dns) is redirected like any other program on it.
"""

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from typing import Final

from meshdev.errors import LaptopError
from meshdev.helper.bridges import Bridge, find_bridges, forwards
from meshdev.helper.device import Device
from meshdev.helper.dns import ListenerPair, listener_at
from meshdev.helper.firewall import ContainerDns, LaptopFirewall
from meshdev.helper.sockets import DNS_PORT
from meshdev.netlink import messages
from meshdev.netlink.netfilter import forget_flows
from meshdev.netlink.sock import Netlink
from meshdev.wire.values import IPAddress

#: Docker's servers for containers where all name servers of the machine are on its loopback (moby: resolvconf.go).
_DOCKER_DEFAULTS: Final = (IPv4Address("8.8.8.8"), IPv4Address("8.8.4.4"))


class Containers:
    """Containers in one connection. The rules belong to the firewall; :meth:`close` closes the listener."""

    def __init__(self, netlink: Netlink, news: Callable[[], int]) -> None:
        """*news* returns another number when links, addresses or routes of this machine may have changed."""
        self._netlink = netlink
        self._news = news
        self._firewall: LaptopFirewall | None = None
        self._found: tuple[int, tuple[Bridge, ...]] | None = None
        self._listener: ListenerPair | None = None
        self._done: tuple[Device, IPv4Address, tuple[Bridge, ...], ContainerDns] | None = None
        self._forwarding = False

    def listen(self, address: IPv4Address) -> list[ListenerPair]:
        """A listener at any port of the session's *address*; none where nothing can be redirected to it."""
        if self._firewall is None:
            return []
        self._listener = listener_at(address, 0, self._listener, machine_only=False)
        return [self._listener]

    @property
    def asks_us(self) -> bool:
        """True while queries of containers are redirected to the listener."""
        return self._done is not None and bool(self._done[3].servers)

    def follow(self, device: Device, servers: Sequence[IPAddress]) -> None:
        """Let the containers that exist now into the tunnel; *servers* are this machine's, empty while it has no DNS.

        Raises FirewallError, LaptopError.
        """
        if device.address is not None:
            self._let_in(device, device.address, self._find(), servers)

    def silence(self) -> None:
        """Stop redirecting queries; packets still enter the tunnel. Raises FirewallError, LaptopError."""
        if self._done is not None:
            device, address, bridges, _ = self._done
            self._let_in(device, address, bridges, ())

    def _let_in(
        self, device: Device, address: IPv4Address, bridges: tuple[Bridge, ...], servers: Sequence[IPAddress]
    ) -> None:
        if self._firewall is None:
            return
        asked = _asked(servers) if self._listener is not None and servers else ()
        dns = ContainerDns(asked, self._listener.at.port if self._listener is not None else 0)
        wanted = (device, address, bridges, dns)
        if wanted == self._done or (self._done is None and not bridges):
            return
        self._firewall.carry(device.name, address, bridges, dns)
        if not self._forwarding and any(map(forwards, bridges)):
            self._forward(device)
        # Flows of queries that are tracked already would not see the new rules.
        changed = {(server.packed, DNS_PORT) for server in {*asked, *(self._done[3].servers if self._done else ())}}
        forget_flows(lambda flow: flow.protocol == 17 and flow.sent_to in changed)
        self._done = wanted

    def guarded(self, firewall: LaptopFirewall | None) -> None:
        """Note that the firewall's guard was set, which removed our rules. None: there is no guard.

        Without a guard neighbours on every network of this machine would reach the listener, so there is none.
        """
        self._done, self._firewall = None, firewall
        if firewall is None:
            self.close()

    def note(self) -> str | None:
        """Why containers of this machine do not reach the cluster, for people; None where they do or do not exist."""
        bridges = self._find()
        if not bridges:
            return None
        if self._firewall is None:
            return f"containers ({_names(bridges)}) do not reach the cluster: that needs nftables"
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
                raise LaptopError(f"this machine's bridges cannot be listed: {error}") from error
        return self._found[1]

    def _forward(self, device: Device) -> None:
        """Forward packets that arrive at our device: answers (the packet filter drops everything else)."""
        try:
            self._netlink.run(messages.link_forwarding(device.index))
        except OSError as error:
            raise LaptopError(f"{device.name} does not forward answers to containers: {error.strerror}") from error
        self._forwarding = True

    def close(self) -> None:
        """Close the listener."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None


def _asked(servers: Sequence[IPAddress]) -> tuple[IPv4Address, ...]:
    """The servers that containers ask on a machine with those name servers."""
    found = tuple(server for server in servers if isinstance(server, IPv4Address) and not server.is_loopback)
    return found if any(not server.is_loopback for server in servers) else _DOCKER_DEFAULTS


def _names(bridges: Sequence[Bridge]) -> str:
    return ", ".join(dict.fromkeys(bridge.name for bridge in bridges))
