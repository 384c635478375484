"""Whether names and the cluster's addresses work as any program of this machine would find it.

The tunnel's heartbeat proves that packets pass between session and manager. It proves nothing about what is before it
on this machine: routes, policy rules, systemd-resolved, resolv.conf, and what nobody thought of. So each second

* the kernel is asked where it would send packets for the cluster's nameserver and for the routes (it costs nothing),
* the resolver that resolv.conf names is asked for a name that the forwarder answers by itself, uncachable,
* the cluster's nameserver is asked for a Service, at its ClusterIP, through the tunnel (one packet each way).

What fails is reported within 3 s: DETECT_SECONDS and a check's own time.
"""

import asyncio
import errno
import itertools
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from dns.name import Name

from meshdev.isolation.network import THIS_NETWORK, NetworkSockets
from meshdev.netlink.lookups import KernelRule, Lookup, parse_lookup, parse_rule, route_get, rules_dump
from meshdev.netlink.messages import RT_TABLE_MAIN
from meshdev.netlink.sock import Netlink
from meshdev.session.surroundings import OURS, connected_socket, own_resolv_conf
from meshdev.session.troubles import Source, Troubles
from meshdev.wire.dns import MAX_MESSAGE, PROBE_ADDRESS, answers, has_address, has_records, question
from meshdev.wire.values import IPAddress

#: Between the beginnings of two rounds, in seconds.
DETECT_SECONDS: Final = 1.0
#: Waits after each sending of a question, in seconds: 1.5 in all.
_WAITS: Final = (0.4, 0.4, 0.7)
#: Names that the resolver is asked for in turn: more than are sent in the 5 s until systemd-resolved repeats a query.
_PROBES: Final = 16
#: Routes looked at in one round; the others have their turn in the next ones.
_SAMPLE: Final = 32
#: What the helper may take to put a route back, in seconds.
_REPAIR_SECONDS: Final = 0.5
#: Strayed addresses named at a time.
_SHOWN: Final = 3
_SOURCES: Final[tuple[Source, ...]] = ("routes", "names", "cluster")


class Health:
    """The checks of one connection; what they find is reported to *troubles*."""

    def __init__(
        self,
        troubles: Troubles,
        *,
        device: str,
        nameserver: IPv4Address,
        probe: Name,
        service: Name,
        routes: Callable[[], tuple[IPv4Network, ...]],
        connected: Callable[[], bool],
        recovered: Callable[[], Awaitable[bool]],
        resolver: Callable[[], IPAddress] = lambda: own_resolv_conf().asked[0],
        network: NetworkSockets = THIS_NETWORK,
    ) -> None:
        """*probe* is the name that the forwarder answers by itself, with all below it; *service* one that every cluster
        has.

        *network* is where programs use the connection, and *resolver* the one that they ask there.

        *recovered* is awaited after each round in which names and the cluster's nameserver answered. It returns
        whether a program's question failed since the round before: then nothing is over yet.
        """
        self._troubles = troubles
        self._device = device
        self._nameserver = nameserver
        # systemd-resolved makes one query of all for the same name, and repeats it only after 5 s: where its packet is
        # lost, asking for that name again would join the wait and say nothing of other names.
        self._probes = itertools.cycle([Name((b"%d" % number, *probe.labels)) for number in range(_PROBES)])
        self._services = itertools.repeat(service)
        self._service = service
        self._routes = routes
        self._connected = connected
        self._recovered = recovered
        self._resolver = resolver
        self._network = network
        self._next = 0
        self._strayed: tuple[IPv4Address, ...] = ()

    async def run(self) -> None:
        """Check until cancelled. While the tunnel is down nothing is checked: the pool reports that."""
        loop = asyncio.get_running_loop()
        while True:
            start = loop.time()
            if self._connected():
                await self.check()
            else:
                self._forget()
            await asyncio.sleep(max(0.1, start + DETECT_SECONDS - loop.time()))

    def _forget(self) -> None:
        for source in _SOURCES:
            self._troubles.forget(source)

    async def check(self) -> None:
        """One round."""
        routes, names, cluster = await asyncio.gather(self._strays(), self._names(), self._cluster())
        if not self._connected():
            return
        self._troubles.report("routes", routes)
        if not names and not cluster and await self._recovered():
            return
        self._troubles.report("names", names)
        self._troubles.report("cluster", cluster)

    # -- routes ----------------------------------------------------------------------------------------------------

    async def _strays(self) -> list[str]:
        """Where packets to the cluster do not take the device, and why; the helper gets a moment to put it back."""
        try:
            found = self._look(self._sample())
            if found:
                await asyncio.sleep(_REPAIR_SECONDS)
                found = self._look(found)
        except OSError as error:
            return [f"the kernel does not list its routes: {error.strerror}"]
        self._strayed = tuple(found)
        return list(found.values())[:_SHOWN]

    def _look(self, addresses: Iterable[IPv4Address]) -> dict[IPv4Address, str]:
        with Netlink() as netlink:
            lookups = {address: _lookup(netlink, address) for address in addresses}
            strays = [address for address, found in lookups.items() if stray(address, found, self._device)]
            rules = [parse_rule(body) for body in netlink.dump(rules_dump())] if strays else []
        named = [rule for rule in rules if rule is not None]
        texts = {address: stray(address, lookups[address], self._device, named) for address in strays}
        return {address: text for address, text in texts.items() if text}

    def _sample(self) -> list[IPv4Address]:
        """The nameserver, what strayed in the last round, and some routes, others each time where there are many."""
        routes = self._routes()
        first = self._next if self._next < len(routes) else 0
        self._next = first + _SAMPLE
        found = (_inside(route) for route in routes[first : first + _SAMPLE])
        routed = (address for address in (self._nameserver, *self._strayed) if any(address in net for net in routes))
        return list(dict.fromkeys((*routed, *found)))

    # -- names -----------------------------------------------------------------------------------------------------

    async def _names(self) -> tuple[str, ...]:
        server = await asyncio.to_thread(self._resolver)
        wire = await ask(server, self._probes, self._network)
        if wire is not None and has_address(wire, PROBE_ADDRESS):
            return ()
        how = "does not answer" if wire is None else "answers without asking us"
        return (f"names do not work: {server}, which resolv.conf names, {how}",)

    async def _cluster(self) -> tuple[str, ...]:
        wire = await ask(self._nameserver, self._services, self._network)
        if wire is not None and has_records(wire):
            return ()
        how = "does not answer through the tunnel" if wire is None else f"does not know {self._service}"
        return (f"the cluster's nameserver {self._nameserver} {how}",)


