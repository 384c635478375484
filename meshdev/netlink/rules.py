"""Routing by mark: ``ip rule add fwmark M lookup M`` and ``ip route add local default dev lo table M``. Pure.

Source: Linux ``include/uapi/linux/fib_rules.h``. A table's number may have 32 bits, so it is the mark itself.
"""

import struct
from dataclasses import dataclass
from typing import Final

from meshdev.netlink.messages import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    ROUTE_PROTOCOL,
    RTM_DELROUTE,
    RTM_NEWROUTE,
    RTMSG,
    RTN_LOCAL,
    NetlinkRequest,
    attribute,
    attributes,
    u32,
)

_RTM_NEWRULE: Final = 32
_RTM_DELRULE: Final = 33
_RTM_GETRULE: Final = 34
_FR_ACT_TO_TBL: Final = 1
_FRA_FWMARK: Final = 10
_FRA_TABLE: Final = 15
_FRA_FWMASK: Final = 16
_FRA_PROTOCOL: Final = 21
_WHOLE: Final = 0xFFFFFFFF
_RT_SCOPE_HOST: Final = 254


@dataclass(frozen=True, slots=True)
class MarkRule:
    """Packets of *family* with exactly this *mark* are routed by the table of the same number."""

    family: int
    mark: int


def mark_rule_add(rule: MarkRule) -> NetlinkRequest:
    """Add the rule, before all others but the first, that of the machine's own addresses; EEXIST where it exists."""
    return NetlinkRequest(_RTM_NEWRULE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, _rule(rule))


def mark_rule_delete(rule: MarkRule) -> NetlinkRequest:
    """Remove a rule of ours; ENOENT without one."""
    return NetlinkRequest(_RTM_DELRULE, NLM_F_ACK, _rule(rule))


def _rule(rule: MarkRule) -> bytes:
    # struct fib_rule_hdr has the layout of struct rtmsg; its last byte before the flags is the action
    header = RTMSG.pack(rule.family, 0, 0, 0, 0, 0, 0, _FR_ACT_TO_TBL, 0)
    numbers = ((_FRA_FWMARK, rule.mark), (_FRA_FWMASK, _WHOLE), (_FRA_TABLE, rule.mark))
    body = b"".join(attribute(kind, struct.pack("<I", number)) for kind, number in numbers)
    return header + body + attribute(_FRA_PROTOCOL, bytes([ROUTE_PROTOCOL]))


def rules_dump(family: int) -> NetlinkRequest:
    """All rules of an address family."""
    return NetlinkRequest(_RTM_GETRULE, NLM_F_DUMP, RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0))


def parse_mark_rule(body: memoryview) -> MarkRule | None:
    """A rule of a dump; None unless it is one that :func:`mark_rule_add` adds."""
    if len(body) < RTMSG.size:
        return None
    family, *_, action, _ = RTMSG.unpack_from(body)
    found = attributes(body[RTMSG.size :])
    mark = u32(found.get(_FRA_FWMARK))
    whole = u32(found.get(_FRA_FWMASK)) == _WHOLE and u32(found.get(_FRA_TABLE)) == mark
    ours = action == _FR_ACT_TO_TBL and bytes(found.get(_FRA_PROTOCOL, b"")) == bytes([ROUTE_PROTOCOL])
    return MarkRule(family, mark) if mark and whole and ours else None


def local_route_add(rule: MarkRule, loopback: int) -> NetlinkRequest:
    """In the rule's table every address is this machine's own; *loopback* is the index of ``lo``."""
    return NetlinkRequest(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE, _local_route(rule, loopback))


def local_route_delete(rule: MarkRule, loopback: int) -> NetlinkRequest:
    """Remove that route; ESRCH without one."""
    return NetlinkRequest(RTM_DELROUTE, NLM_F_ACK, _local_route(rule, loopback))


def _local_route(rule: MarkRule, loopback: int) -> bytes:
    header = RTMSG.pack(rule.family, 0, 0, 0, 0, ROUTE_PROTOCOL, _RT_SCOPE_HOST, RTN_LOCAL, 0)
    # RTA_TABLE, RTA_OIF
    return header + attribute(15, struct.pack("<I", rule.mark)) + attribute(4, struct.pack("<I", loopback))
