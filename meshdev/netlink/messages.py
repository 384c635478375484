"""Netlink messages: values to bytes and back. Pure.

Sources: Linux ``include/uapi/linux/netlink.h``, ``rtnetlink.h``, ``if_link.h``, ``if_addr.h``,
``netfilter/nfnetlink_conntrack.h``. Integers are little-endian like every machine that pytun has wheels for, or in
network order where the kernel says so.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Final, NamedTuple

NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLM_F_REQUEST: Final = 0x001
NLM_F_ACK: Final = 0x004
NLM_F_DUMP_INTR: Final = 0x010
NLM_F_EXCL: Final = 0x200
NLM_F_DUMP: Final = 0x300
NLM_F_CREATE: Final = 0x400

RTM_DELLINK: Final = 17
RTM_SETLINK: Final = 19
RTM_NEWADDR: Final = 20
RTM_DELADDR: Final = 21
RTM_NEWROUTE: Final = 24
RTM_DELROUTE: Final = 25
RTM_GETROUTE: Final = 26

#: rtnetlink.h leaves the numbers above RTPROT_STATIC (4) to the administrator; this one marks routes as ours.
ROUTE_PROTOCOL: Final = 253

RT_TABLE_MAIN: Final = 254
RT_TABLE_LOCAL: Final = 255
RTN_UNICAST: Final = 1
RTN_LOCAL: Final = 2
_RT_SCOPE_LINK: Final = 253

AF_INET: Final = 2
_AF_INET6: Final = 10
IFF_UP: Final = 1
_NLA_F_NESTED: Final = 0x8000
_NLA_TYPE_MASK: Final = 0x3FFF

_HEADER: Final = struct.Struct("<IHHII")  # struct nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE: Final = struct.Struct("<HH")  # struct nlattr: length, type
IFINFO: Final = struct.Struct("<BxHiII")  # struct ifinfomsg: family, type, index, flags, change
IFADDR: Final = struct.Struct("<BBBBI")  # struct ifaddrmsg: family, prefix, flags, scope, index
RTMSG: Final = struct.Struct("<BBBBBBBBI")  # family, dst_len, src_len, tos, table, protocol, scope, type, flags


@dataclass(frozen=True, slots=True)
class NetlinkRequest:
    """One request without its sequence number."""

    kind: int
    flags: int
    body: bytes

    def pack(self, sequence: int) -> bytes:
        """Its bytes, padded to four."""
        header = _HEADER.pack(_HEADER.size + len(self.body), self.kind, self.flags | NLM_F_REQUEST, sequence, 0)
        return header + self.body + bytes(-len(self.body) % 4)


@dataclass(frozen=True, slots=True)
class Reply:
    """One message from the kernel."""

    kind: int
    flags: int
    sequence: int
    body: memoryview

    @property
    def error(self) -> int:
        """The errno of an NLMSG_ERROR or NLMSG_DONE; 0 is an acknowledgement."""
        return -int.from_bytes(self.body[:4], "little", signed=True) if len(self.body) >= 4 else 0


@dataclass(frozen=True, slots=True)
class KernelRoute:
    """An IPv4 route as the kernel lists it. ``index`` is its device's; 0 where it has none or several."""

    network: IPv4Network
    index: int
    gateway: IPv4Address | None
    table: int
    kind: int
    protocol: int


def replies(data: bytes) -> Iterator[Reply]:
    """The messages in one datagram from the kernel; stops at a truncated one."""
    view, offset = memoryview(data), 0
    while offset + _HEADER.size <= len(view):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(view, offset)
        if not _HEADER.size <= length <= len(view) - offset:
            return
        yield Reply(kind, flags, sequence, view[offset + _HEADER.size : offset + length])
        offset += (length + 3) & ~3


