"""Netfilter: make connection tracking forget flows, so that new rules apply at once, and the ruleset's generation.

Source of the latter: Linux ``include/uapi/linux/netfilter/nf_tables.h`` (NFT_MSG_GETGEN, NFTA_GEN_ID), since 3.18.
"""

import errno
import socket
import struct
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from ipaddress import IPv4Address
from itertools import islice
from typing import Final

from meshdev.netlink import messages
from meshdev.netlink.sock import NETLINK_NETFILTER, Netlink

_WITH_PORTS: Final = frozenset({socket.IPPROTO_TCP, socket.IPPROTO_UDP})
_PASSES: Final = 4
_BATCH: Final = 256
#: Up to this many addresses are searched for faster than a connection is parsed.
_FEW: Final = 4

_NFT_GETGEN: Final = 10 << 8 | 16  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETGEN
_NFTA_GEN_ID: Final = 1


def ruleset_generation() -> int:
    """The generation of this network namespace's nftables rules, which every change increments.

    While it stays the same nothing needs to be listed again. Raises OSError where the kernel does not report it.
    """
    request = messages.NetlinkRequest(_NFT_GETGEN, messages.NLM_F_ACK, struct.pack(">BBH", 0, 0, 0))
    with Netlink(NETLINK_NETFILTER) as netlink:
        for body in netlink.dump(request):
            found = messages.attributes(body[4:]).get(_NFTA_GEN_ID)
            if found is not None:
                return int.from_bytes(found, "big")
    raise OSError(errno.ENODATA, "the kernel reports no generation of its rules")


def forget_flows(chosen: Callable[[messages.Flow], bool], holding: AbstractSet[bytes] = frozenset()) -> None:
    """Forget the tracked flows of TCP and UDP that *chosen* picks. Best effort: where tracking cannot be read, flows
    time out by themselves (30 s for UDP: net.netfilter.nf_conntrack_udp_timeout).

    *holding*: addresses, one of which each of those flows has. Searching for the bytes takes a third of parsing all.
    """
    try:
        with Netlink(NETLINK_NETFILTER) as netlink:
            for family in (socket.AF_INET, socket.AF_INET6):
                bodies = _holding(holding, netlink.walk(messages.flows_dump(family)))
                flows = filter(None, map(messages.parse_flow, bodies))
                picked = (flow for flow in flows if flow.protocol in _WITH_PORTS and chosen(flow))
                netlink.execute([messages.flow_delete(flow) for flow in picked])
    except OSError:
        return


def forget_addresses(addresses: AbstractSet[IPv4Address]) -> None:
    """Forget every tracked connection, of any protocol, that one of *addresses* began or answers.

    Nothing may send from them meanwhile. Raises OSError where tracking cannot be read or changed.
    """
    packed = {address.packed for address in addresses}
    with Netlink(NETLINK_NETFILTER) as reader, Netlink(NETLINK_NETFILTER) as writer:
        for _ in range(_PASSES):  # a dump of a table that changes may miss some
            found = False
            bodies = _holding(packed, reader.walk(messages.flows_dump(socket.AF_INET)))
            flows = filter(None, map(messages.parse_flow, bodies))
            left = (flow for flow in flows if not packed.isdisjoint((flow.source[0], flow.went_to[0])))
            # Deleted as they come: all of them together would be more than the container's memory.
            while batch := list(islice(left, _BATCH)):
                found = True
                for error in writer.execute([messages.flow_delete(flow) for flow in batch]):
                    if error is not None and error.errno != errno.ENOENT:
                        raise error
            if not found:
                return
    raise OSError(errno.EBUSY, "new ones keep appearing")


def _holding(addresses: AbstractSet[bytes], bodies: Iterator[memoryview]) -> Iterator[memoryview]:
    """Drop most bodies that have none of *addresses*; keep all where there are many addresses, or none."""
    if not 0 < len(addresses) <= _FEW:
        return bodies
    return (body for body in bodies if any(map(bytes(body).__contains__, addresses)))
