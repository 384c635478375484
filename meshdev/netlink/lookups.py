"""What the kernel says of one device and of one destination, and news of changes. Pure.

Sources: Linux ``include/uapi/linux/rtnetlink.h``, ``if_link.h``, ``if_addr.h``; rtnetlink(7).
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from meshdev.netlink.messages import (
    NLM_F_ACK,
    NLM_F_DUMP,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELROUTE,
    NetlinkRequest,
    attributes,
)
from meshdev.netlink.messages import RTM_GETROUTE as _RTM_GETROUTE

RTM_NEWLINK: Final = 16
_RTM_GETLINK: Final = 18
_RTM_GETADDR: Final = 22

#: enum rtnetlink_groups, as bits for bind(2): RTNLGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE.
ROUTE_GROUPS: Final = 1 << 0 | 1 << 4 | 1 << 6

_AF_INET: Final = 2
_RTM_F_LOOKUP_TABLE: Final = 0x1000  # the answer names the table that decided, not always "main"
_IFF_UP: Final = 1
_IFINFO: Final = struct.Struct("<BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_IFADDR: Final = struct.Struct("<BBBBI")  # struct ifaddrmsg: family, prefix, flags, scope, index
_RTMSG: Final = struct.Struct("<BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags


@dataclass(frozen=True, slots=True)
class KernelLink:
    """A network device; *mtu* in bytes."""

    index: int
    up: bool
    mtu: int


@dataclass(frozen=True, slots=True)
class KernelAddress:
    """An IPv4 address and the number of its device."""

    index: int
    address: IPv4Address


@dataclass(frozen=True, slots=True)
class Lookup:
    """Where a packet would go: the number of the device (0: none), and the table whose route decided."""

    index: int
    table: int


def link_get(index: int) -> NetlinkRequest:
    """One device; an error ENODEV where there is none of that number. Its answer ends with an acknowledgement."""
    return NetlinkRequest(_RTM_GETLINK, NLM_F_ACK, _IFINFO.pack(0, 0, index, 0, 0))


def parse_link(body: memoryview) -> KernelLink | None:
    """A device, of an answer or of news."""
    if len(body) < _IFINFO.size:
        return None
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    return KernelLink(index, bool(flags & _IFF_UP), _u32(attributes(body[_IFINFO.size :]).get(4)))  # IFLA_MTU


def addresses_dump() -> NetlinkRequest:
    """All IPv4 addresses of this network namespace."""
    return NetlinkRequest(_RTM_GETADDR, NLM_F_DUMP, _IFADDR.pack(_AF_INET, 0, 0, 0, 0))


def parse_address(body: memoryview) -> KernelAddress | None:
    """An IPv4 address, of a dump or of news."""
    if len(body) < _IFADDR.size:
        return None
    family, _, _, _, index = _IFADDR.unpack_from(body)
    local = attributes(body[_IFADDR.size :]).get(2)  # IFA_LOCAL
    if family != _AF_INET or local is None or len(local) != 4:
        return None
    return KernelAddress(index, IPv4Address(bytes(local)))


def route_get(address: IPv4Address) -> NetlinkRequest:
    """Where a program's packet to *address* would go now: rules and all tables count, as for ``ip route get``.

    An error ENETUNREACH and its like where it would go nowhere. Its answer ends with an acknowledgement.
    """
    body = _RTMSG.pack(_AF_INET, 32, 0, 0, 0, 0, 0, 0, _RTM_F_LOOKUP_TABLE)
    return NetlinkRequest(_RTM_GETROUTE, NLM_F_ACK, body + struct.pack("<HH", 8, 1) + address.packed)  # RTA_DST


def parse_lookup(body: memoryview) -> Lookup | None:
    """The answer to :func:`route_get`."""
    if len(body) < _RTMSG.size:
        return None
    _, _, _, _, table, _, _, _, _ = _RTMSG.unpack_from(body)
    found = attributes(body[_RTMSG.size :])
    return Lookup(_u32(found.get(4)), _u32(found[15]) if 15 in found else table)  # RTA_OIF, RTA_TABLE


def concerns(kind: int, body: memoryview, index: int) -> bool:
    """Whether news of that *kind* may have taken something from the device: its link changed, or anything went."""
    match kind:
        case _ if kind in {RTM_NEWLINK, RTM_DELLINK}:
            link = parse_link(body)
            return link is not None and link.index == index
        case _ if kind == RTM_DELADDR:
            address = parse_address(body)
            return address is not None and address.index == index
        case _ if kind == RTM_DELROUTE:
            lookup = parse_lookup(body)
            return lookup is not None and lookup.index == index
    return False


def _u32(value: memoryview | None) -> int:
    return int.from_bytes(value, "little") if value is not None else 0
