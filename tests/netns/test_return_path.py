"""The end of the return path, on a real device with the real helper: packet filters, and programs on ::1 only."""

import asyncio
import functools
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Network

import pytest

from meshdev.config import gateway_of
from meshdev.session.local import LocalPorts, LocalTarget
from meshdev.session.return_path import Acceptor, accepting
from meshdev.tun.device import TunDevice
from meshdev.wire.helper.requests import RelayTarget
from tests.netns.cluster import POD, Cluster, running
from tests.netns.helpers import ADDRESS, helper
from tests.netns.laptop import Laptop
from tests.netns.relayed import TCP, UDP, Session, allow, call, claimed_up, connected, control, datagrams
from tests.waiting import until

GATEWAY = gateway_of(ADDRESS)
RELAY = 20001

#: What a distribution's firewall looks like.
FILTER = """
add table inet filter
add chain inet filter input { type filter hook input priority filter; policy drop; }
add rule inet filter input ct state established,related accept
add rule inet filter input iifname "lo" accept
"""


@dataclass
class Probe:
    """A device that nobody reads, and what a relay leads to."""

    acceptor: Acceptor
    device: TunDevice

    async def open(self) -> bool:
        assert GATEWAY is not None
        with nobody():
            return await self.acceptor.passes(self.device.queues[0], GATEWAY, ADDRESS, RELAY)


@contextmanager
def nobody() -> Iterator[None]:
    """As another user, with no capability, as a session is."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@asynccontextmanager
async def probing(laptop: Laptop) -> AsyncIterator[Probe]:
    """The helper leads the relay to an acceptor. To be used inside of the laptop's network."""
    assert GATEWAY is not None
    async with AsyncExitStack() as undo:
        connection = await undo.enter_async_context(helper(laptop))
        with nobody():
            made = await undo.enter_async_context(accepting())
        connection.device = device = await connection.client.open_tun(2)
        await connection.client.set_address(ADDRESS, 1450)
        await connection.client.set_routes([IPv4Network(GATEWAY)])
        target = made.target
        await connection.client.set_relays([RelayTarget(RELAY, "tcp", target.address, target.port)])
        yield Probe(made, device)


def nft(laptop: Laptop, rules: str) -> None:
    laptop.run("sh", "-c", f"nft -f - <<'END'\n{rules}\nEND")


async def test_an_open_machine_lets_in(laptop: Laptop) -> None:
    with laptop.inside():
        async with probing(laptop) as probe:
            for _ in range(3):
                began = time.perf_counter()
                assert await probe.open()
                print(f"let in after {(time.perf_counter() - began) * 1e3:.1f} ms")
            # Nothing was answered to the cluster.
            with pytest.raises(BlockingIOError):
                read(probe.device)
            _, writer = await asyncio.open_connection("127.0.0.1", probe.acceptor.target.port)
            writer.close()
            await until(lambda: probe.acceptor.came == 1)


def read(device: TunDevice) -> None:
    """Raises BlockingIOError when the machine sent no TCP packet to the cluster."""
    for queue in device.queues:
        while True:
            try:
                packet = os.read(queue.fileno(), 1 << 16)[10:]
            except BlockingIOError:
                break
            if packet[0] >> 4 == 4 and packet[9] == 6:
                return
    raise BlockingIOError


async def test_a_packet_filter_that_drops_is_found(laptop: Laptop) -> None:
    with laptop.inside():
        async with probing(laptop) as probe:
            nft(laptop, FILTER)
            began = time.monotonic()
            assert not await probe.open()
            assert time.monotonic() - began < 1.5
            nft(laptop, f'add rule inet filter input iifname "{probe.device.name}" accept')
            assert await probe.open()
            reject = f'add rule inet filter input iifname "{probe.device.name}" reject'
            nft(laptop, f"flush chain inet filter input\n{reject}\nadd rule inet filter input iifname lo accept")
            assert not await probe.open()
            nft(laptop, "delete table inet filter")
            assert await probe.open()


async def test_what_the_helper_leads_nowhere_does_not_come_in(laptop: Laptop) -> None:
    with laptop.inside():
        async with probing(laptop) as probe:
            assert GATEWAY is not None
            assert not await probe.acceptor.passes(probe.device.queues[0], GATEWAY, ADDRESS, RELAY + 1)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with running() as cluster:
        cluster.pod.run("ip", "route", "del", "198.18.0.0/16")
        yield cluster


