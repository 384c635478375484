"""The laptop's names while connected: the forwarder, its sockets from the helper, and the proof that they work."""

import asyncio
import contextlib
import logging
import socket
from ipaddress import IPv4Address, ip_address
from typing import Final

from dns.name import from_text

from meshdev.dns.cluster import DNS_PORT, ClusterNameserver
from meshdev.dns.former import FormerResolver
from meshdev.dns.forwarder import Cluster, Forwarder
from meshdev.dns.policy import Zone, domain_of
from meshdev.errors import DnsError, FirewallError
from meshdev.session.health import Health
from meshdev.session.laptop import Laptop, Situation
from meshdev.session.troubles import Troubles
from meshdev.tunnel.pool import Pool
from meshdev.wire.control import Welcome
from meshdev.wire.session_api import DnsStatus

log = logging.getLogger(__name__)

#: How long the first name may take: CoreDNS answers in milliseconds, but may be starting itself.
CHECK_SECONDS: Final = 10.0
#: Between two tries, in seconds.
PAUSE_SECONDS: Final = 0.1


class Names:
    """DNS of one connection."""

    def __init__(self, laptop: Laptop, pool: Pool, welcome: Welcome, namespace: str) -> None:
        if not welcome.nameservers:
            raise DnsError("the manager's pod has no nameserver", hint="its dnsPolicy must be ClusterFirst")
        if welcome.nameservers[0].is_link_local:
            raise DnsError(
                f"each node has a nameserver of its own at {welcome.nameservers[0]} (NodeLocal DNSCache)",
                hint="meshdev cannot ask it yet: the kubelets' clusterDNS would have to name the DNS Service",
            )
        self._laptop = laptop
        self._pool = pool
        self._zone = Zone.of(domain_of(welcome.search), namespace)
        self._nameserver = welcome.nameservers[0]
        self._failed = False
        #: For `connect` and `status`.
        self.notes: tuple[str, ...] = ()

    @property
    def first_name(self) -> str:
        """A name that every cluster has: the API server's own Service."""
        return f"kubernetes.default.svc.{self._zone.domains[0]}"

    async def start(self, group: asyncio.TaskGroup) -> None:
        """Answer questions, and have them sent here."""
        situation = self._laptop.situation
        forwarder = await self._forwarder()
        group.create_task(self._run(forwarder, situation))
        await self._redirect()

    async def _run(self, forwarder: Forwarder, situation: Situation) -> None:
        """Answer until cancelled; in another network ask the resolvers there, at another address listen there.

        *situation* is the one that *forwarder* was made for.
        """
        while True:
            async with asyncio.TaskGroup() as group:
                running = group.create_task(forwarder.run())
                await self._laptop.wait_for_change(situation)
                situation = self._laptop.situation
                log.info("name servers of this machine: %s", ", ".join(map(str, self._laptop.resolvers)) or "none")
                forwarder = await self._forwarder()
                try:
                    await self._redirect()
                except (DnsError, FirewallError) as error:
                    log.warning("%s; the helper tries again with the next beat", error.message)
                running.cancel()

    async def _redirect(self) -> None:
        await self._laptop.helper.set_dns(self._zone.search[:1], (".", *self._zone.domains))

    async def _forwarder(self) -> Forwarder:
        helper = self._laptop.helper
        sockets = await helper.dns_sockets(self._laptop.resolvers)
        self.notes = (sockets.containers,) if sockets.containers else ()
        former = FormerResolver(
            {(str(server), DNS_PORT): some for server, some in sockets.upstreams.items()},
            lambda server: helper.upstream_tcp(ip_address(server)),
        )
        return Forwarder([(ear.udp, ear.tcp) for ear in sockets.ears], cluster=self._cluster(), former=former)

    async def check(self) -> IPv4Address:
        """Resolve a name of the cluster as any program would, and return its address.

        That proves a name, a ClusterIP (the nameserver's) and a pod (CoreDNS's) at once. Raises DnsError.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                while True:
                    with contextlib.suppress(socket.gaierror):
                        found = await loop.getaddrinfo(self.first_name, 443, family=socket.AF_INET)
                        return IPv4Address(found[0][4][0])
                    await asyncio.sleep(PAUSE_SECONDS)
        except TimeoutError:
            raise DnsError(
                f"the laptop cannot resolve {self.first_name} through the tunnel",
                hint=f"is the cluster's DNS {self._nameserver} running, and may the manager's pod reach it?",
            ) from None

    def health(self, troubles: Troubles) -> Health:
        """The checks that names and ClusterIPs go on working; they find nothing before :meth:`start`."""
        return Health(
            troubles,
            device=self._laptop.device.name,
            nameserver=self._nameserver,
            probe=self._zone.probe,
            service=from_text(self.first_name),
            routes=lambda: self._laptop.routing.routes,
            connected=self._pool.connected,
            recovered=self._recovered,
        )

    async def _recovered(self) -> None:
        """Names work: what a cache (systemd-resolved keeps SERVFAIL for 10 s) has of the time before is forgotten."""
        if self._failed:
            self._failed = False
            try:
                await self._redirect()
            except (DnsError, FirewallError) as error:
                log.warning("%s; the helper tries again with the next beat", error.message)

    def _note_failure(self) -> None:
        self._failed = True

    def describe(self) -> str:
        """For people."""
        way = self._laptop.greeting.dns
        return f"{way}: {', '.join(self._zone.domains)} and short names by {self._nameserver}"

    def status(self) -> DnsStatus:
        """For ``status``."""
        return DnsStatus(self._laptop.greeting.dns, str(self._nameserver), self._zone.search, self._zone.domains)

    def _cluster(self) -> Cluster:
        return Cluster(
            zone=self._zone,
            nameserver=ClusterNameserver(str(self._nameserver)),
            up=self._pool.connected,
            inside=self._laptop.routing.inside,
            route=self._laptop.routing.name,
            failed=self._note_failure,
        )
