"""The forwarder: carries out the policy's plan for each query, between listener, cluster and former resolver."""

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final, Literal, get_args

import dns.opcode
import dns.rcode
import dns.rdatatype
from dns.name import Name

from meshdev.dns.cluster import ClusterNameserver
from meshdev.dns.former import FormerResolver, Server
from meshdev.dns.known import Known
from meshdev.dns.listener import Client, Listener
from meshdev.dns.policy import FORMER_ONLY, NEGATIVE_WINDOW, QueryPlan, Zone
from meshdev.errors import DnsError, MeshdevError
from meshdev.wire.dns import (
    MAX_MESSAGE,
    Named,
    Query,
    addresses,
    drop_ipv6,
    empty,
    grafted,
    has_records,
    ipv4_addresses,
    is_negative,
    is_truncated,
    probed,
    question,
    rcode,
    read_answer,
    rebuilt,
    renamed,
)

log = logging.getLogger(__name__)

#: How long to wait for the helper to set routes before an answer; it takes a millisecond or two.
_ROUTE_SECONDS: Final = 2.0

#: Whose answer a program got: the cluster's nameserver; the resolver that the machine has without us; meshdev itself,
#: for names that nobody is asked for; or nobody's, SERVFAIL.
AnswerSource = Literal["cluster", "laptop", "meshdev", "failed"]
ANSWER_SOURCES: Final[tuple[AnswerSource, ...]] = get_args(AnswerSource)

_TRANSFERS: Final = frozenset({dns.rdatatype.AXFR, dns.rdatatype.IXFR})


@dataclass(frozen=True, slots=True)
class ClusterAnswer:
    """The cluster has the name: ``wire`` is the answer for the client, ``addresses`` must be routed first."""

    wire: bytes
    addresses: frozenset[Named]


@dataclass(frozen=True, slots=True)
class NotFound:
    """The cluster does not have the name or, with ``certain`` false, could not be asked."""

    certain: bool


@dataclass(frozen=True, slots=True)
class ClusterDns:
    """What the forwarder needs of the cluster."""

    zone: Zone
    #: What is known to exist now.
    known: Callable[[], Known]
    #: Called with a namespace (in lower case) in which the cluster has a name.
    confirm: Callable[[bytes], None]
    nameserver: ClusterNameserver
    #: Whether the tunnel carries packets right now.
    up: Callable[[], bool]
    #: Whether an address lies in one of our routes.
    inside: Callable[[IPv4Address], bool]
    #: Routes addresses into the tunnel; returns when they are (or must not be), raises MeshdevError on failure.
    route: Callable[[frozenset[Named]], Awaitable[None]]
    #: Called when the nameserver could not be asked: a cache on this machine may keep the failure.
    failed: Callable[[], None] = lambda: None


