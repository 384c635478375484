"""The TUN device: opened here, used by the session. No other device is ever changed."""

import socket
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from meshdev.errors import DeviceError, RouteError
from meshdev.helper.journal import Journal
from meshdev.host.journal import DeleteDevice
from meshdev.host.upkeep import DeviceState
from meshdev.netlink import messages
from meshdev.netlink.sock import Netlink
from meshdev.tun.device import TunDevice
from meshdev.tun.linux import open_tun

#: A TUN's default is 500 (TUN_READQ_SIZE of if_tun.h); that of Ethernet suits many concurrent flows better.
_QUEUE_LENGTH: Final = 1000


class Device:
    """The session's device; ``opened`` has our descriptors until they are passed on."""

    def __init__(self, netlink: Netlink, journal: Journal, queues: int) -> None:
        self._netlink = netlink
        self._journal = journal
        self.opened: TunDevice = open_tun(queues)
        self.name = self.opened.name
        self.index = socket.if_nametoindex(self.name)
        self.address: IPv4Address | None = None
        self._mtu = 0
        self._deleted = False
        self._entry = DeleteDevice(self.name, self.index)
        # Until the descriptors are passed on, the device is removed with this process: this is early enough.
        journal.add(self._entry)

    def set_address(self, address: IPv4Address, mtu: int) -> None:
        """Replace the device's address and bring it up. Raises RouteError."""
        # Fails where the kernel has no IPv6, and is not needed there.
        self._netlink.execute([messages.link_without_ipv6_address(self.index)])
        steps = [messages.link_up(self.index, mtu, _QUEUE_LENGTH)]
        if address != self.address:
            steps.append(messages.address_add(self.index, address))
        for error in self._netlink.execute(steps):
            if error is not None:
                raise RouteError(f"{self.name} does not accept the address {address}: {error.strerror}") from error
        if self.address not in {None, address}:
            self._netlink.run(messages.address_delete(self.index, self.address))
        self.address, self._mtu = address, mtu

    def desired(self, routes: frozenset[IPv4Network]) -> DeviceState:
        """The device's desired state, with these routes."""
        addresses = frozenset() if self.address is None else frozenset({self.address})
        return DeviceState(True, self._mtu, addresses, routes)

    def put_back_link(self) -> None:
        """Bring it up again, with its MTU. Raises OSError."""
        self._netlink.run(messages.link_up(self.index, self._mtu, _QUEUE_LENGTH))

    def put_back_address(self) -> None:
        """Give it its address again. Raises OSError."""
        if self.address is not None:
            self._netlink.run(messages.address_add(self.index, self.address))

    def allow_dnat_to_loopback(self) -> None:
        """Allow DNAT of arriving packets to 127.0.0.1, until the device is removed. Raises RouteError."""
        try:
            self._netlink.run(messages.link_route_localnet(self.index))
        except OSError as error:
            raise RouteError(f"{self.name} cannot forward to this machine's loopback: {error.strerror}") from error

    def delete(self) -> None:
        """Remove the device, even while the session has it open. Raises DeviceError."""
        self.opened.close()
        delete_device(self._netlink, self.name, self.index)
        self._deleted = True

    def forget(self) -> None:
        """Remove it from the journal once it is deleted. The last step: an empty journal means that all is undone."""
        if self._deleted:
            self._journal.remove(self._entry)


def delete_device(netlink: Netlink, name: str, index: int) -> None:
    """Remove that device unless it is gone or another one has its name or index by now."""
    if not device_exists(name, index):
        return
    try:
        netlink.run(messages.link_delete(index))
    except OSError as error:
        if device_exists(name, index):
            raise DeviceError(
                f"{name} cannot be removed: {error.strerror}", hint=f"sudo ip link delete {name}"
            ) from error


def device_exists(name: str, index: int) -> bool:
    """Whether there is a device with that name and index."""
    try:
        return socket.if_nametoindex(name) == index
    except OSError:
        return False
