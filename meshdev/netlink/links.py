"""Network devices and their addresses as the kernel lists them. Pure.

Sources: Linux ``include/uapi/linux/if_link.h``, ``if_addr.h``.
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv4Interface
from typing import Final

from meshdev.netlink.messages import NLM_F_DUMP, NetlinkRequest, attributes

_RTM_GETLINK: Final = 18
_RTM_GETADDR: Final = 22
_AF_INET: Final = 2
_IFINFO: Final = struct.Struct("<BxHiII")  # struct ifinfomsg: family, type, index, flags, change
_IFADDR: Final = struct.Struct("<BBBBI")  # struct ifaddrmsg: family, prefix, flags, scope, index

_IFF_POINTOPOINT: Final = 0x10
_IFF_NOARP: Final = 0x80
_IFLA_IFNAME: Final = 3
_IFLA_MASTER: Final = 10
_IFLA_LINKINFO: Final = 18
_IFLA_INFO_KIND: Final = 1
_IFLA_LINK_NETNSID: Final = 37
_IFA_LOCAL: Final = 2


@dataclass(frozen=True, slots=True)
class KernelLink:
    """A network device. ``kind`` is empty for a physical one; ``master`` is the bridge (bond, …) it is a port of, or 0.

    ``peer_elsewhere``: its other end is in another network namespace.
    """

    index: int
    name: str
    kind: str
    master: int
    peer_elsewhere: bool


@dataclass(frozen=True, slots=True)
class KernelAddress:
    """An IPv4 address of a device, with its network."""

    index: int
    interface: IPv4Interface


def links_dump() -> NetlinkRequest:
    """All devices of this network namespace."""
    return NetlinkRequest(_RTM_GETLINK, NLM_F_DUMP, _IFINFO.pack(0, 0, 0, 0, 0))


def addresses_dump() -> NetlinkRequest:
    """All IPv4 addresses of this network namespace."""
    return NetlinkRequest(_RTM_GETADDR, NLM_F_DUMP, _IFADDR.pack(_AF_INET, 0, 0, 0, 0))


def parse_link(body: memoryview) -> KernelLink | None:
    """A device of a dump; None for a message that is none."""
    if len(body) < _IFINFO.size:
        return None
    found = attributes(body[_IFINFO.size :])
    about = attributes(found.get(_IFLA_LINKINFO, memoryview(b"")))
    return KernelLink(
        index=_IFINFO.unpack_from(body)[2],
        name=_text(found.get(_IFLA_IFNAME)),
        kind=_text(about.get(_IFLA_INFO_KIND)),
        master=int.from_bytes(found.get(_IFLA_MASTER, b""), "little"),
        peer_elsewhere=_IFLA_LINK_NETNSID in found,
    )


def parse_tunnel(body: memoryview) -> int | None:
    """The number of a device of a dump that has no neighbours to ask by ARP: a TUN device, WireGuard, PPP."""
    if len(body) < _IFINFO.size:
        return None
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    return index if flags & (_IFF_POINTOPOINT | _IFF_NOARP) else None


def parse_address(body: memoryview) -> KernelAddress | None:
    """An address of a dump; None for one that is not IPv4."""
    if len(body) < _IFADDR.size:
        return None
    family, prefix, _, _, index = _IFADDR.unpack_from(body)
    local = attributes(body[_IFADDR.size :]).get(_IFA_LOCAL)
    if family != _AF_INET or prefix > 32 or local is None or len(local) != 4:
        return None
    return KernelAddress(index, IPv4Interface((bytes(local), prefix)))


def _text(value: memoryview | None) -> str:
    return bytes(value).split(b"\0")[0].decode(errors="replace") if value is not None else ""
