"""Containers of the laptop (a namespace behind a bridge) reach cluster names and addresses, and neighbours do not."""

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from ipaddress import IPv4Address

import pytest

from meshdev.session.helper_client import ForwarderSockets
from meshdev.tun.offload import PACKET_LIMIT, VNET_HEADER_LENGTH
from meshdev.wire.helper.limits import BEAT_LIMIT_SECONDS
from tests.netns.helpers import ADDRESS, Connection, helper
from tests.netns.laptop import ADDRESS as OWN
from tests.netns.laptop import GATEWAY, RESOLV_CONF, Laptop
from tests.netns.packets import datagram
from tests.netns.resolver import Resolver, ask_tcp, ask_udp, listening
from tests.waiting import until

_CLUSTER = "10.96.0.9"
_CONTAINER = "172.17.0.2"


@pytest.fixture
def container(laptop: Laptop) -> Iterator[None]:
    """A container behind a bridge, made as Docker makes them; the laptop forwards."""
    with laptop.container(_CONTAINER, "172.17.0.1/16"):
        yield


@contextlib.contextmanager
def _names(sockets: ForwarderSockets) -> Iterator[None]:
    """A stand-in for the forwarder at the containers' listener."""
    (listener,) = [listener for listener in sockets.listeners if listener.at.address == ADDRESS]
    listener.udp.setblocking(True)
    listener.tcp.setblocking(True)
    resolver = Resolver("forwarder", listener.udp.dup(), listener.tcp.dup())
    try:
        yield
    finally:
        resolver.close()


@contextlib.contextmanager
def _former(laptop: Laptop) -> Iterator[None]:
    with laptop.inside(neighbour=True):
        resolver = Resolver("former", *listening(GATEWAY))
    try:
        yield
    finally:
        resolver.close()


def _udp(laptop: Laptop, who: str = "container") -> socket.socket:
    with laptop.inside(container=who == "container", neighbour=who == "neighbour"):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(0.5)
    return sock


def _tcp(laptop: Laptop) -> socket.socket:
    with laptop.inside(container=True):
        return socket.socket()


def _arrived(connection: Connection) -> tuple[str, str, int] | None:
    """Source, destination and source port of the first UDP packet that comes out at the session's end."""
    assert connection.device is not None
    for queue in connection.device.queues:
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = os.read(queue.fileno(), VNET_HEADER_LENGTH + PACKET_LIMIT)[VNET_HEADER_LENGTH:]
                if packet[9] == socket.IPPROTO_UDP:
                    source, target = map(socket.inet_ntoa, (packet[12:16], packet[16:20]))
                    return source, target, struct.unpack(">H", packet[20:22])[0]
    return None


async def _sent(connection: Connection) -> tuple[str, str, int]:
    found: list[tuple[str, str, int]] = []

    def look() -> bool:
        if packet := _arrived(connection):
            found.append(packet)
        return bool(found)

    await until(look)
    return found[0]


@pytest.mark.usefixtures("container")
async def test_an_address_of_the_cluster(laptop: Laptop) -> None:
    async with helper(laptop) as connection:
        await connection.set_up()
        assert connection.sockets is not None
        assert connection.sockets.containers is None
        assert connection.device is not None
        with _udp(laptop) as sock:
            sock.sendto(b"question", (_CLUSTER, 9090))
            source, target, port = await _sent(connection)
            assert (source, target) == (str(ADDRESS), _CLUSTER)
            os.writev(connection.device.queues[0].fileno(), [datagram(_CLUSTER, 9090, port)])
            assert sock.recv(100) == b"hello"
            # Nothing but the answer comes in, to the container and to the address of the machine.
            for peer in (("10.96.0.10", 9090), (_CLUSTER, 9091)):
                os.writev(connection.device.queues[0].fileno(), [datagram(*peer, port)])
                with pytest.raises(TimeoutError):
                    sock.recv(100)
            os.writev(connection.device.queues[0].fileno(), [datagram(_CLUSTER, 9090, port, _CONTAINER)])
            with pytest.raises(TimeoutError):
                sock.recv(100)


@pytest.mark.usefixtures("container")
async def test_names(laptop: Laptop) -> None:
    laptop.neighbour("ip", "route", "add", "172.17.0.0/16", "via", OWN)
    with _former(laptop), _udp(laptop) as old:
        assert await asyncio.to_thread(ask_udp, old, GATEWAY) == "former"
        async with helper(laptop) as connection:
            await connection.set_up()
            assert connection.sockets is not None
            with _names(connection.sockets), _udp(laptop) as sock:
                for each in (sock, old):  # the old one's flow was tracked before
                    assert await asyncio.to_thread(ask_udp, each, GATEWAY) == "forwarder"
                assert await asyncio.to_thread(ask_tcp, _tcp(laptop), GATEWAY) == "forwarder"
                # A container that was started meanwhile has our address from systemd-resolved's list.
                assert await asyncio.to_thread(ask_udp, sock, str(ADDRESS)) == "forwarder"
                assert await asyncio.to_thread(ask_udp, sock, "192.0.2.99", 0.2) == "nobody"
            # A session that hangs loses the containers' questions, too.
            await until(lambda: ask_udp(old, GATEWAY, 0.2) == "former", BEAT_LIMIT_SECONDS + 0.7)
            await connection.client.heartbeat()
            last = _udp(laptop)
            with _names(connection.sockets):
                assert await asyncio.to_thread(ask_udp, last, GATEWAY) == "forwarder"
        with last:
            assert await asyncio.to_thread(ask_udp, last, GATEWAY) == "former"


