"""The end of the return path: whether what a relay brings gets past this machine's own packet filters."""

import asyncio
import contextlib
import itertools
import os
import secrets
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from typing import Final

from meshdev.errors import LaptopError
from meshdev.isolation.network import THIS_NETWORK, NetworkSockets
from meshdev.isolation.streams import listening
from meshdev.session.local import LocalTarget
from meshdev.tun.device import TunQueue
from meshdev.tun.offload import VNET_HEADER_LENGTH

#: How long a packet may take from the device to a socket of the same machine, in seconds.
COME_IN_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.01
#: Looks before the next SYN. Each has a source port of its own: connection tracking keeps what it knows of the others.
_PATIENCE: Final = 20

_SOURCE_PORTS: Final = range(40000, 60000)
_SYN: Final = 0x02
_DONT_FRAGMENT: Final = 0x4000
_TCP: Final = 6

# Linux include/uapi/linux/in.h, asm-generic/socket.h, linux/sock_diag.h (SK_MEMINFO_*)
_IP_MINTTL: Final = 21
_SO_MEMINFO: Final = 55
_MEMINFO: Final = struct.Struct("=9I")
_DROPS: Final = 8
#: What :meth:`Acceptor.passes` sends has one hop left: enough to arrive, too few for the socket.
_TTL: Final = 1


class Acceptor:
    """A listener on 127.0.0.1 that closes whatever connects. Made by :func:`accepting`.

    The socket itself drops the SYNs of :meth:`passes`, because few hops are left to them (IP_MINTTL, RFC 5082), and
    counts them: they came through every packet filter then, and nothing is answered to the cluster. To wait for one in
    SYN_RECV instead would be a race with the cluster's reset; a filter on the socket takes a privilege where kernels
    are hardened.
    """

    def __init__(self, network: NetworkSockets = THIS_NETWORK) -> None:
        """*network*: where relays end. Raises OSError."""
        self._one_at_a_time = asyncio.Lock()
        self._network = network
        self._sock = listening(network, "127.0.0.1")
        self.target = LocalTarget(IPv4Address("127.0.0.1"), self._sock.getsockname()[1])
        """Where the helper should forward a relay that is probed."""
        self.came = 0
        """Connections that came so far."""
        try:
            self._sock.setsockopt(socket.IPPROTO_IP, _IP_MINTTL, _TTL + 1)
            self._dropped()
        except OSError:
            self._sock.close()
            raise
        asyncio.get_running_loop().add_reader(self._sock, self._accept)

    def close(self) -> None:
        """Listen no longer."""
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()

    async def passes(self, queue: TunQueue, gateway: IPv4Address, address: IPv4Address, relay: int) -> bool:
        """Whether this machine lets in what comes from *gateway* at the device, for that relay of the session's.

        The helper must forward the TCP relay to :attr:`target`, and *queue* take part in the device. Raises LaptopError
        when the device takes no packet.
        """
        async with self._one_at_a_time:
            # False only where the kernel counts such a packet when nothing filters it.
            return await self._drops(_by_device(queue, gateway, address, relay)) or not await self._drops(self._by_lo)

    async def _drops(self, send: Callable[[], None]) -> bool:
        """Whether the socket counts a drop of what is sent now and then."""
        before = self._dropped()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(COME_IN_SECONDS):
                for look in itertools.count():
                    if look % _PATIENCE == 0:
                        send()
                    if self._dropped() != before:
                        return True
                    await asyncio.sleep(_LOOK_SECONDS)
        return False

    def _by_lo(self) -> None:
        with contextlib.suppress(OSError), self._network.open_socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, _TTL)
            sock.connect((str(self.target.address), self.target.port))

    def _dropped(self) -> int:
        found = self._sock.getsockopt(socket.SOL_SOCKET, _SO_MEMINFO, _MEMINFO.size)
        return int(_MEMINFO.unpack(found)[_DROPS])

    def _accept(self) -> None:
        try:
            connection, _ = self._sock.accept()
        except OSError:  # gone again, or no descriptor left: the next one
            return
        self.came += 1
        connection.close()


@asynccontextmanager
async def accepting(network: NetworkSockets = THIS_NETWORK) -> AsyncIterator[Acceptor]:
    """An acceptor that listens inside the block. Raises LaptopError."""
    try:
        made = Acceptor(network)
    except OSError as error:
        raise LaptopError(f"no socket to probe the return path with: {error.strerror}") from error
    try:
        yield made
    finally:
        made.close()


def syn(source: IPv4Address, source_port: int, to: IPv4Address, port: int) -> bytes:
    """An IPv4 packet that would open a TCP connection (RFC 791, RFC 9293) and has one hop left."""
    tcp = struct.pack(">HHIIBBHHH", source_port, port, 0, 0, 5 << 4, _SYN, 0xFFFF, 0, 0)
    pseudo = source.packed + to.packed + struct.pack(">HH", _TCP, len(tcp))
    tcp = tcp[:16] + _checksum(pseudo + tcp) + tcp[18:]
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, _DONT_FRAGMENT, _TTL, _TCP, 0) + source.packed + to.packed
    return ip[:10] + _checksum(ip) + ip[12:] + tcp


def _checksum(data: bytes) -> bytes:
    """RFC 1071, for an even number of bytes."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")


def _by_device(queue: TunQueue, gateway: IPv4Address, address: IPv4Address, relay: int) -> Callable[[], None]:
    def send() -> None:
        packet = syn(gateway, secrets.choice(_SOURCE_PORTS), address, relay)
        try:
            # The checksums are whole and nothing is to be cut: the virtio header is zero.
            os.writev(queue.fileno(), [bytes(VNET_HEADER_LENGTH), packet])
        except BlockingIOError:
            return
        except OSError as error:
            raise LaptopError(f"the TUN device takes no packet: {error.strerror}") from error

    return send
