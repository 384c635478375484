"""A manager's relays from both ends: a pod that calls, a laptop that is connected; the test plays *control*."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from meshdev.config import ADDRESS_POOLS, OLDEST_PROTOCOL, PROTOCOL, RELAY_UID, gateway_of
from meshdev.intercept import spec as specs
from meshdev.intercept.spec import Port, Spec
from meshdev.session.helper_client import HelperClient
from meshdev.tunnel.pool import Pool
from meshdev.wire.control import Hello, Welcome
from meshdev.wire.helper.requests import RelayTarget
from meshdev.wire.intercepts import AttestedAgent, Relay, Relays, Report
from meshdev.wire.manager import Allow, Claimed
from meshdev.wire.modes import PROXY
from tests.manager.claims import Listener, spec
from tests.netns.carried import dial_plain
from tests.netns.cluster import POD, Cluster
from tests.netns.helpers import helper
from tests.netns.laptop import Laptop
from tests.waiting import until

LOCALHOST = IPv4Address("127.0.0.1")
TCP, UDP = Port(8080, "tcp", 3000), Port(9090, "udp", 3001)
B = spec("b", TCP, UDP, mode=PROXY)


def control(cluster: Cluster) -> Listener:
    """Connected to the manager's socket, which lies in its own mount namespace."""
    return Listener(Path(f"/proc/{cluster.manager_pid}/root/run/meshdev"))


def allow(listener: Listener, relay: Relay, *addresses: IPv4Address) -> None:
    listener.say(Allow(relay.relay, addresses, False))


def claimed_up(listener: Listener, *, up: bool) -> Claimed:
    """Wait until a claim is told with that state of its ports."""
    while True:
        claim = listener.claimed()
        if bool(claim.up) == up:
            return claim


def call(session: "Session", cluster: Cluster, relay: Relay | None = None, seconds: float = 5) -> socket.socket:
    """A TCP connection of the relay process."""
    return dial(cluster, RELAY_UID, session.address, (relay or session.tcp).relay, seconds)


def dial(cluster: Cluster, user: int, address: IPv4Address, port: int, seconds: float = 5) -> socket.socket:
    """A TCP connection of a process of that user in the manager's pod."""
    with cluster.manager.inside(user):
        sock = socket.socket()
    sock.settimeout(seconds)
    try:
        sock.connect((str(address), port))
    except BaseException:
        sock.close()
        raise
    return sock


@contextmanager
def datagrams(cluster: Cluster, source: IPv4Address = POD) -> Iterator[socket.socket]:
    """A UDP socket of a pod."""
    with cluster.pod.inside():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        sock.settimeout(5)
        sock.bind((str(source), 0))
        yield sock


@dataclass
class Session:
    """A laptop that is connected, with the helper's device and one intercept."""

    client: HelperClient
    pool: Pool
    running: asyncio.Task[None]
    heard: list[Relays | Report]
    address: IPv4Address
    claim: Spec
    relays: tuple[Relay, ...]

    @property
    def tcp(self) -> Relay:
        return next(relay for relay in self.relays if relay.protocol == "tcp")

    @property
    def udp(self) -> Relay:
        return next(relay for relay in self.relays if relay.protocol == "udp")

    def local(self, up: bool) -> None:
        """What the session sees of its program."""
        for port in self.claim.ports:
            self.pool.claims.local(self.claim.id, port.remote, port.transport, up)

    async def lead(self, address: IPv4Address = LOCALHOST) -> None:
        ports = {(port.remote, port.transport): port.local for port in self.claim.ports}
        await self.client.set_relays(
            RelayTarget(one.relay, one.protocol, address, ports[one.remote, one.protocol]) for one in self.relays
        )


@asynccontextmanager
async def connected(
    laptop: Laptop, cluster: Cluster, claim: Spec = B, *agents: AttestedAgent
) -> AsyncIterator[Session]:
    heard: list[Relays | Report] = []
    async with helper(laptop) as connection:
        client = connection.client
        connection.device = device = await client.open_tun(2)

        async def configure(welcome: Welcome) -> None:
            await client.set_address(welcome.address, welcome.mtu)
            gateway = gateway_of(welcome.address)
            assert gateway is not None
            await client.set_routes([IPv4Network(gateway), IPv4Network("10.244.0.0/24")])

        hello = Hello(OLDEST_PROTOCOL, PROTOCOL, "a" * 32, "b" * 32, "ann@laptop", device.offload, ADDRESS_POOLS)
        pool = Pool(device.queues, lambda: dial_plain(cluster), hello, configure)
        pool.claims.listen(claim.id, heard.append)
        async with pool.running():
            welcome = await pool.start()
            task = asyncio.create_task(pool.run())
            pool.claims.declare(claim.id, specs.encode(claim))
            pool.claims.agents(claim.id, agents)
            await until(lambda: any(isinstance(one, Relays) for one in heard))
            answer = next(one for one in heard if isinstance(one, Relays))
            assert answer.error is None
            session = Session(client, pool, task, heard, welcome.address, claim, answer.relays)
            session.local(True)
            yield session
            task.cancel()
            await asyncio.wait([task])


@contextmanager
def local_program(laptop: Laptop, address: str = "127.0.0.1") -> Iterator[list[tuple[str, int]]]:
    """Greets by TCP with what it was asked, and echoes UDP; who asked by TCP."""
    peers: list[tuple[str, int]] = []
    with laptop.inside():
        listener = socket.create_server((address, TCP.local))
        echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        echo.bind((address, UDP.local))

    def serve(sock: socket.socket) -> None:
        with sock, suppress(OSError):
            while data := sock.recv(1 << 16):
                sock.sendall(b"local " + data)

    def accept() -> None:
        with suppress(OSError):
            while True:
                sock, peer = listener.accept()
                peers.append(peer)
                threading.Thread(target=serve, args=(sock,), daemon=True).start()

    def answer() -> None:
        with suppress(OSError):
            while data := (got := echo.recvfrom(1 << 16))[0]:
                echo.sendto(b"local " + data, got[1])

    threads = [threading.Thread(target=work) for work in (accept, answer)]
    for thread in threads:
        thread.start()
    try:
        yield peers
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        with laptop.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stop:
            stop.sendto(b"", (address, UDP.local))
        for thread in threads:
            thread.join(10)
        listener.close()
        echo.close()
