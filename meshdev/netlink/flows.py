"""Connection tracking remembers where a flow was led; this makes it forget, so that new rules count at once."""

import socket
from collections.abc import Callable

from meshdev.netlink import messages
from meshdev.netlink.sock import NETLINK_NETFILTER, Netlink


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
