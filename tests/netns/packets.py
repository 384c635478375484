"""Packets as a tunnel writes them to a TUN device."""

import socket
import struct

from meshdev.tun.offload import PACKET_LIMIT, VNET_HEADER_LENGTH
from tests.netns.helpers import ADDRESS


def datagram(source: str, source_port: int, port: int, target: str = str(ADDRESS)) -> bytes:
    """An IPv4 UDP packet "hello" with its virtio-net header."""
    payload = b"hello"
    udp = struct.pack(">HHHH", source_port, port, 8 + len(payload), 0) + payload
    head = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, socket.inet_aton(source), socket.inet_aton(target)
    )
    total = sum(struct.unpack(">10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + head[12:]
    packet = bytes(VNET_HEADER_LENGTH) + head + udp
    assert len(packet) <= PACKET_LIMIT
    return packet
