"""Network devices and their addresses as the kernel lists them. Pure.

Sources: Linux ``include/uapi/linux/if_link.h``, ``if_addr.h``.
"""

from dataclasses import dataclass
from ipaddress import IPv4Interface
from typing import Final

from meshdev.netlink.messages import (
    AF_INET,
    IFADDR,
    IFF_UP,
    IFINFO,
    NLM_F_ACK,
    NLM_F_DUMP,
    NetlinkRequest,
    attributes,
    u32,
)

_RTM_GETLINK: Final = 18
_RTM_GETADDR: Final = 22

_IFF_POINTOPOINT: Final = 0x10
_IFF_NOARP: Final = 0x80
_IFLA_IFNAME: Final = 3
_IFLA_MTU: Final = 4
_IFLA_MASTER: Final = 10
_IFLA_LINKINFO: Final = 18
_IFLA_INFO_KIND: Final = 1
_IFLA_LINK_NETNSID: Final = 37
_IFA_LOCAL: Final = 2


@dataclass(frozen=True, slots=True)
class KernelLink:
    """A network device; *mtu* in bytes.

    ``kind`` is empty for a physical one; ``master`` is the bridge (bond, …) it is a port of, or 0. ``peer_elsewhere``:
    its other end is in another network namespace. ``tunnel``: it has no neighbours to ask for by ARP (a TUN device,
    WireGuard, PPP).
    """

    index: int
    name: str = ""
    kind: str = ""
    master: int = 0
    peer_elsewhere: bool = False
    tunnel: bool = False
    up: bool = False
    mtu: int = 0


@dataclass(frozen=True, slots=True)
class KernelAddress:
    """An IPv4 address of the device with that index, and its network."""

    index: int
    interface: IPv4Interface


def links_dump() -> NetlinkRequest:
    """All devices of this network namespace."""
    return NetlinkRequest(_RTM_GETLINK, NLM_F_DUMP, IFINFO.pack(0, 0, 0, 0, 0))


def link_get(index: int) -> NetlinkRequest:
    """One device; an error ENODEV where none has that index. Its answer ends with an acknowledgement."""
    return NetlinkRequest(_RTM_GETLINK, NLM_F_ACK, IFINFO.pack(0, 0, index, 0, 0))


def addresses_dump() -> NetlinkRequest:
    """All IPv4 addresses of this network namespace."""
    return NetlinkRequest(_RTM_GETADDR, NLM_F_DUMP, IFADDR.pack(AF_INET, 0, 0, 0, 0))


def parse_link(body: memoryview) -> KernelLink | None:
    """A device, of a dump, an answer or a notification; None for any other message."""
    if len(body) < IFINFO.size:
        return None
    _, _, index, flags, _ = IFINFO.unpack_from(body)
    found = attributes(body[IFINFO.size :])
    about = attributes(found.get(_IFLA_LINKINFO, memoryview(b"")))
    return KernelLink(
        index=index,
        name=_text(found.get(_IFLA_IFNAME)),
        kind=_text(about.get(_IFLA_INFO_KIND)),
        master=u32(found.get(_IFLA_MASTER)),
        peer_elsewhere=_IFLA_LINK_NETNSID in found,
        tunnel=bool(flags & (_IFF_POINTOPOINT | _IFF_NOARP)),
        up=bool(flags & IFF_UP),
        mtu=u32(found.get(_IFLA_MTU)),
    )


def parse_address(body: memoryview) -> KernelAddress | None:
    """An IPv4 address, of a dump or a notification; None for any other message."""
    if len(body) < IFADDR.size:
        return None
    family, prefix, _, _, index = IFADDR.unpack_from(body)
    local = attributes(body[IFADDR.size :]).get(_IFA_LOCAL)
    if family != AF_INET or prefix > 32 or local is None or len(local) != 4:
        return None
    return KernelAddress(index, IPv4Interface((bytes(local), prefix)))


def _text(value: memoryview | None) -> str:
    return bytes(value).split(b"\0")[0].decode(errors="replace") if value is not None else ""
