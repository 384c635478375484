"""Offloads of a TUN device and the header that travels in front of each packet because of them.

With them the kernel hands over one TCP super-packet of up to 64 KiB whose checksum and segmentation are still open,
and takes one back: Python neither cuts nor sums (design: D2).

Sources: Linux ``include/uapi/linux/if_tun.h`` (TUN_F_*), ``include/uapi/linux/virtio_net.h`` (struct virtio_net_hdr),
``drivers/net/tun.c`` (``set_offload``: which combinations the kernel takes).
"""

import struct
from dataclasses import dataclass
from typing import Final

TUN_F_CSUM: Final = 0x01
TUN_F_TSO4: Final = 0x02
TUN_F_TSO6: Final = 0x04
TUN_F_USO4: Final = 0x20  # Linux 6.2
TUN_F_USO6: Final = 0x40  # the kernel takes USO4 and USO6 only together

#: Best first. A kernel that does not know a flag answers EINVAL to the whole mask.
PROBES: Final = (
    TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_USO4 | TUN_F_USO6,  # 103
    TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6,  # 7
    TUN_F_CSUM,
    0,
)

VIRTIO_NET_HDR_F_NEEDS_CSUM: Final = 0x01  # csum_start and csum_offset count; the packet holds the pseudo-header's sum
VIRTIO_NET_HDR_F_DATA_VALID: Final = 0x02

VIRTIO_NET_HDR_GSO_NONE: Final = 0
VIRTIO_NET_HDR_GSO_TCPV4: Final = 1
VIRTIO_NET_HDR_GSO_UDP: Final = 3
VIRTIO_NET_HDR_GSO_TCPV6: Final = 4
VIRTIO_NET_HDR_GSO_UDP_L4: Final = 5
VIRTIO_NET_HDR_GSO_ECN: Final = 0x80

_VNET_HEADER: Final = struct.Struct("<BBHHHH")
VNET_HEADER_LENGTH: Final = _VNET_HEADER.size

#: One read or write: the header and the longest packet that IPv4's 16-bit total length allows.
PACKET_LIMIT: Final = VNET_HEADER_LENGTH + 0xFFFF


@dataclass(frozen=True, slots=True)
class VnetHeader:
    """``struct virtio_net_hdr`` as the kernel of a little-endian machine writes it (every wheel of pytun is one)."""

    flags: int = 0
    gso_type: int = VIRTIO_NET_HDR_GSO_NONE
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0

    def pack(self) -> bytes:
        """Its ten bytes."""
        return _VNET_HEADER.pack(
            self.flags, self.gso_type, self.hdr_len, self.gso_size, self.csum_start, self.csum_offset
        )

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview) -> "VnetHeader":
        """Of the first ten bytes; raises struct.error on fewer."""
        return cls(*_VNET_HEADER.unpack_from(data))
