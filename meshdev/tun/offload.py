"""Offloads of a TUN device and the header in front of each packet that they require.

With them the kernel passes TCP super-packets of up to 64 KiB, not yet segmented or checksummed, and accepts them:
Python does neither (docs/design/0002).

Sources: Linux ``include/uapi/linux/if_tun.h`` (TUN_F_*), ``include/uapi/linux/virtio_net.h`` (struct virtio_net_hdr),
``include/linux/virtio_net.h`` (how the kernel reads the header), ``drivers/net/tun.c`` (``set_offload``: which
combinations the kernel accepts). Integers of the header are in the machine's order (little-endian wherever pytun has
wheels): TUNSETVNETBE is never set.
"""

import struct
from typing import Final

TUN_F_CSUM: Final = 0x01
TUN_F_TSO4: Final = 0x02
TUN_F_TSO6: Final = 0x04
TUN_F_USO4: Final = 0x20  # Linux 6.2
TUN_F_USO6: Final = 0x40  # the kernel accepts USO4 and USO6 only together

#: Best first. A kernel that does not know a flag answers EINVAL to the whole mask.
PROBES: Final = (
    TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_USO4 | TUN_F_USO6,  # 103
    TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6,  # 7
    TUN_F_CSUM,
    0,
)

#: ``struct virtio_net_hdr``: flags, gso_type u8; hdr_len, gso_size, csum_start, csum_offset u16. Sent unchanged.
VNET_HEADER_LENGTH: Final = 10

#: One read or write: the header and the longest packet that IPv4's 16-bit total length allows.
PACKET_LIMIT: Final = VNET_HEADER_LENGTH + 0xFFFF

VIRTIO_NET_HDR_F_NEEDS_CSUM: Final = 1
VIRTIO_NET_HDR_F_DATA_VALID: Final = 2
VIRTIO_NET_HDR_GSO_NONE: Final = 0
VIRTIO_NET_HDR_GSO_TCPV4: Final = 1
VIRTIO_NET_HDR_GSO_TCPV6: Final = 4
VIRTIO_NET_HDR_GSO_UDP_L4: Final = 5
VIRTIO_NET_HDR_GSO_ECN: Final = 0x80

_KNOWN_FLAGS: Final = VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID
_UNKNOWN_FLAGS: Final = 0xFF & ~_KNOWN_FLAGS
_unpack: Final = struct.Struct("<BBHHHH").unpack_from

_IPV4_HEADER: Final = 20
_IPV6_HEADER: Final = 40
#: By segmentation: the transport's protocol number, the size of its header and the checksum's offset in it.
_TRANSPORT: Final = {
    VIRTIO_NET_HDR_GSO_TCPV4: (6, 20, 16),
    VIRTIO_NET_HDR_GSO_TCPV6: (6, 20, 16),
    VIRTIO_NET_HDR_GSO_UDP_L4: (17, 8, 6),
}
#: TCP_MIN_SND_MSS (48, include/net/tcp.h) less 40 bytes of options: Linux makes no smaller segments.
_MIN_TCP_SEGMENT: Final = 8
#: UDP_MAX_SEGMENTS (include/linux/udp.h; 64 before Linux 6.8).
_MAX_UDP_SEGMENTS: Final = 128


def gso_types(offload: int) -> frozenset[int]:
    """The values of gso_type that a kernel with this mask of TUN_F_* generates."""
    found = {VIRTIO_NET_HDR_GSO_NONE}
    if offload & TUN_F_TSO4:
        found |= {VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN}
    if offload & TUN_F_TSO6:
        found |= {VIRTIO_NET_HDR_GSO_TCPV6, VIRTIO_NET_HDR_GSO_TCPV6 | VIRTIO_NET_HDR_GSO_ECN}
    if offload & (TUN_F_USO4 | TUN_F_USO6):
        found.add(VIRTIO_NET_HDR_GSO_UDP_L4)
    return frozenset(found)


def is_sound(packet: memoryview, allowed: frozenset[int]) -> bool:
    """Whether the header in front of *packet* is one that a kernel generates; *allowed* is from :func:`gso_types`.

    *packet* has at least the header and 20 bytes. Kernels have had bugs with other headers, and one frame could become
    tens of thousands of packets, so a peer's header is checked before it reaches a TUN device. Everything that any
    Linux since 5.10 generates passes.
    """
    flags, gso, header_length, gso_size, start, offset = _unpack(packet)
    if not (flags or gso or header_length):
        return True  # most small packets: nothing is offloaded
    length = len(packet) - VNET_HEADER_LENGTH
    if gso not in allowed or flags & _UNKNOWN_FLAGS or header_length > length:
        return False
    if not flags & VIRTIO_NET_HDR_F_NEEDS_CSUM:
        return bool(gso == VIRTIO_NET_HDR_GSO_NONE)  # segmentation requires checksum offload
    if start < _IPV4_HEADER or start + offset + 2 > length:
        return False
    return gso == VIRTIO_NET_HDR_GSO_NONE or _is_segmented_soundly(packet, gso, gso_size, start, offset)


def _is_segmented_soundly(packet: memoryview, gso: int, gso_size: int, start: int, offset: int) -> bool:
    """For segmentation: the transport's header is at the stated offset, and there are not too many segments."""
    gso &= ~VIRTIO_NET_HDR_GSO_ECN
    protocol, header, checksum = _TRANSPORT[gso]
    payload = len(packet) - VNET_HEADER_LENGTH - start - header
    if offset != checksum or payload < 0 or _transport(packet, gso, start) != protocol:
        return False
    if gso == VIRTIO_NET_HDR_GSO_UDP_L4:
        return payload <= gso_size * _MAX_UDP_SEGMENTS
    return gso_size >= _MIN_TCP_SEGMENT


def _transport(packet: memoryview, gso: int, start: int) -> int:
    """The protocol of the header at *start*; -1 where there cannot be one."""
    first = packet[VNET_HEADER_LENGTH]
    if first >> 4 == 4 and gso != VIRTIO_NET_HDR_GSO_TCPV6:
        return packet[VNET_HEADER_LENGTH + 9] if start == 4 * (first & 15) else -1
    if first >> 4 == 6 and gso != VIRTIO_NET_HDR_GSO_TCPV4 and start >= _IPV6_HEADER:
        # There may be extension headers in between; the kernel parses them itself.
        return packet[VNET_HEADER_LENGTH + 6] if start == _IPV6_HEADER else _TRANSPORT[gso][0]
    return -1