class Forwarder:
    """DNS of a connected laptop. Owns the listening sockets and *former*'s until :meth:`run` ends."""

    def __init__(
        self,
        listening: Iterable[tuple[socket.socket, socket.socket, Server | None]],
        *,
        cluster: ClusterDns,
        former: FormerResolver,
        answers: Counter[AnswerSource] | None = None,
    ) -> None:
        """*listening*: UDP and TCP sockets, and which of *former*'s servers programs ask there (None: any).

        *answers* counts the questions of programs; meshdev's own probes are none.
        """
        self._listeners = [Listener(udp, tcp, self._serve, asked) for udp, tcp, asked in listening]
        self._cluster = cluster
        self._former = former
        self._answers: Counter[AnswerSource] = Counter() if answers is None else answers

    async def run(self) -> None:
        """Serves until cancelled; then all sockets are closed."""
        with self._former.receiving():
            async with asyncio.TaskGroup() as group:
                for listener in self._listeners:
                    group.create_task(listener.run())

    async def lookup(self, name: Name) -> tuple[IPv4Address, ...] | None:
        """The addresses of *name* in the cluster, routed, perhaps none; None where it is not the cluster's.

        Raises DnsError where it is the cluster's, or may be, and the cluster cannot be asked.
        """
        query = question(name, 0)
        plan = self._cluster.zone.plan(query, self._cluster.inside, self._cluster.known())
        if plan == FORMER_ONLY:
            return None
        source, wire = await self._resolve(query, plan, Client(stream=False, reply=_nobody))
        if is_truncated(wire):
            source, wire = await self._resolve(query, plan, Client(stream=True, reply=_nobody))
        if source == "laptop":
            return None
        if rcode(wire) == dns.rcode.SERVFAIL:
            raise DnsError("the cluster's DNS does not answer")
        return ipv4_addresses(wire)

    async def _serve(self, query: Query, client: Client) -> None:
        if query.name.is_subdomain(self._cluster.zone.probe) and query.opcode == dns.opcode.QUERY:
            await client.reply(probed(query))
            return
        plan = self._cluster.zone.plan(query, self._cluster.inside, self._cluster.known())
        transfer = client.stream and plan == FORMER_ONLY and query.rdtype in _TRANSFERS
        if transfer and await self._former.transfer(query, client.reply, client.asked):
            self._answers["laptop"] += 1
            return
        source, wire = await self._resolve(query, plan, client)
        self._answers["failed" if rcode(wire) == dns.rcode.SERVFAIL else source] += 1
        await client.reply(wire)

    async def _resolve(self, query: Query, plan: QueryPlan, client: Client) -> tuple[AnswerSource, bytes]:
        """The answer for the client, and whose it is; never raises."""
        if plan.absent:
            return "meshdev", empty(query, dns.rcode.NXDOMAIN)
        if not plan.names:
            own = await self._ask_former(query, client) if plan.former else empty(query, dns.rcode.SERVFAIL)
            return "laptop", own
        if not self._cluster.up():
            self._cluster.failed()
            found: ClusterAnswer | NotFound = NotFound(certain=False)
            former = await self._ask_former(query, client) if plan.former else None
        elif plan.former:
            ask = self._ask_former_first if plan.former_wins else self._ask_both
            found, former = await ask(query, plan, client)
        else:
            found, former = await self._ask_cluster(query, plan.names, stream=client.stream), None
        match found:
            case ClusterAnswer():
                return "cluster", await self._routed(query, found)
            case NotFound(certain) if former is None:
                return "cluster", empty(query, dns.rcode.NXDOMAIN if certain else dns.rcode.SERVFAIL)
            case NotFound(certain):
                return "laptop", former if certain else _uncachable(query, former)

    async def _ask_both(
        self, query: Query, plan: QueryPlan, client: Client
    ) -> tuple[ClusterAnswer | NotFound, bytes | None]:
        """The cluster's answer within its time and, where it has none, that of the former resolver."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        async with asyncio.TaskGroup() as group:
            cluster = group.create_task(self._ask_cluster(query, plan.names, stream=client.stream))
            await asyncio.wait([cluster], timeout=plan.head_start)
            if cluster.done() and isinstance(cluster.result(), ClusterAnswer):
                return cluster.result(), None
            former = group.create_task(self._ask_former(query, client))
            await asyncio.wait([cluster, former], return_when=asyncio.FIRST_COMPLETED)
            if not cluster.done():
                window = NEGATIVE_WINDOW if _is_failure(former.result()) else plan.window
                await asyncio.wait([cluster], timeout=max(0.0, start + window - loop.time()))
            found: ClusterAnswer | NotFound = cluster.result() if cluster.done() else NotFound(certain=False)
            cluster.cancel()
            if isinstance(found, ClusterAnswer):
                former.cancel()
                return found, None
            return found, await former

    async def _ask_former_first(
        self, query: Query, plan: QueryPlan, client: Client
    ) -> tuple[ClusterAnswer | NotFound, bytes | None]:
        """The former resolver's answer where it has the name, else the cluster's; both are asked at once.

        NODATA counts as having it: the name exists, perhaps with IPv6 addresses only (RFC 2308 section 2.2).
        """
        loop = asyncio.get_running_loop()
        start = loop.time()
        async with asyncio.TaskGroup() as group:
            cluster = group.create_task(self._ask_cluster(query, plan.names, stream=client.stream))
            former = await self._ask_former(query, client)
            if rcode(former) == dns.rcode.NOERROR:
                cluster.cancel()
                return NotFound(certain=True), former
            await asyncio.wait([cluster], timeout=max(0.0, start + NEGATIVE_WINDOW - loop.time()))
            found: ClusterAnswer | NotFound = cluster.result() if cluster.done() else NotFound(certain=False)
            cluster.cancel()
            return found, former

    async def _ask_former(self, query: Query, client: Client) -> bytes:
        return await self._former.ask(query, stream=client.stream, asked=client.asked) or empty(
            query, dns.rcode.SERVFAIL
        )

    async def _ask_cluster(self, query: Query, names: tuple[Name, ...], *, stream: bool) -> ClusterAnswer | NotFound:
        """Ask for all *names* at once; the first in their order that exists counts, as with a search list."""
        if names == (query.name,):
            return await self._ask_untouched(query, stream=stream)
        if len(names) == 1:
            return await self._ask_as(query, names[0], stream=stream)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._ask_as(query, name, stream=stream)) for name in names]
        results = [task.result() for task in tasks]
        for result in results:
            if isinstance(result, ClusterAnswer):
                return result
        return NotFound(certain=all(isinstance(result, NotFound) and result.certain for result in results))

    async def _ask_untouched(self, query: Query, *, stream: bool) -> ClusterAnswer | NotFound:
        wire = await self._ask_nameserver(query, stream=stream)
        if wire is None:
            return NotFound(certain=False)
        answer = read_answer(wire)
        if answer is None:  # not parsable here: left to the client, nothing is routed
            return ClusterAnswer(wire, frozenset())
        if answer.answer:
            self._confirm(query.name)
        domain = self._cluster.zone.domain
        if drop_ipv6(answer, domain):
            wire = rebuilt(query, answer, MAX_MESSAGE if stream else query.payload)
        return ClusterAnswer(wire, addresses(answer, domain))

    async def _ask_as(self, query: Query, name: Name, *, stream: bool) -> ClusterAnswer | NotFound:
        """Ask for *name* instead of the query's name.

        The A records decide whether a name exists: some clusters answer every AAAA with NODATA (the CoreDNS template
        meant to disable IPv6) and would swallow public names; old servers answer NXDOMAIN to the AAAA of a name that
        has an A record, which glibc and musl take as final.
        """
        if query.rdtype == dns.rdatatype.A:
            answer = witness = await self._ask_nameserver(renamed(query, name, dns.rdatatype.A), stream=stream)
        else:
            async with asyncio.TaskGroup() as group:
                asked = group.create_task(self._ask_nameserver(renamed(query, name, query.rdtype), stream=stream))
                exists = group.create_task(self._ask_nameserver(renamed(query, name, dns.rdatatype.A), stream=stream))
            answer, witness = asked.result(), exists.result()
        if not (_has_records(answer) or _has_records(witness) or _code(witness) == dns.rcode.NOERROR):
            return NotFound(certain=_code(witness) == dns.rcode.NXDOMAIN)
        return self._found(query, name, answer, MAX_MESSAGE if stream else query.payload)

    def _found(self, query: Query, name: Name, wire: bytes | None, limit: int) -> ClusterAnswer:
        """The answer for a name that exists; only the cluster is asked for it, whatever it answered."""
        if wire is not None and is_negative(wire):
            return ClusterAnswer(empty(query, dns.rcode.NOERROR), frozenset())
        answer = read_answer(wire) if wire is not None and has_records(wire) else None
        if answer is None:
            return ClusterAnswer(empty(query, dns.rcode.SERVFAIL), frozenset())
        self._confirm(name)
        drop_ipv6(answer, self._cluster.zone.domain)
        return ClusterAnswer(grafted(query, name, answer, limit), addresses(answer, self._cluster.zone.domain))

    def _confirm(self, name: Name) -> None:
        """The cluster has *name*: ``….NAMESPACE.svc.DOMAIN`` means that the namespace exists."""
        below = name.labels[: -len(self._cluster.zone.domain.labels)]
        if len(below) > 2 and below[-1].lower() == b"svc":
            self._cluster.confirm(below[-2].lower())

    async def _ask_nameserver(self, query: Query, *, stream: bool) -> bytes | None:
        try:
            return await self._cluster.nameserver.ask(query, stream=stream)
        except (OSError, EOFError) as error:
            log.debug("cluster DNS gave no answer for %s: %r", query.name, error)
            self._cluster.failed()
            return None

    async def _routed(self, query: Query, found: ClusterAnswer) -> bytes:
        """The answer, once its addresses are routed: else the first packet would take the former route."""
        if found.addresses:
            try:
                async with asyncio.timeout(_ROUTE_SECONDS):
                    await self._cluster.route(found.addresses)
            except (MeshdevError, TimeoutError) as error:
                log.warning("no route for %s: %r", query.name, error)
                return empty(query, dns.rcode.SERVFAIL)
        return found.wire


async def _nobody(_wire: bytes) -> None:
    """The client of a lookup of our own."""


def _has_records(wire: bytes | None) -> bool:
    return wire is not None and has_records(wire)


def _code(wire: bytes | None) -> int | None:
    return None if wire is None else rcode(wire)


def _is_failure(wire: bytes) -> bool:
    """Whether the former resolver's answer is negative or an error."""
    return is_negative(wire) or rcode(wire) != dns.rcode.NOERROR


def _uncachable(query: Query, wire: bytes) -> bytes:
    """Remove the SOA from a negative answer of the former resolver, so that no cache keeps it.

    While the cluster cannot be asked, systemd-resolved would keep the root zone's NXDOMAIN for ``b.ns`` for two hours,
    long after the tunnel is back.
    """
    return empty(query, rcode(wire)) if is_negative(wire) else wire
