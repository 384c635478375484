"""The last steps of the way back: whether what a relay brings gets past this machine's own packet filters."""

import asyncio
import contextlib
import ctypes
import os
import secrets
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from typing import Final

from meshdev.errors import LaptopError
from meshdev.session.local import Target
from meshdev.tun.device import TunQueue
from meshdev.tun.offload import VNET_HEADER_LENGTH

#: How long a packet may take from the device to a socket of the same machine, in seconds.
COME_IN_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 0.01
#: Looks before the next SYN. Each has a source port of its own: connection tracking keeps what it knows of the others.
_PATIENCE: Final = 20

_SOURCE_PORTS: Final = range(40000, 60000)
_SYN: Final = 0x02
_TCP: Final = 6

# Linux include/uapi/asm-generic/socket.h, sock_diag.h
_SO_ATTACH_FILTER: Final = 26
_SO_MEMINFO: Final = 55
_MEMINFO: Final = struct.Struct("=9I")
_DROPS: Final = 8

# Linux include/uapi/linux/filter.h: struct sock_filter is code, jump if true, if false, operand.
_INSTRUCTION: Final = struct.Struct("=HBBI")
_LOAD_WORD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_SEQUENCE_OFFSET: Final = 4  # in a TCP header (RFC 9293, 3.1), where a socket's filter begins to count


class Acceptor:
    """A listener on 127.0.0.1 that closes whatever connects. Made by :func:`acceptor`.

    Its SYNs of :meth:`lets_in` bear a secret sequence number, by which the socket itself drops and counts them: they
    came through every packet filter, and nothing is answered to the cluster.
    """

    def __init__(self) -> None:
        """Raises OSError."""
        self._sequence = secrets.randbits(32)
        self._one_at_a_time = asyncio.Lock()
        self._sock = socket.create_server(("127.0.0.1", 0))
        self._sock.setblocking(False)
        self.target = Target(IPv4Address("127.0.0.1"), self._sock.getsockname()[1])
        """Where the helper should lead a relay that is tried."""
        self.came = 0
        """Connections that came so far."""
        try:
            _drop(self._sock, self._sequence)
        except OSError:
            self._sock.close()
            raise
        asyncio.get_running_loop().add_reader(self._sock, self._accept)

    def close(self) -> None:
        """Listen no longer."""
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()

    async def lets_in(self, queue: TunQueue, gateway: IPv4Address, address: IPv4Address, relay: int) -> bool:
        """Whether this machine lets in what comes from *gateway* at the device, for that relay of the session's.

        The helper must lead the TCP relay to :attr:`target`, and *queue* take part in the device. Raises LaptopError
        when the device takes no packet.
        """
        async with self._one_at_a_time:
            before, looks = self._dropped(), 0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(COME_IN_SECONDS):
                    while self._dropped() == before:
                        if looks % _PATIENCE == 0:
                            _write(queue, syn(gateway, secrets.choice(_SOURCE_PORTS), address, relay, self._sequence))
                        looks += 1
                        await asyncio.sleep(_LOOK_SECONDS)
            return self._dropped() != before

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
async def acceptor() -> AsyncIterator[Acceptor]:
    """An acceptor that listens inside the block. Raises LaptopError."""
    try:
        made = Acceptor()
    except OSError as error:
        raise LaptopError(f"no socket to try the way back with: {error.strerror}") from error
    try:
        yield made
    finally:
        made.close()


def syn(source: IPv4Address, source_port: int, to: IPv4Address, port: int, sequence: int) -> bytes:
    """An IPv4 packet that opens a TCP connection (RFC 791, RFC 9293)."""
    tcp = struct.pack(">HHIIBBHHH", source_port, port, sequence, 0, 5 << 4, _SYN, 0xFFFF, 0, 0)
    pseudo = source.packed + to.packed + struct.pack(">HH", _TCP, len(tcp))
    tcp = tcp[:16] + _checksum(pseudo + tcp) + tcp[18:]
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, _TCP, 0) + source.packed + to.packed
    return ip[:10] + _checksum(ip) + ip[12:] + tcp


def _checksum(data: bytes) -> bytes:
    """RFC 1071, for an even number of bytes."""
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (~total & 0xFFFF).to_bytes(2, "big")


def _write(queue: TunQueue, packet: bytes) -> None:
    """Its checksums are whole and nothing is to be cut: the virtio header is zero."""
    try:
        os.writev(queue.fileno(), [bytes(VNET_HEADER_LENGTH), packet])
    except BlockingIOError:
        return
    except OSError as error:
        raise LaptopError(f"the TUN device takes no packet: {error.strerror}") from error


def _drop(sock: socket.socket, sequence: int) -> None:
    """Have *sock* drop TCP segments with that number; all others are taken whole."""
    program = b"".join(
        _INSTRUCTION.pack(*each)
        for each in (
            (_LOAD_WORD, 0, 0, _SEQUENCE_OFFSET),
            (_JUMP_EQUAL, 0, 1, sequence),
            (_RETURN, 0, 0, 0),
            (_RETURN, 0, 0, 0xFFFFFFFF),
        )
    )
    code = ctypes.create_string_buffer(program, len(program))
    length = len(program) // _INSTRUCTION.size
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", length, ctypes.addressof(code)))
