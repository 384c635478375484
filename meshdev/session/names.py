"""The laptop's names while connected: the forwarder, its sockets from the helper, and the proof that they work."""

import asyncio
import contextlib
import itertools
import logging
import socket
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, ip_address
from typing import Final

from dns.name import from_text

from meshdev.dns.cluster import DNS_PORT, ClusterNameserver
from meshdev.dns.former import FormerResolver
from meshdev.dns.forwarder import AnswerSource, ClusterDns, Forwarder
from meshdev.dns.policy import Zone, domain_of
from meshdev.dns.reverse import reverse_zones
from meshdev.errors import DnsError, LaptopError
from meshdev.kube.client import KubeApi
from meshdev.session.health import Health, ask
from meshdev.session.known_names import KnownNames
from meshdev.session.laptop import DnsSituation, Laptop
from meshdev.session.state import SessionState
from meshdev.session.surroundings import connected_socket, own_resolv_conf
from meshdev.session.troubles import Troubles
from meshdev.tunnel.pool import Pool
from meshdev.wire.control import Welcome
from meshdev.wire.dns import ipv4_addresses
from meshdev.wire.helper.answers import ListenerAddress
from meshdev.wire.helper.limits import MAX_DOMAINS
from meshdev.wire.session_api import DnsStatus
from meshdev.wire.values import IPAddress

log = logging.getLogger(__name__)

#: How long the first name may take: CoreDNS answers in milliseconds, but may be starting itself.
CHECK_SECONDS: Final = 10.0
#: Between two tries, in seconds.
PAUSE_SECONDS: Final = 0.1
#: Between two tries to listen in another network, in seconds.
RETRY_SECONDS: Final = 1.0
#: Namespaces of every cluster.
EVERYWHERE: Final = ("default", "kube-system")
#: How long a connect waits for the list of namespaces.
KNOWN_SECONDS: Final = 2.0
#: How soon systemd-resolved is configured for a new namespace, and how often for other routes at most.
DOMAINS_SECONDS: Final = 0.5
ZONES_SECONDS: Final = 10.0
#: Reverse zones; where ranges are not known each Service has its own.
MAX_ZONES: Final = 128
#: To each name server of this machine, each with its own source port (RFC 5452 section 4.5).
UPSTREAM_SOCKETS: Final = 4