def stray(address: IPv4Address, found: Lookup | None, device: str, rules: Sequence[KernelRule] = ()) -> str | None:
    """What is wrong with where packets to *address* go, None for nothing. *rules* are those of this machine."""
    if found is None:
        return f"there is no route to {address}"
    name = _name(found.index)
    if name == device or OURS.fullmatch(name):  # two connections may route the same range: the older one's is taken
        return None
    table = ""
    if found.table != RT_TABLE_MAIN:
        by = " and ".join(str(rule.priority) for rule in rules if rule.table == found.table)
        table = f" (table {found.table}{f', ip rule {by}' if by else ''})"
    return (
        f"packets to {address} leave by {name}{table}, not by {device}: a route or policy rule of another program "
        "comes first"
    )


def _lookup(netlink: Netlink, address: IPv4Address) -> Lookup | None:
    try:
        found = [parse_lookup(body) for body in netlink.dump(route_get(address))]
    except OSError as error:
        if error.errno in {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL}:
            return None  # no route, or one of type unreachable, prohibit, blackhole
        raise
    return found[0] if found else None


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return "nothing"


def _inside(network: IPv4Network) -> IPv4Address:
    """An address that a more specific route of somebody else is likely to catch, too: not the network's first."""
    return network.network_address + (1 if network.prefixlen < network.max_prefixlen else 0)


async def ask(server: IPAddress, names: Iterator[Name], network: NetworkSockets = THIS_NETWORK) -> bytes | None:
    """The answer to a question for A, as a program's own resolver would get it; None where there is none in time.

    Each sending is for the next one of *names*.
    """
    loop = asyncio.get_running_loop()
    for seconds, name in zip(_WAITS, names, strict=False):
        query = question(name, secrets.randbelow(1 << 16))
        start = loop.time()
        try:
            # A socket each: its source address is that of the route at the time of connect().
            with connected_socket(server, network) as sock:
                async with asyncio.timeout(seconds):
                    sock.send(query.wire)
                    while True:
                        wire = await loop.sock_recv(sock, MAX_MESSAGE)
                        if wire[:2] == query.wire[:2] and answers(wire, query):
                            return wire
        except TimeoutError:
            continue
        except OSError:  # refused, unreachable, no IPv6, no descriptor left: a moment later it may be otherwise
            await asyncio.sleep(max(0.0, start + seconds - loop.time()))
    return None
