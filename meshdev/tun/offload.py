"""Offloads of a TUN device and the header that travels in front of each packet because of them.

With them the kernel hands over one TCP super-packet of up to 64 KiB whose checksum and segmentation are still open,
and takes one back: Python neither cuts nor sums (design: D2).

Sources: Linux ``include/uapi/linux/if_tun.h`` (TUN_F_*), ``include/uapi/linux/virtio_net.h`` (struct virtio_net_hdr),
``drivers/net/tun.c`` (``set_offload``: which combinations the kernel takes).
"""

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

#: ``struct virtio_net_hdr``: flags, gso_type u8; hdr_len, gso_size, csum_start, csum_offset u16. It travels as it is.
VNET_HEADER_LENGTH: Final = 10

#: One read or write: the header and the longest packet that IPv4's 16-bit total length allows.
PACKET_LIMIT: Final = VNET_HEADER_LENGTH + 0xFFFF
