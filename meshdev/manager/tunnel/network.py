"""The pod's network as the manager changes it: one TUN device a session, forwarding, relays, source check.

All of it is in the pod's own network namespace and removed with it.
"""

import logging
import socket
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final, Protocol

from meshdev.config import gateway
from meshdev.errors import DeviceError, FirewallError, RouteError
from meshdev.manager.tunnel.firewall import ExportPorts, RelayPort, SessionFirewall
from meshdev.manager.tunnel.tracking import Tracking
from meshdev.netlink.links import KernelLink, addresses_dump, link_get, parse_address, parse_link
from meshdev.netlink.messages import (
    RT_TABLE_MAIN,
    address_add,
    link_forwarding,
    link_up,
    parse_route,
    route_add,
    routes_dump,
)
from meshdev.netlink.sock import Netlink
from meshdev.tun.device import TunDevice
from meshdev.tun.linux import open_tun, set_offload
from meshdev.wire.resolv_conf import parse_resolv_conf

log = logging.getLogger(__name__)

#: Devices of sessions; the firewall knows them by this name.
DEVICE_PATTERN: Final = "mesh%d"
#: Packets that wait in a device; a TUN device's own default is 500.
_QUEUE_LENGTH: Final = 1000


@dataclass(frozen=True)
class PodNetwork:
    """What the pod's network looks like from inside: ``mtu`` in bytes, the rest from /etc/resolv.conf."""

    address: IPv4Address
    mtu: int
    nameservers: tuple[IPv4Address, ...]
    search: tuple[str, ...]


class Network(Protocol):
    """What a session needs of the network."""

    def open_device(self, address: IPv4Address, pool: IPv4Network, queues: int, offload: int) -> tuple[TunDevice, int]:
        """A device that routes to *address*, and the offloads agreed (a subset of *offload*)."""
        ...

    def close_device(self, device: TunDevice, address: IPv4Address) -> None:
        """Close the device and forget its address."""
        ...

    def open_relays(self, relays: Sequence[RelayPort], address: IPv4Address) -> None:
        """Let the relay process connect to those of TCP; forward those of UDP from the same ports of the pod, for no
        source yet. Raises FirewallError."""
        ...

    def close_relays(self, relays: Sequence[RelayPort], address: IPv4Address) -> None:
        """Undo it; what is under way through them is cut."""
        ...

    def allow(self, relay: RelayPort, sources: Iterable[IPv4Address], *, keep: bool) -> None:
        """Only *sources* may use a relay of UDP; *keep*: also those that may already."""
        ...

    def silence(self, address: IPv4Address, silent: bool) -> None:
        """Refuse new flows to *address* at once, or do not."""
        ...

    def cut(self, address: IPv4Address) -> None:
        """End what is under way through relays to *address*: the next packet of each flow is answered with a reset."""
        ...

    def flush(self, address: IPv4Address) -> Future[None]:
        """Forget every tracked connection from or to *address*; done when there is none any more, or FirewallError."""
        ...


