"""The pod's network as the manager changes it: one TUN device a session, forwarding, masquerade, source check.

All of it lives in the pod's own network namespace and goes with the pod.
"""

import logging
import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Final, Protocol

from pyroute2.iproute.linux import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from meshdev.config import gateway
from meshdev.errors import DeviceError, FirewallError, RouteError
from meshdev.netlink.messages import link_forwarding
from meshdev.netlink.sock import Netlink
from meshdev.nft import Nftables
from meshdev.tun.device import TunDevice
from meshdev.tun.linux import ensure_node, open_tun, set_offload

log = logging.getLogger(__name__)

#: Devices of sessions; the firewall knows them by this name.
DEVICE_PATTERN: Final = "mesh%d"

RULES: Final = """\
table inet meshdev
delete table inet meshdev
table inet meshdev {
  set sessions { type ifname . ipv4_addr; }
  set addresses { type ipv4_addr; }
  chain source {
    type filter hook prerouting priority raw; policy accept;
    iifname != "mesh*" accept
    meta nfproto != ipv4 drop
    iifname . ip saddr != @sessions drop
    ip daddr 169.254.0.0/16 drop
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname "mesh*" oifname "mesh*" drop
    oifname "mesh*" ct state established,related accept
    oifname "mesh*" drop
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr @addresses oifname != "mesh*" masquerade
  }
}
"""


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
        """A device that leads to *address*, and the offloads agreed (a subset of *offload*)."""
        ...

    def close_device(self, device: TunDevice, address: IPv4Address) -> None:
        """Close the device and forget its address."""
        ...


class KernelNetwork:
    """The real one. Needs CAP_NET_ADMIN, and CAP_MKNOD where /dev/net/tun is missing."""

    def __init__(self) -> None:
        ensure_node()
        self._netlink = IPRoute()
        uplink = self._uplink()
        self._mtu: int = uplink.get_attr("IFLA_MTU")
        self._uplink_index: int = uplink["index"]
        self._nft = Nftables()
        self._nft.run(RULES)
        self._forward(self._uplink_index)

    def pod(self) -> PodNetwork:
        """The pod's address, MTU and resolver."""
        addresses = list(self._netlink.get_addr(family=socket.AF_INET, index=self._uplink_index))
        if not addresses:
            raise RouteError("the pod has no IPv4 address")
        address = IPv4Address(addresses[0].get_attr("IFA_LOCAL"))
        nameservers, search = parse_resolv_conf(Path("/etc/resolv.conf").read_text())
        return PodNetwork(address, self._mtu, nameservers, search)

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
            self._nft.run(
                f'add element inet meshdev sessions {{ "{device.name}" . {address} }}\n'
                f"add element inet meshdev addresses {{ {address} }}\n"
            )
        except BaseException:
            device.close()
            raise
        return device, agreed

    def close_device(self, device: TunDevice, address: IPv4Address) -> None:
        """Forget the address in the firewall, then close the device, which takes address and route with it."""
        try:
            self._nft.run(
                f'delete element inet meshdev sessions {{ "{device.name}" . {address} }}\n'
                f"delete element inet meshdev addresses {{ {address} }}\n"
            )
        except FirewallError as error:
            # The next device of that name could also send from the old address, until that is leased again.
            log.warning("%s", error.message)
        device.close()

    def _configure(self, name: str, address: IPv4Address, pool: IPv4Network) -> None:
        try:
            index = socket.if_nametoindex(name)
            self._netlink.link("set", index=index, mtu=self._mtu, txqlen=1000, state="up")
            self._netlink.addr("add", index=index, address=str(gateway(pool)), prefixlen=32)
            self._netlink.route("add", dst=f"{address}/32", oif=index, scope=253)  # RT_SCOPE_LINK
            self._forward(index)
        except (OSError, NetlinkError) as error:
            raise RouteError(f"the device {name} cannot be configured: {error}") from error

    def _uplink(self) -> "_Link":
        for route in self._netlink.get_default_routes(family=socket.AF_INET):
            (link,) = self._netlink.get_links(route.get_attr("RTA_OIF"))
            return link  # type: ignore[no-any-return]  # pyroute2 has no types
        raise RouteError("the pod has no default route")

    def _forward(self, index: int) -> None:
        try:
            with Netlink() as netlink:
                netlink.run(link_forwarding(index))
        except OSError as error:
            raise RouteError(f"the kernel does not let device {index} forward: {error.strerror}") from error


class _Link(Protocol):
    def get_attr(self, name: str) -> int: ...
    def __getitem__(self, name: str) -> int: ...


def parse_resolv_conf(text: str) -> tuple[tuple[IPv4Address, ...], tuple[str, ...]]:
    """IPv4 nameservers and search list of a pod's resolv.conf, which the kubelet wrote."""
    nameservers: list[IPv4Address] = []
    search: tuple[str, ...] = ()
    for line in text.splitlines():
        match line.split():
            case ["nameserver", address, *_] if ":" not in address:
                nameservers.append(IPv4Address(address))
            case ["search", *domains]:
                search = tuple(domain.rstrip(".") for domain in domains)
    return tuple(nameservers), search
