"""A laptop's end on a real TUN device, with plain TCP to the manager's loopback in place of a port-forward."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from meshdev.config import ADDRESS_POOLS, TUNNEL_PORT
from meshdev.errors import PortForwardError
from meshdev.pump.transport import SocketTransport
from meshdev.tun.linux import open_tun
from meshdev.tunnel.pool import Pool
from meshdev.wire.control import Hello, Welcome
from meshdev.wire.framing import PlainFraming
from tests.netns.cluster import Cluster
from tests.netns.laptop import Laptop
from tests.tunnel.standin import Connection
from tests.waiting import until

ROUTED = ("10.244.0.0/24", "169.254.169.254/32")


async def _connect(cluster: Cluster) -> socket.socket:
    with cluster.manager.inside():
        sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", TUNNEL_PORT))
    except OSError as error:
        sock.close()
        raise PortForwardError(str(error)) from error
    return sock


async def dial_plain(cluster: Cluster) -> Connection:
    """A carrier to the manager's loopback."""
    return Connection(SocketTransport(await _connect(cluster)), PlainFraming())


class Carried:
    """A session: the laptop's device, the pool, and the sockets of its carriers in the order they were dialled."""

    def __init__(self, laptop: Laptop, cluster: Cluster, carriers: int = 2) -> None:
        self.laptop = laptop
        self.cluster = cluster
        self.dialled: list[socket.socket] = []
        self.welcomes: list[Welcome] = []
        with laptop.inside():
            self.device = open_tun(carriers)
        hello = Hello(
            oldest=1,
            newest=1,
            session="a" * 32,
            secret="b" * 32,
            holder="ann@laptop",
            offload=self.device.offload,
            pools=ADDRESS_POOLS,
        )
        self.pool = Pool(self.device.queues, self._dial, hello, self._configure)

    async def _dial(self) -> Connection:
        sock = await _connect(self.cluster)
        self.dialled.append(sock)
        return Connection(SocketTransport(sock), PlainFraming())

    async def _configure(self, welcome: Welcome) -> None:
        self.welcomes.append(welcome)
        name, run = self.device.name, self.laptop.run
        run("ip", "addr", "flush", "dev", name)
        run("ip", "addr", "add", f"{welcome.address}/32", "dev", name)
        run("ip", "link", "set", name, "up", "mtu", str(welcome.mtu), "txqueuelen", "1000")
        for network in ROUTED:
            run("ip", "route", "replace", network, "dev", name, "src", str(welcome.address))

    @asynccontextmanager
    async def up(self) -> AsyncIterator[None]:
        """Every carrier is up inside."""
        try:
            async with self.pool.running():
                await self.pool.start()
                task = asyncio.create_task(self.pool.run())
                try:
                    await self.all_up()
                    yield
                finally:
                    task.cancel()
                    await asyncio.wait([task])
        finally:
            self.device.close()

    async def all_up(self) -> None:
        """Wait for it."""
        wanted = len(self.device.queues)
        await until(lambda: sum(carrier.up for carrier in self.pool.carriers()) == wanted)