class KernelNetwork:
    """The real one. Needs CAP_NET_ADMIN and /dev/net/tun."""

    def __init__(self, receivers: tuple[int, ...] = ()) -> None:
        """*receivers* are ports of OTLP receivers that control may reach."""
        self._netlink = Netlink()
        uplink = self._uplink()
        self._mtu = uplink.mtu
        addresses = filter(None, map(parse_address, self._netlink.dump(addresses_dump())))
        found = next((each.interface.ip for each in addresses if each.index == uplink.index), None)
        if found is None:
            raise RouteError("the pod has no IPv4 address")
        self._address = found
        exports = ExportPorts(receivers, self.pod().nameservers) if receivers else None
        self._firewall = SessionFirewall(uplink.name, self._address, exports)
        self._allowed: dict[RelayPort, set[IPv4Address]] = {}
        self._tracking = Tracking()
        self._forward(uplink.index)

    def pod(self) -> PodNetwork:
        """The pod's address, MTU and resolver."""
        found = parse_resolv_conf(Path("/etc/resolv.conf").read_text())
        nameservers = tuple(each for each in found.nameservers if isinstance(each, IPv4Address))
        return PodNetwork(self._address, self._mtu, nameservers, found.search)

    def open_device(self, address: IPv4Address, pool: IPv4Network, queues: int, offload: int) -> tuple[TunDevice, int]:
        """Open, agree on offloads, set address, route, forwarding and source check. Raises LaptopError's kinds."""
        try:
            device = open_tun(queues, name=DEVICE_PATTERN)
        except OSError as error:
            raise DeviceError(f"the manager cannot open a TUN device: {error.strerror}") from error
        try:
            agreed = device.offload & offload
            set_offload(device.queues[0].fileno(), agreed)
            for queue in device.queues:
                queue.detach()
            self._configure(device.name, address, pool)
            self._firewall.add_session(device.name, address)
        except BaseException:
            device.close()
            raise
        return device, agreed

    def close_device(self, device: TunDevice, address: IPv4Address) -> None:
        """Forget the address in the firewall, then close the device, which takes address and route with it."""
        try:
            self._firewall.delete_session(device.name, address)
        except FirewallError as error:
            # The next device of that name could also send from the old address, until that is leased again.
            log.warning("%s", error.message)
        device.close()

    def open_relays(self, relays: Sequence[RelayPort], address: IPv4Address) -> None:
        """See :class:`Network`."""
        self._firewall.add_relays(relays, address)
        self._allowed.update((relay, set()) for relay in relays if relay[0] == "udp")

    def close_relays(self, relays: Sequence[RelayPort], address: IPv4Address) -> None:
        """See :class:`Network`. What cannot be removed is forwarded to an address that no device has."""
        try:
            for relay in relays:
                self._firewall.allow(relay, (), self._allowed.pop(relay, set()))
            self._firewall.delete_relays(relays, address)
        except FirewallError as error:
            log.warning("%s", error.message)
        self._tracking.cut(address, {port for _, port in relays})

    def allow(self, relay: RelayPort, sources: Iterable[IPv4Address], *, keep: bool) -> None:
        """See :class:`Network`."""
        before, after = self._allowed[relay], set(sources)
        if keep:
            after |= before
        self._firewall.allow(relay, sorted(after - before), sorted(before - after))
        self._allowed[relay] = after

    def silence(self, address: IPv4Address, silent: bool) -> None:
        """See :class:`Network`."""
        self._firewall.silence(address, silent)

    def cut(self, address: IPv4Address) -> None:
        """See :class:`Network`. Nothing else is forwarded to a session's address; only replies come from it."""
        self._tracking.cut(address)

    def flush(self, address: IPv4Address) -> Future[None]:
        """See :class:`Network`."""
        return self._tracking.flush(address)

    def _configure(self, name: str, address: IPv4Address, pool: IPv4Network) -> None:
        try:
            index = socket.if_nametoindex(name)
            self._netlink.run(link_up(index, self._mtu, _QUEUE_LENGTH))
            self._netlink.run(address_add(index, gateway(pool)))
            self._netlink.run(route_add(IPv4Network(address), index, gateway(pool)))
        except OSError as error:
            raise RouteError(f"the device {name} cannot be configured: {error.strerror}") from error
        self._forward(index)

    def _uplink(self) -> KernelLink:
        for route in filter(None, map(parse_route, self._netlink.dump(routes_dump()))):
            if route.network.prefixlen == 0 and route.table == RT_TABLE_MAIN:
                return next(filter(None, map(parse_link, self._netlink.dump(link_get(route.index)))))
        raise RouteError("the pod has no default route")

    def _forward(self, index: int) -> None:
        try:
            self._netlink.run(link_forwarding(index))
        except OSError as error:
            raise RouteError(f"the kernel does not let device {index} forward: {error.strerror}") from error
