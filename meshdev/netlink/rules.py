"""Policy rules (``ip rule``): which table is asked when. Pure.

Sources: Linux ``include/uapi/linux/fib_rules.h``; ip-rule(8).
"""

import struct
from dataclasses import dataclass
from typing import Final

from meshdev.netlink.messages import NLM_F_DUMP, NetlinkRequest, attributes

_RTM_GETRULE: Final = 34
_AF_INET: Final = 2
_FRA_PRIORITY: Final = 6
_FRA_TABLE: Final = 15
_HEADER: Final = struct.Struct("<BBBBBBBBI")  # struct fib_rule_hdr: family, lengths, tos, table, …, action, flags


@dataclass(frozen=True, slots=True)
class KernelRule:
    """A rule that asks a *table*; lower priorities are asked first."""

    priority: int
    table: int


def rules_dump() -> NetlinkRequest:
    """All IPv4 policy rules."""
    return NetlinkRequest(_RTM_GETRULE, NLM_F_DUMP, _HEADER.pack(_AF_INET, 0, 0, 0, 0, 0, 0, 0, 0))


def parse_rule(body: memoryview) -> KernelRule | None:
    """A rule of a dump; None for what is none."""
    if len(body) < _HEADER.size:
        return None
    _, _, _, _, table, _, _, _, _ = _HEADER.unpack_from(body)
    found = attributes(body[_HEADER.size :])
    # The kernel leaves the priority of the rule 0 out.
    return KernelRule(_u32(found.get(_FRA_PRIORITY), 0), _u32(found.get(_FRA_TABLE), table))


def _u32(value: memoryview | None, otherwise: int) -> int:
    return otherwise if value is None else int.from_bytes(value, "little")