def attributes(data: memoryview) -> dict[int, memoryview]:
    """The attributes in *data* by type; stops at a truncated one."""
    found, offset = {}, 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if not _ATTRIBUTE.size <= length <= len(data) - offset:
            break
        found[kind & _NLA_TYPE_MASK] = data[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


def attribute(kind: int, value: bytes | memoryview) -> bytes:
    """One attribute, padded to four."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + bytes(value) + bytes(-len(value) % 4)


def u32(value: memoryview | None, default: int = 0) -> int:
    """An attribute that holds a number."""
    return default if value is None else int.from_bytes(value, "little")


def nested(kind: int, *inner: bytes) -> bytes:
    """An attribute of attributes."""
    return attribute(kind | _NLA_F_NESTED, b"".join(inner))


# Links and addresses


def link_up(index: int, mtu: int, queue_length: int) -> NetlinkRequest:
    """Bring the device up with that MTU and transmit queue."""
    body = IFINFO.pack(0, 0, index, IFF_UP, IFF_UP)
    body += attribute(4, struct.pack("<I", mtu))  # IFLA_MTU
    body += attribute(13, struct.pack("<I", queue_length))  # IFLA_TXQLEN
    return NetlinkRequest(RTM_SETLINK, NLM_F_ACK, body)


def link_without_ipv6_address(index: int) -> NetlinkRequest:
    """No link-local IPv6 address when the device comes up: IN6_ADDR_GEN_MODE_NONE."""
    mode = attribute(8, b"\x01")  # IFLA_INET6_ADDR_GEN_MODE
    spec = nested(26, nested(_AF_INET6, mode))  # IFLA_AF_SPEC
    return NetlinkRequest(RTM_SETLINK, NLM_F_ACK, IFINFO.pack(0, 0, index, 0, 0) + spec)


def link_forwarding(index: int) -> NetlinkRequest:
    """Let IPv4 packets pass from and to the device, where /proc/sys is read-only as in a pod.

    IFLA_AF_SPEC, AF_INET, IFLA_INET_CONF, IPV4_DEVCONF_FORWARDING (linux/if_link.h, linux/ip.h).
    """
    return _link_configured(index, 1)


def link_route_localnet(index: int) -> NetlinkRequest:
    """Let DNAT forward packets from the device to 127.0.0.0/8: IPV4_DEVCONF_ROUTE_LOCALNET.

    Whoever sets it has to drop packets that were sent there directly.
    """
    return _link_configured(index, 26)


def _link_configured(index: int, setting: int) -> NetlinkRequest:
    spec = nested(26, nested(AF_INET, nested(1, attribute(setting, struct.pack("<i", 1)))))
    return NetlinkRequest(RTM_SETLINK, NLM_F_ACK, IFINFO.pack(0, 0, index, 0, 0) + spec)


def link_delete(index: int) -> NetlinkRequest:
    """Remove the device."""
    return NetlinkRequest(RTM_DELLINK, NLM_F_ACK, IFINFO.pack(0, 0, index, 0, 0))


def address_add(index: int, address: IPv4Address) -> NetlinkRequest:
    """Add address/32."""
    return NetlinkRequest(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, _address(index, address))


def address_delete(index: int, address: IPv4Address) -> NetlinkRequest:
    """Remove address/32; the kernel removes the routes that it was the source of."""
    return NetlinkRequest(RTM_DELADDR, NLM_F_ACK, _address(index, address))


def _address(index: int, address: IPv4Address) -> bytes:
    body = IFADDR.pack(AF_INET, 32, 0, 0, index)
    return body + attribute(2, address.packed) + attribute(1, address.packed)  # IFA_LOCAL, IFA_ADDRESS


# Routes


def route_add(network: IPv4Network, index: int, source: IPv4Address) -> NetlinkRequest:
    """Add a link-scope route of ours; EEXIST where there is one to that network with the same priority.

    The device's index is the priority: two connections may route the same range, the older one's device is used, and
    when it is removed the other's. A route without a priority wins over both.
    """
    body = _route(network, index) + attribute(7, source.packed)  # RTA_PREFSRC
    return NetlinkRequest(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, body)


def route_delete(network: IPv4Network, index: int) -> NetlinkRequest:
    """Remove a route of ours: device and protocol must match, so nobody else's can be meant."""
    return NetlinkRequest(RTM_DELROUTE, NLM_F_ACK, _route(network, index))


def _route(network: IPv4Network, index: int) -> bytes:
    body = RTMSG.pack(AF_INET, network.prefixlen, 0, 0, RT_TABLE_MAIN, ROUTE_PROTOCOL, _RT_SCOPE_LINK, RTN_UNICAST, 0)
    destination = attribute(1, network.network_address.packed)  # RTA_DST
    device = struct.pack("<I", index)
    return body + destination + attribute(4, device) + attribute(6, device)  # RTA_OIF, RTA_PRIORITY


def routes_dump() -> NetlinkRequest:
    """All IPv4 routes of all tables, the local ones (the machine's own addresses) among them."""
    return NetlinkRequest(RTM_GETROUTE, NLM_F_DUMP, RTMSG.pack(AF_INET, 0, 0, 0, 0, 0, 0, 0, 0))


def parse_route(body: memoryview) -> KernelRoute | None:
    """A route of a dump; None for one that is not a plain IPv4 route (a cached one, for example)."""
    if len(body) < RTMSG.size:
        return None
    family, prefix, _, _, table, protocol, _, kind, flags = RTMSG.unpack_from(body)
    if family != AF_INET or prefix > 32 or flags & 0x200:  # RTM_F_CLONED
        return None
    found = attributes(body[RTMSG.size :])
    gateway = found.get(5)  # RTA_GATEWAY
    return KernelRoute(
        network=IPv4Network((bytes(found[1]) if 1 in found else bytes(4), prefix), strict=False),
        index=u32(found.get(4)),
        gateway=IPv4Address(bytes(gateway)) if gateway is not None and len(gateway) == 4 else None,
        table=u32(found.get(15), table),  # RTA_TABLE
        kind=kind,
        protocol=protocol,
    )


# Connection tracking

_CT_GET: Final = 1 << 8 | 1  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
_CT_DELETE: Final = 1 << 8 | 2
_CTA_TUPLE_ORIG: Final = 1
_CTA_TUPLE_REPLY: Final = 2
_CTA_ID: Final = 12


@dataclass(frozen=True, slots=True)
class Flow:
    """A tracked connection: who began it, where it was sent, and where it went (the source of the replies).

    Ports are 0 in protocols that have none.
    """

    family: int
    protocol: int
    source: tuple[bytes, int]
    sent_to: tuple[bytes, int]
    went_to: tuple[bytes, int]
    key: bytes
    """The attributes by which the kernel finds it again."""
    zone: int = 0
    """The one of its original direction (nf_conntrack_zones.h); 0 where that is the one of its replies, too."""


def flows_dump(family: int) -> NetlinkRequest:
    """All tracked connections of an address family."""
    return NetlinkRequest(_CT_GET, NLM_F_DUMP, struct.pack(">BBH", family, 0, 0))


def flow_delete(flow: Flow) -> NetlinkRequest:
    """Delete one."""
    return NetlinkRequest(_CT_DELETE, NLM_F_ACK, struct.pack(">BBH", flow.family, 0, 0) + flow.key)


def parse_flow(body: memoryview) -> Flow | None:
    """A connection of a dump; None where its addresses cannot be read."""
    found = attributes(body[4:])
    sent, reply = _tuple(found.get(_CTA_TUPLE_ORIG)), _tuple(found.get(_CTA_TUPLE_REPLY))
    if sent is None or reply is None:
        return None
    key = attribute(_CTA_TUPLE_ORIG | _NLA_F_NESTED, found[_CTA_TUPLE_ORIG])
    if _CTA_ID in found:
        key += attribute(_CTA_ID, found[_CTA_ID])
    return Flow(body[0], sent.protocol, sent.source, sent.destination, reply.source, key, sent.zone)


class _Tuple(NamedTuple):
    protocol: int
    source: tuple[bytes, int]
    destination: tuple[bytes, int]
    zone: int


def _tuple(data: memoryview | None) -> _Tuple | None:
    """struct nf_conntrack_tuple: CTA_TUPLE_IP {v4 1 2 | v6 3 4}, CTA_TUPLE_PROTO {number 1, ports 2 3}, …_ZONE."""
    outer = attributes(data) if data is not None else {}
    ip, proto = (attributes(outer[kind]) if kind in outer else {} for kind in (1, 2))
    source, destination = ip.get(1, ip.get(3)), ip.get(2, ip.get(4))
    if source is None or destination is None or not proto.get(1):
        return None
    ports = [int.from_bytes(proto.get(number, b""), "big") for number in (2, 3)]
    zone = int.from_bytes(outer.get(3, b""), "big")
    return _Tuple(proto[1][0], (bytes(source), ports[0]), (bytes(destination), ports[1]), zone)