@asynccontextmanager
async def watched() -> AsyncIterator[dict[str, LocalTarget | None]]:
    """Where the program's ports lead, by transport."""
    ports, found = LocalPorts(), dict[str, LocalTarget | None]()
    running = asyncio.create_task(ports.run())
    for port in (TCP, UDP):
        ports.watch(port.local, port.transport, functools.partial(found.__setitem__, port.transport))
    try:
        yield found
    finally:
        running.cancel()
        await asyncio.wait([running])


async def lead(session: Session, found: dict[str, LocalTarget | None]) -> None:
    pairs = [(relay, found.get(relay.protocol)) for relay in session.relays]
    await session.client.set_relays(
        RelayTarget(relay.relay, relay.protocol, to.address, to.port) for relay, to in pairs if to
    )


def ask(session: Session, cluster: Cluster) -> bytes:
    with call(session, cluster) as sock:
        sock.sendall(b"?")
        return sock.recv(100)


async def test_a_pod_reaches_a_program_on_ipv6_only(laptop: Laptop, cluster: Cluster) -> None:
    with laptop.inside(), control(cluster) as listener:
        async with connected(laptop, cluster) as session, watched() as found:
            claimed_up(listener, up=True)
            await until(lambda: found == {"tcp": None, "udp": None})
            allow(listener, session.udp, POD)
            server = await asyncio.start_server(answer, "::1", TCP.local)
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as echo, datagrams(cluster) as client:
                echo.bind(("::1", UDP.local))
                await until(lambda: all(found.values()))
                await lead(session, found)
                assert await asyncio.to_thread(ask, session, cluster) == b"local ?"
                client.connect((str(session.pool.welcome and session.pool.welcome.pod_address), session.udp.relay))
                client.send(b"datagram")
                words, peer = await asyncio.to_thread(echo.recvfrom, 100)
                echo.sendto(b"re: " + words, peer)
                assert await asyncio.to_thread(client.recv, 100) == b"re: datagram"
            server.close()
            await until(lambda: not any(found.values()))
            server = await asyncio.start_server(answer, "127.0.0.1", TCP.local)
            await until(lambda: found["tcp"] is not None)
            assert found["tcp"] is not None
            assert found["tcp"].port == TCP.local
            await lead(session, found)
            assert await asyncio.to_thread(ask, session, cluster) == b"local ?"
            server.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "127.0.0.1"])
async def test_datagrams_find_back_from_wherever_the_program_listens(
    laptop: Laptop, cluster: Cluster, host: str
) -> None:
    """One that is bound to no address answers from the session's, whatever the datagram was led to."""
    with laptop.inside(), control(cluster) as listener:
        async with connected(laptop, cluster) as session, watched() as found:
            claimed_up(listener, up=True)
            allow(listener, session.udp, POD)
            family = socket.AF_INET6 if host == "::" else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as echo, datagrams(cluster) as client:
                echo.bind((host, UDP.local))
                await until(lambda: found.get("udp"))
                welcome, target = session.pool.welcome, found["udp"]
                assert welcome is not None
                assert target is not None
                address = welcome.address if target.address.is_unspecified else target.address
                await session.client.set_relays([RelayTarget(session.udp.relay, "udp", address, target.port)])
                client.connect((str(welcome.pod_address), session.udp.relay))
                client.send(b"datagram")
                words, peer = await asyncio.to_thread(echo.recvfrom, 100)
                echo.sendto(b"re: " + words, peer)
                assert await asyncio.to_thread(client.recv, 100) == b"re: datagram"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"local " + await reader.read(100))
    writer.close()


UNPRIVILEGED = """
import asyncio, sys
from meshdev.session.local import LocalPorts
from meshdev.session.return_path import accepting

async def main():
    ports, seen = LocalPorts(), asyncio.Queue()
    running = asyncio.create_task(ports.run())
    async with accepting() as made:
        open_ports = [(int(sys.argv[1]), "tcp"), (made.target.port, "tcp"), (int(sys.argv[2]), "udp")]
        for number, transport in open_ports:
            ports.watch(number, transport, seen.put_nowait)
        for _ in open_ports:
            print(await seen.get() is not None)
        running.cancel()

asyncio.run(main())
"""


async def test_it_takes_no_privilege_and_other_networks_do_not_count(laptop: Laptop) -> None:
    with laptop.inside(neighbour=True):
        far = socket.create_server(("0.0.0.0", 0))
    with laptop.inside():
        near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        near.bind(("127.0.0.1", 0))
    with far, near:
        ports = [str(sock.getsockname()[1]) for sock in (far, near)]
        nobody = ("setpriv", "--reuid=65534", "--clear-groups", "--bounding-set=-all", "--")
        output = laptop.run(*nobody, sys.executable, "-I", "-c", UNPRIVILEGED, *ports)
    assert output.split() == ["False", "True", "True"]
