"""Connection tracking remembers where a flow was led; this makes it forget, so that new rules count at once."""

import errno
import socket
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from ipaddress import IPv4Address
from typing import Final

from meshdev.netlink import messages
from meshdev.netlink.sock import NETLINK_NETFILTER, Netlink

_PASSES: Final = 4


def forget_flows(chosen: Callable[[messages.Flow], bool]) -> None:
    """Forget the tracked flows that *chosen* picks. At best: where tracking cannot be read, flows run out by themselves
    (30 s for UDP: net.netfilter.nf_conntrack_udp_timeout)."""
    try:
        with Netlink(NETLINK_NETFILTER) as netlink:
            for family in (socket.AF_INET, socket.AF_INET6):
                flows = map(messages.parse_flow, netlink.dump(messages.flows_dump(family)))
                netlink.execute([messages.flow_delete(flow) for flow in flows if flow is not None and chosen(flow)])
    except OSError:
        return


def forget_addresses(addresses: AbstractSet[IPv4Address]) -> None:
    """Forget every tracked connection that one of *addresses* began or answers, of any protocol; none is left then.

    Nothing may send from them meanwhile. Raises OSError where tracking cannot be read or changed.
    """
    packed = {address.packed for address in addresses}
    with Netlink(NETLINK_NETFILTER) as netlink:
        for _ in range(_PASSES):  # a dump of a table that changes may miss some
            bodies = netlink.dump(messages.flows_dump(socket.AF_INET))
            ends = [end for end in map(messages.parse_flow_ends, bodies) if end is not None]
            left = [end for end in ends if not packed.isdisjoint((end.source, end.answers))]
            if not left:
                return
            for error in netlink.execute([messages.flow_delete(end) for end in left]):
                if error is not None and error.errno != errno.ENOENT:
                    raise error
    raise OSError(errno.EBUSY, "they come back")
