"""Sockets from which the passthrough worker reaches the app with its client's own address and port.

A socket that is bound to an address of somebody else (IP_TRANSPARENT, ip(7)) needs CAP_NET_ADMIN once, when that is
set. The worker parses what anybody sends and has no capability; so the agent makes these sockets and hands them over
before they are needed. What the worker cannot change is in them, too: the mark routes all that they send to ``lo``, so
nothing that it does with them leaves the pod.

The app's answers are addressed to the client. They get the same mark in the agent's nft table (``firewall``), and a
rule and a route here keep what is marked in the pod. When the agent is killed its table is removed and nothing has the
mark any more; the next agent removes rule and route.
"""

import asyncio
import logging
import socket
import struct
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from meshdev.netlink.netfilter import forget_flows
from meshdev.netlink.rules import (
    MarkRule,
    local_route_add,
    local_route_delete,
    mark_rule_add,
    mark_rule_delete,
    parse_mark_rule,
    rules_dump,
)
from meshdev.netlink.sock import Netlink
from meshdev.sidecar.agent.worker_channel import writable

log = logging.getLogger(__name__)

#: The lower half of each mark of ours; the upper half is the agent's number. Not to be taken for Istio's (0x539, 0x111
#: and 0x539 with mask 0xfff), kube-proxy's (bits 14 and 15) or Cilium's (mask 0xf00: 0x200 to 0xf00 but for 0xd00).
MARK: Final = 0x0D13
#: Sockets in one message (SCM_MAX_FD is 253), and how large the queue of these messages is (socket(7), SO_SNDBUF: the
#: kernel doubles it, and a message takes about 768 bytes): some 700 sockets, 200 of which are left when the agent is
#: asked for more. As much as a burst of clients may need before the agent has its turn.
BATCH: Final = 64
QUEUE_BYTES: Final = 4096
_AGAIN_SECONDS: Final = 1.0
RESET: Final = struct.pack("ii", 1, 0)  # struct linger: a close sends a reset (socket(7))


class AddressFamily(NamedTuple):
    """What differs between IPv4 and IPv6. The nft rules are of both."""

    number: int
    level: int
    transparent: int


IPV4: Final = AddressFamily(socket.AF_INET, socket.IPPROTO_IP, 19)  # linux/in.h: IP_TRANSPARENT
#: What the redirect and the worker serve. IPv6 would be AddressFamily(AF_INET6, IPPROTO_IPV6, 75), linux/in6.h.
FAMILIES: Final = (IPV4,)


class ClientAddresses:
    """Rule and route of one agent, and the sockets that make use of them. Needs CAP_NET_ADMIN."""

    def __init__(self, number: int, living: Callable[[], AbstractSet[int]]) -> None:
        """*number* is the agent's own in this pod, *living* returns those of all that run (both: ``PodFirewall``).

        What agents left that were killed is removed. Raises OSError where the kernel refuses rule or route.
        """
        self.mark: Final = number << 16 | MARK
        self._packed_mark: Final = struct.pack("I", self.mark)
        self._rules: Final = [MarkRule(family.number, self.mark) for family in FAMILIES]
        self._loopback = socket.if_nametoindex("lo")
        self._netlink = Netlink()
        try:
            self._remove_left(living)
            for rule in self._rules:
                self._netlink.run(mark_rule_add(rule))
                self._netlink.run(local_route_add(rule, self._loopback))
            self.make().close()
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Remove rule and route. To be called once no socket is left."""
        self._remove(self._rules)
        self._netlink.close()

    def make(self, family: AddressFamily = IPV4) -> socket.socket:
        """A socket as the worker needs it. Raises OSError.

        Closing it sends a reset: after the worker was killed the app must not go on to send to that client, since
        nothing would keep it in the pod any more.
        """
        sock = socket.socket(family.number, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.setsockopt(family.level, family.transparent, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self._packed_mark)
            # the device can be set by anybody once, and then no more without CAP_NET_RAW
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
            # a client may use one port for several of the pod's
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:
            sock.close()
            raise
        return sock

    async def supply(self, queue: socket.socket) -> None:
        """Keep *queue* full of sockets until the other end is closed."""
        while True:
            await writable(queue)
            try:
                self._fill(queue)
            except (BrokenPipeError, ConnectionResetError):
                return
            except OSError as error:
                log.warning("no sockets with clients' addresses for a while: %s", error)
                await asyncio.sleep(_AGAIN_SECONDS)

    def _fill(self, queue: socket.socket) -> None:
        made: list[socket.socket] = []
        try:
            made += (self.make() for _ in range(BATCH))
            socket.send_fds(queue, [b"\0"], [sock.fileno() for sock in made])
        except BlockingIOError:
            pass
        finally:
            for sock in made:
                sock.close()

    def _remove_left(self, living: Callable[[], AbstractSet[int]]) -> None:
        """Nothing has the mark of an agent that was killed, and its connections are over; tracking may not know."""
        bodies = [body for rule in self._rules for body in self._netlink.dump(rules_dump(rule.family))]
        numbers = living()  # each of them had its table before it had a rule
        found = [rule for rule in map(parse_mark_rule, bodies) if rule is not None and rule.mark & 0xFFFF == MARK]
        if left := [rule for rule in found if rule.mark >> 16 not in numbers]:
            log.info("removing the routes of %d agents that were killed", len(left))
            self._remove(left)
            zones = {rule.mark >> 16 for rule in left}
            forget_flows(lambda flow: flow.zone in zones)

    def _remove(self, rules: Sequence[MarkRule]) -> None:
        for rule in rules:
            self._netlink.execute([mark_rule_delete(rule), local_route_delete(rule, self._loopback)])


def queue() -> tuple[socket.socket, socket.socket]:
    """The agent's end of a queue of sockets, and its worker's. What is in it is closed with it."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    its.setblocking(False)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, QUEUE_BYTES)
    return ours, its