class Names:
    """DNS of one connection."""

    def __init__(self, laptop: Laptop, pool: Pool, welcome: Welcome, api: KubeApi) -> None:
        if not welcome.nameservers:
            raise DnsError("the manager's pod has no nameserver", hint="its dnsPolicy must be ClusterFirst")
        if welcome.nameservers[0].is_link_local:
            raise DnsError(
                f"each node has a nameserver of its own at {welcome.nameservers[0]} (NodeLocal DNSCache)",
                hint="meshdev cannot ask it yet: the kubelets' clusterDNS would have to name the DNS Service",
            )
        self._laptop = laptop
        self._pool = pool
        self._zone = Zone.of(domain_of(welcome.search), api.namespace)
        self._known = KnownNames(api, self._zone, (welcome.namespace, *EVERYWHERE), lambda: laptop.search)
        self._applied: tuple[tuple[str, ...], tuple[str, ...]] | None = None
        self._zones: tuple[str, ...] = ()
        self._zones_of: tuple[IPv4Network, ...] | None = None
        self._zones_until = 0.0
        self._nameserver = welcome.nameservers[0]
        self._failed = False
        self._forwarder_now: Forwarder | None = None
        self._listener: ListenerAddress | None = None
        """Where the forwarder listens for programs."""
        self._answers: Counter[AnswerSource] = Counter()
        """Of all forwarders."""
        self._containers: str | None = None
        self._cached: str | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """For `connect` and `status`: why containers do not reach the cluster, what caches may still answer."""
        return tuple(note for note in (self._containers, self._cached) if note)

    @property
    def first_name(self) -> str:
        """A name that every cluster has: the API server's own Service."""
        return f"kubernetes.default.svc.{self._zone.domains[0]}"

    async def start(self, group: asyncio.TaskGroup) -> None:
        """Answer questions, and have them sent here."""
        group.create_task(self._known.follow())
        situation = self._laptop.situation.value
        forwarder = await self._forwarder()
        group.create_task(self._run(forwarder, situation))
        with contextlib.suppress(TimeoutError):  # what comes later is followed
            async with asyncio.timeout(KNOWN_SECONDS):
                await self._known.first.wait()
        await self._redirect()
        group.create_task(self._follow_domains())

    async def _run(self, forwarder: Forwarder, situation: DnsSituation) -> None:
        """Answer until cancelled; in another network ask the resolvers there, at another address listen there.

        *situation* is the one that *forwarder* was made for.
        """
        while True:
            async with asyncio.TaskGroup() as group:
                running = group.create_task(forwarder.run())
                situation = await self._laptop.situation.changed(situation)
                log.info("name servers of this machine: %s", ", ".join(map(str, situation.resolvers)) or "none")
                forwarder = await self._next_forwarder()
                await self._redirect_again()
                running.cancel()

    async def _follow_domains(self) -> None:
        """Namespaces and routes come and go, and the laptop's own domains with the network."""
        while True:
            await asyncio.sleep(DOMAINS_SECONDS)
            self._known.look()
            if self._applied != self._asked_here():
                await self._redirect_again()

    async def _redirect_again(self) -> None:
        try:
            await self._redirect()
        except LaptopError as error:  # a helper that is gone is Laptop.watch_helper's business
            log.warning("%s; the helper tries again with the next beat", error.message)

    async def _redirect(self) -> None:
        search, domains = self._applied = self._asked_here()
        note = (await self._laptop.helper.set_dns(search, domains)).note
        if note and note != self._cached:
            log.warning("%s", note)
        self._cached = note

    def _asked_here(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The search list and the domains for the helper.

        systemd-resolved sends here what it is configured to, and nothing else. So programs that ask for ``b.ns`` find
        it by the search list, as in a pod, where the namespace is unknown or its name is a public suffix. In the other
        modes every question comes here.
        """
        if self._laptop.dns_integration != "resolved":
            return self._zone.search[:1], (".", *self._zone.domains)
        fixed = (*self._zone.domains, *self._reverse_zones())
        namespaces = self._known.known.suffixes
        if len(fixed) + len(namespaces) > MAX_DOMAINS:
            log.warning("%d namespaces are too many: b.NAMESPACE is found for some of them only", len(namespaces))
        return self._zone.search[:2], tuple(dict.fromkeys((*fixed, *namespaces)))[:MAX_DOMAINS]

    def _reverse_zones(self) -> tuple[str, ...]:
        """Those of the routes, a little behind: pods come and go, and resolved is not configured for each at once."""
        routes, now = self._laptop.routing.routes, asyncio.get_running_loop().time()
        if routes is not self._zones_of and now >= self._zones_until:
            self._zones, self._zones_of, self._zones_until = (
                reverse_zones(routes, MAX_ZONES),
                routes,
                now + ZONES_SECONDS,
            )
        return self._zones

    async def _next_forwarder(self) -> Forwarder:
        """One for the current situation; until it exists the former one continues."""
        while True:
            try:
                return await self._forwarder()
            except LaptopError as error:
                log.warning("%s; trying again", error.message)
                await asyncio.sleep(RETRY_SECONDS)

    async def _forwarder(self) -> Forwarder:
        helper = self._laptop.helper
        situation = self._laptop.situation.value
        isolated = self._laptop.isolated
        sockets = await helper.dns_sockets(() if isolated else situation.resolvers)
        self._containers = sockets.containers
        self._listener = sockets.listeners[0].at
        # This process is outside the namespaces: what it asks needs no mark to pass our own redirect.
        upstreams = {each: tuple(_upstreams(each)) for each in situation.resolvers} if isolated else sockets.upstreams
        former = FormerResolver(
            {(str(server), DNS_PORT): some for server, some in upstreams.items()},
            _upstream_tcp if isolated else (lambda server: helper.upstream_tcp(ip_address(server))),
            # Whoever is asked from its own address is this machine itself.
            here=[
                (str(server), DNS_PORT)
                for server, source in zip(situation.resolvers, situation.sources, strict=True)
                if server.is_loopback or str(server) == source
            ],
        )
        listening = [
            (listener.udp, listener.tcp, (str(listener.at.server), DNS_PORT) if listener.at.server else None)
            for listener in sockets.listeners
        ]
        self._forwarder_now = Forwarder(listening, cluster=self._cluster(), former=former, answers=self._answers)
        return self._forwarder_now

    async def check(self) -> IPv4Address:
        """Resolve a name of the cluster as any program would, and return its address.

        That proves a name, a ClusterIP (the nameserver's) and a pod (CoreDNS's) at once. Raises DnsError.
        """
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                while True:
                    with contextlib.suppress(socket.gaierror):
                        return (await self._addresses(self.first_name))[0]
                    await asyncio.sleep(PAUSE_SECONDS)
        except TimeoutError:
            raise DnsError(
                f"the laptop cannot resolve {self.first_name} through the tunnel",
                hint=f"is the cluster's DNS {self._nameserver} running, and may the manager's pod reach it?",
            ) from None

    async def lookup(self, name: str) -> tuple[IPv4Address, ...] | None:
        """See :meth:`Forwarder.lookup`: as if a program had asked, but only for what is the cluster's."""
        if self._forwarder_now is None:
            raise DnsError("the cluster's names are not known yet")
        return await self._forwarder_now.lookup(from_text(name))

    async def _addresses(self, name: str) -> tuple[IPv4Address, ...]:
        """The IPv4 addresses of a name, at least one, as programs that use the connection get them.

        Raises socket.gaierror.
        """
        if not self._laptop.isolated:
            found = await asyncio.get_running_loop().getaddrinfo(
                name, None, family=socket.AF_INET, type=socket.SOCK_STREAM
            )
            return tuple(IPv4Address(each[4][0]) for each in found)
        wire = await ask(self._resolver(), itertools.repeat(from_text(name)), self._laptop.network)
        known = ipv4_addresses(wire) if wire is not None else ()
        if not known:
            raise socket.gaierror(socket.EAI_NONAME, f"{name} has no address")
        return known

    def _resolver(self) -> IPAddress:
        if self._laptop.isolated and self._listener is not None:
            return self._listener.address
        return own_resolv_conf().asked[0]

    def health(self, troubles: Troubles) -> Health:
        """The checks that names and ClusterIPs go on working; they find nothing before :meth:`start`."""
        return Health(
            troubles,
            device=self._laptop.device.name,
            nameserver=self._nameserver,
            probe=self._zone.probe,
            service=from_text(self.first_name),
            # In namespaces of its own nobody but the helper may change them.
            routes=lambda: () if self._laptop.isolated else self._laptop.routing.routes,
            resolver=self._resolver,
            network=self._laptop.network,
            connected=self._pool.connected,
            recovered=self._recovered,
        )

    async def _recovered(self) -> bool:
        """Names work: what a cache (systemd-resolved keeps SERVFAIL for 10 s) has of the time before is forgotten.

        False where nothing failed.
        """
        failed, self._failed = self._failed, False
        if failed:
            await self._redirect_again()
        return failed

    def _note_failure(self) -> None:
        self._failed = True

    def describe(self) -> str:
        """For people."""
        return f"{self._laptop.dns_integration}: {', '.join(self._zone.domains)} and short names by {self._nameserver}"

    def show(self, state: SessionState) -> SessionState:
        """*state*, with what is known here."""
        dns = DnsStatus(self._laptop.dns_integration, str(self._nameserver), self._zone.search, self._zone.domains)
        answers = tuple(sorted(self._answers.items()))
        return replace(state, dns=dns, dns_answers=answers, notes=(*state.notes, *self.notes))

    def _cluster(self) -> ClusterDns:
        return ClusterDns(
            zone=self._zone,
            known=lambda: self._known.known,
            confirm=self._known.confirm,
            nameserver=ClusterNameserver(str(self._nameserver), network=self._laptop.network),
            up=self._pool.connected,
            inside=self._laptop.routing.inside,
            route=self._laptop.routing.route_answers,
            failed=self._note_failure,
        )


def _upstreams(server: IPAddress) -> Iterator[socket.socket]:
    """Sockets connected to a name server of this machine; none where it has no route."""
    with contextlib.suppress(OSError):
        for _ in range(UPSTREAM_SOCKETS):
            yield connected_socket(server)


async def _upstream_tcp(server: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_STREAM)
    sock.setblocking(False)
    return sock
