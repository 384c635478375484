"""A forwarder between a cluster's nameserver and a former resolver, all on loopback."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Network

import pytest

from meshdev.dns import forwarder, policy
from meshdev.dns.cluster import ClusterNameserver
from meshdev.dns.former import FormerResolver
from meshdev.dns.forwarder import AnswerSource, ClusterDns, Forwarder
from meshdev.dns.known import Known
from meshdev.dns.policy import Zone
from meshdev.errors import MeshdevError
from meshdev.wire.dns import Named
from tests.dns.servers import Asker, FakeServer, socket_pair, udp_socket

KUBE = {
    ("b.ns.svc.cluster.local.", "A"): ["10.96.0.7"],
    ("big.ns.svc.cluster.local.", "A"): [f"10.244.0.{host}" for host in range(1, 120)],
    ("db.ns.svc.cluster.local.", "A"): ["10.244.0.9"],
    ("db-0.db.ns.svc.cluster.local.", "A"): ["10.244.0.9"],
    ("b.other.svc.cluster.local.", "A"): ["10.96.0.8"],
    ("db-0.db.other.svc.cluster.local.", "A"): ["10.244.0.10"],
    ("ext.ns.svc.cluster.local.", "CNAME"): ["www.example.test."],
    ("www.example.test.", "A"): ["192.0.2.1"],
    ("www.example.test.", "AAAA"): ["2001:db8::1"],
    ("_http._tcp.b.ns.svc.cluster.local.", "SRV"): ["0 100 80 b.ns.svc.cluster.local."],
    ("_http._tcp.b.ns.svc.cluster.local.", "A"): ["10.96.0.7"],
    ("7.0.96.10.in-addr.arpa.", "PTR"): ["b.ns.svc.cluster.local."],
    ("dual.ns.svc.cluster.local.", "A"): ["10.96.0.9"],
    ("dual.ns.svc.cluster.local.", "AAAA"): ["fd00::9"],
    ("dual.ns.svc.cluster.local.", "HTTPS"): [
        "1 . mandatory=port,ipv6hint port=8443 ipv4hint=10.96.0.9 ipv6hint=fd00::9"
    ],
    ("example.test.ns.svc.cluster.local.", "A"): ["10.244.0.66"],
    ("six.test.ns.svc.cluster.local.", "A"): ["10.244.0.67"],
    ("b.unlisted.svc.cluster.local.", "A"): ["10.96.0.10"],
    ("wpad.ns.svc.cluster.local.", "A"): ["10.96.0.66"],
    ("api.test.ns.svc.cluster.local.", "A"): ["10.96.0.67"],
}
WORLD = {
    ("www.example.test.", "A"): ["192.0.2.1"],
    ("www.example.test.", "AAAA"): ["2001:db8::1"],
    ("six.test.", "AAAA"): ["2001:db8::6"],
    ("example.test.", "A"): ["192.0.2.2"],
    ("b.other.", "A"): ["192.0.2.3"],
    ("printer.", "A"): ["192.0.2.4"],
    ("db-0.db.other.", "A"): ["192.0.2.5"],
    ("7.0.96.10.in-addr.arpa.", "PTR"): ["printer.office.test."],
}
ROUTED = IPv4Network("10.96.0.0/16")


@dataclass
class Laptop:
    """A running forwarder and what is around it."""

    kube: FakeServer = field(default_factory=lambda: FakeServer(KUBE))
    world: FakeServer = field(default_factory=lambda: FakeServer(WORLD))
    #: Servers of the former resolver, ``world`` unless told.
    servers: list[FakeServer] = field(default_factory=list)
    up: bool = True
    #: Nobody lists what the cluster has, unless told.
    known: Known = field(default_factory=lambda: Known(namespaces=frozenset({b"ns", b"other"})))
    confirmed: list[bytes] = field(default_factory=list)
    #: Nobody listens at the nameserver's address.
    kube_gone: bool = False
    routed: list[str] = field(default_factory=list)
    #: Where there is one, no route is added before it is set.
    gate: asyncio.Event | None = None
    routing: bool = False
    route_error: MeshdevError | None = None
    dial_error: MeshdevError | None = None
    upstream_sockets: int = 4
    failures: int = 0
    #: Whose answers programs got.
    answers: Counter[AnswerSource] = field(default_factory=Counter)
    #: More listeners, for questions to one of the servers.
    others: list[tuple[socket.socket, socket.socket, tuple[str, int] | None]] = field(default_factory=list)
    #: Which of the servers run on this machine.
    here: list[FakeServer] = field(default_factory=list)
    port: int = 0
    made: Forwarder | None = None
    running: "asyncio.Task[None] | None" = None

    async def route(self, addresses: frozenset[Named]) -> None:
        self.routing = True
        if self.gate is not None:
            await self.gate.wait()
        if self.route_error is not None:
            raise self.route_error
        self.routed += sorted(str(named.address) for named in addresses)

    def note_failure(self) -> None:
        self.failures += 1

    async def dial(self, _server: str) -> socket.socket:
        if self.dial_error is not None:
            raise self.dial_error
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM)

    @property
    def stub(self) -> Asker:
        return Asker("127.0.0.1", self.port)

    def forwarder(self, servers: Sequence[FakeServer]) -> Forwarder:
        udp, tcp = socket_pair()
        self.port = udp.getsockname()[1]
        cluster = ClusterDns(
            zone=Zone.of("cluster.local", "ns"),
            known=lambda: self.known,
            confirm=self.confirmed.append,
            nameserver=ClusterNameserver("127.0.0.1", self.kube.port),
            up=lambda: self.up,
            inside=lambda address: address in ROUTED,
            route=self.route,
            failed=self.note_failure,
        )
        order = [("127.0.0.1", server.port) for server in servers]
        former = FormerResolver(
            {server: connected_sockets(server, self.upstream_sockets) for server in order},
            self.dial,
            here=[("127.0.0.1", server.port) for server in self.here],
        )
        listening = [(udp, tcp, None), *self.others]
        self.made = Forwarder(listening, cluster=cluster, former=former, answers=self.answers)
        return self.made


def connected_sockets(server: tuple[str, int], count: int) -> list[socket.socket]:
    """UDP sockets as the helper passes them: connected to one server each."""
    sockets = [udp_socket() for _ in range(count)]
    for sock in sockets:
        sock.connect(server)
    return sockets


@asynccontextmanager
async def connected(laptop: Laptop) -> AsyncIterator[Laptop]:
    """*laptop* with its servers and forwarder running; nothing of it is left afterwards."""
    async with AsyncExitStack() as stack:
        if laptop.kube_gone:
            with udp_socket() as free:
                laptop.kube.port = free.getsockname()[1]
        else:
            await stack.enter_async_context(laptop.kube.running())
        servers = laptop.servers or [laptop.world]
        for server in servers:
            if not server.port:  # else the test runs it
                await stack.enter_async_context(server.running())
        async with asyncio.TaskGroup() as group:
            laptop.running = group.create_task(laptop.forwarder(servers).run())
            try:
                yield laptop
            finally:
                assert not laptop.running.done(), "the forwarder never ends by itself"
                laptop.running.cancel()


@pytest.fixture
def _unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows ten times as long: a test about who is asked must not depend on how busy the machine is."""
    for window in ("CLUSTER_WINDOW", "PAIR_HEAD_START"):
        monkeypatch.setattr(policy, window, 10 * getattr(policy, window))
    monkeypatch.setattr(forwarder, "NEGATIVE_WINDOW", 10 * policy.NEGATIVE_WINDOW)


@pytest.fixture
async def laptop(_unhurried: None) -> AsyncIterator[Laptop]:
    """The usual one; tests about windows make their own."""
    async with connected(Laptop()) as running:
        yield running
