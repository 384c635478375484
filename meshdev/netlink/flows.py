"""Connection tracking remembers where a flow was led; this makes it forget, so that new rules count at once."""

import errno
import socket
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from ipaddress import IPv4Address
from itertools import islice
from typing import Final

from meshdev.netlink import messages
from meshdev.netlink.sock import NETLINK_NETFILTER, Netlink

_PASSES: Final = 4
_BATCH: Final = 256
#: So many addresses are looked for faster than a connection is read.
_FEW: Final = 4


def forget_flows(chosen: Callable[[messages.Flow], bool], holding: AbstractSet[bytes] = frozenset()) -> None:
    """Forget the tracked flows that *chosen* picks. At best: where tracking cannot be read, flows run out by themselves
    (30 s for UDP: net.netfilter.nf_conntrack_udp_timeout).

    *holding*: addresses, one of which each of those flows has. Looking for the bytes is a third of reading all of them.
    """
    try:
        with Netlink(NETLINK_NETFILTER) as netlink:
            for family in (socket.AF_INET, socket.AF_INET6):
                bodies = _holding(holding, netlink.walk(messages.flows_dump(family)))
                flows = map(messages.parse_flow, bodies)
                netlink.execute([messages.flow_delete(flow) for flow in flows if flow is not None and chosen(flow)])
    except OSError:
        return


def forget_addresses(addresses: AbstractSet[IPv4Address]) -> None:
    """Forget every tracked connection that one of *addresses* began or answers, of any protocol; none is left then.

    Nothing may send from them meanwhile. Raises OSError where tracking cannot be read or changed.
    """
    packed = {address.packed for address in addresses}
    with Netlink(NETLINK_NETFILTER) as reader, Netlink(NETLINK_NETFILTER) as writer:
        for _ in range(_PASSES):  # a dump of a table that changes may miss some
            found = False
            bodies = _holding(packed, reader.walk(messages.flows_dump(socket.AF_INET)))
            ends = filter(None, map(messages.parse_flow_ends, bodies))
            left = (end for end in ends if not packed.isdisjoint((end.source, end.answers)))
            # Deleted as they come: all of them together would be more than the container's memory.
            while batch := list(islice(left, _BATCH)):
                found = True
                for error in writer.execute([messages.flow_delete(end) for end in batch]):
                    if error is not None and error.errno != errno.ENOENT:
                        raise error
            if not found:
                return
    raise OSError(errno.EBUSY, "they come back")


def _holding(addresses: AbstractSet[bytes], bodies: Iterator[memoryview]) -> Iterator[memoryview]:
    """Without most of those that have none of *addresses*; all of them where there are many addresses, or none."""
    if not 0 < len(addresses) <= _FEW:
        return bodies
    return (body for body in bodies if _has_one(addresses, bytes(body)))


def _has_one(addresses: AbstractSet[bytes], body: bytes) -> bool:
    return any(address in body for address in addresses)