@pytest.mark.usefixtures("container")
async def test_dockers_own_choice_of_servers(laptop: Laptop) -> None:
    """Where the machine's servers are on its loopback Docker writes 8.8.8.8 into its containers' resolv.conf."""
    laptop.run("sh", "-c", "printf 'nameserver 127.0.0.1\\n' > /etc/resolv.conf")
    async with helper(laptop) as connection:
        await connection.set_up()
        assert connection.sockets is not None
        with _names(connection.sockets), _udp(laptop) as sock:
            assert await asyncio.to_thread(ask_udp, sock, "8.8.8.8") == "forwarder"


async def test_a_container_that_comes_later(laptop: Laptop) -> None:
    async with helper(laptop) as connection:
        await connection.set_up()
        assert connection.sockets is not None
        with laptop.container(_CONTAINER, "172.17.0.1/16"), _names(connection.sockets), _udp(laptop) as sock:
            await connection.client.heartbeat()
            assert await asyncio.to_thread(ask_udp, sock, GATEWAY) == "forwarder"
            sock.sendto(b"question", (_CLUSTER, 9090))
            assert (await _sent(connection))[:2] == (str(ADDRESS), _CLUSTER)


@pytest.mark.usefixtures("container")
async def test_another_address(laptop: Laptop) -> None:
    async with helper(laptop) as connection:
        await connection.set_up()
        moved = IPv4Address("198.18.0.9")
        await connection.client.set_address(moved, 1450)
        await connection.client.set_routes([])
        fresh = await connection.client.dns_sockets(connection.greeting.nameservers)
        assert [listener.at.address for listener in fresh.listeners][-1] == moved
        fresh.close()
        await connection.client.heartbeat()
        rules = laptop.run("nft", "list", "table", "inet", "meshdev_0")
        assert f"dnat ip to {moved}:" in rules
        assert str(ADDRESS) not in rules


@pytest.mark.usefixtures("container")
async def test_a_neighbour_gets_nothing(laptop: Laptop) -> None:
    """One who uses the laptop as its router, and even bears a container's address."""
    laptop.neighbour("ip", "route", "add", "10.96.0.0/16", "via", OWN)
    laptop.neighbour("ip", "route", "add", "198.51.100.53", "via", OWN)
    laptop.neighbour("ip", "addr", "add", "172.17.0.77/32", "dev", "lo")
    laptop.run("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.cable.rp_filter=0")
    laptop.run("sh", "-c", "printf 'nameserver 198.51.100.53\\n' > /etc/resolv.conf")
    # A hotspot: the laptop masquerades for everybody.
    laptop.run("nft", "add table ip nat; add chain ip nat post { type nat hook postrouting priority 100; }")
    laptop.run("nft", "add rule ip nat post masquerade")
    async with helper(laptop) as connection:
        await connection.set_up()
        assert connection.sockets is not None
        port = connection.sockets.listeners[-1].at.port
        laptop.route_to_session(ADDRESS)
        with _names(connection.sockets), _udp(laptop, "neighbour") as sock, _udp(laptop, "neighbour") as forged:
            forged.bind(("172.17.0.77", 0))
            for each in (sock, forged):
                each.sendto(b"question", (_CLUSTER, 9090))
                assert await asyncio.to_thread(ask_udp, each, "198.51.100.53", 0.3) == "nobody"
                each.sendto(b"question", (str(ADDRESS), port))
            with _udp(laptop) as sign:  # what was sent before it has been dealt with
                sign.sendto(b"question", ("10.96.0.77", 9090))
                assert (await _sent(connection))[:2] == (str(ADDRESS), "10.96.0.77")


@pytest.mark.usefixtures("container")
async def test_the_reason_why_not(laptop: Laptop) -> None:
    laptop.run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    async with helper(laptop) as connection:
        await connection.set_up()
        assert connection.sockets is not None
        assert "docker0" in str(connection.sockets.containers)
        assert "does not forward" in str(connection.sockets.containers)
    laptop.run("sh", "-c", f"printf '{RESOLV_CONF}' > /etc/resolv.conf")


@contextlib.contextmanager
def _table_of_another_owner(laptop: Laptop) -> Iterator[None]:
    """A table of our name that we may not touch."""
    command = laptop.command("nft", "--interactive")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as other:
        assert other.stdin is not None
        other.stdin.write(b"add table inet meshdev_0 { flags owner; }\n")
        other.stdin.flush()
        while "meshdev_0" not in laptop.run("nft", "list", "tables"):
            assert other.poll() is None
        try:
            yield
        finally:
            other.kill()


@pytest.mark.usefixtures("container")
async def test_without_a_guard_there_is_no_listener_for_neighbours(laptop: Laptop) -> None:
    """The packet filter is there and refuses: what every network of this machine could reach is not opened."""
    async with helper(laptop) as connection:
        connection.device = await connection.client.open_tun(1, unguarded=True)
        with _table_of_another_owner(laptop):
            answer = await connection.client.set_address(ADDRESS, 1450)
            connection.sockets = await connection.client.dns_sockets(connection.greeting.nameservers)
        assert not answer.guard
        assert [str(listener.at.address) for listener in connection.sockets.listeners] == ["127.0.0.1"]
        assert "docker0" in str(connection.sockets.containers)


@pytest.mark.usefixtures("container")
async def test_nothing_is_left(laptop: Laptop) -> None:
    before = laptop.snapshot()
    async with helper(laptop) as connection:
        await connection.set_up()
        assert "docker0" in laptop.run("nft", "list", "table", "inet", "meshdev_0")
    assert laptop.snapshot() == before
