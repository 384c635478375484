"""The generation of a network namespace's nftables rules: another number with each change.

While it stays the same nothing has to be listed anew.

Source: Linux ``include/uapi/linux/netfilter/nf_tables.h`` (NFT_MSG_GETGEN, NFTA_GEN_ID), since 3.18.
"""

import errno
import struct
from typing import Final

from meshdev.netlink.messages import NLM_F_ACK, NetlinkRequest, attributes
from meshdev.netlink.sock import NETLINK_NETFILTER, Netlink

_GET: Final = 10 << 8 | 16  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN
_ID: Final = 1


def ruleset_generation() -> int:
    """That of the caller's network namespace. Raises OSError where the kernel does not tell."""
    with Netlink(NETLINK_NETFILTER) as netlink:
        for body in netlink.dump(NetlinkRequest(_GET, NLM_F_ACK, struct.pack(">BBH", 0, 0, 0))):
            found = attributes(body[4:]).get(_ID)
            if found is not None:
                return int.from_bytes(found, "big")
    raise OSError(errno.ENODATA, "the kernel tells no generation of its rules")
