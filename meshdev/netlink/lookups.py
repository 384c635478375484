"""Where the kernel would send a packet: route lookups, policy rules, and notifications of changes. Pure.

Sources: Linux ``include/uapi/linux/rtnetlink.h``, ``fib_rules.h``; rtnetlink(7), ip-rule(8).
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

from meshdev.netlink.links import KernelAddress, KernelLink, parse_address, parse_link
from meshdev.netlink.messages import (
    AF_INET,
    NLM_F_ACK,
    NLM_F_DUMP,
    RTM_DELADDR,
    RTM_DELLINK,
    RTM_DELROUTE,
    RTM_GETROUTE,
    RTMSG,
    NetlinkRequest,
    attribute,
    attributes,
    u32,
)

RTM_NEWLINK: Final = 16
_RTM_GETRULE: Final = 34

#: enum rtnetlink_groups, as bits for bind(2): RTNLGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE.
ROUTE_GROUPS: Final = 1 << 0 | 1 << 4 | 1 << 6

_RTM_F_LOOKUP_TABLE: Final = 0x1000  # the answer names the table that decided, not always "main"
_RTA_DST: Final = 1
_RTA_OIF: Final = 4
_RTA_TABLE: Final = 15
_FRA_PRIORITY: Final = 6
_FRA_TABLE: Final = 15
_RULE: Final = struct.Struct("<BBBBBBBBI")  # struct fib_rule_hdr: family, lengths, tos, table, …, action, flags


@dataclass(frozen=True, slots=True)
class Lookup:
    """Where a packet would go: the index of the device (0: none), and the table whose route decided."""

    index: int
    table: int


@dataclass(frozen=True, slots=True)
class KernelRule:
    """A policy rule that consults *table*; lower priorities come first."""

    priority: int
    table: int


def route_get(address: IPv4Address) -> NetlinkRequest:
    """Where a program's packet to *address* would go now: rules and all tables count, as for ``ip route get``.

    An error ENETUNREACH and its like where it would go nowhere. Its answer ends with an acknowledgement.
    """
    body = RTMSG.pack(AF_INET, 32, 0, 0, 0, 0, 0, 0, _RTM_F_LOOKUP_TABLE)
    return NetlinkRequest(RTM_GETROUTE, NLM_F_ACK, body + attribute(_RTA_DST, address.packed))


def parse_lookup(body: memoryview) -> Lookup | None:
    """The answer to :func:`route_get`."""
    if len(body) < RTMSG.size:
        return None
    _, _, _, _, table, _, _, _, _ = RTMSG.unpack_from(body)
    found = attributes(body[RTMSG.size :])
    return Lookup(u32(found.get(_RTA_OIF)), u32(found.get(_RTA_TABLE), table))


def rules_dump() -> NetlinkRequest:
    """All IPv4 policy rules."""
    return NetlinkRequest(_RTM_GETRULE, NLM_F_DUMP, _RULE.pack(AF_INET, 0, 0, 0, 0, 0, 0, 0, 0))


def parse_rule(body: memoryview) -> KernelRule | None:
    """A rule of a dump; None for any other message."""
    if len(body) < _RULE.size:
        return None
    _, _, _, _, table, _, _, _, _ = _RULE.unpack_from(body)
    found = attributes(body[_RULE.size :])
    # The kernel omits the priority of rule 0.
    return KernelRule(u32(found.get(_FRA_PRIORITY)), u32(found.get(_FRA_TABLE), table))


def concerns(kind: int, body: memoryview, index: int) -> bool:
    """Whether a notification may mean a loss for the device: its link changed, or an address or route was removed."""
    found: KernelLink | KernelAddress | Lookup | None
    if kind in {RTM_NEWLINK, RTM_DELLINK}:
        found = parse_link(body)
    elif kind == RTM_DELADDR:
        found = parse_address(body)
    elif kind == RTM_DELROUTE:
        found = parse_lookup(body)
    else:
        return False
    return found is not None and found.index == index
