"""Virtio-net headers on real TUN devices: what kernels make passes, what a hostile peer makes does no harm."""

import asyncio
import os
import random
import socket
import struct
from collections.abc import Iterator
from contextlib import closing
from ipaddress import IPv4Address

import pytest

from meshdev.tun.linux import open_tun
from meshdev.tun.offload import gso_types, is_sound
from tests.manager.standin import hello
from tests.netns.bare_session import PORT, Session, arrives_alone, syn, udp
from tests.netns.carried import Carried
from tests.netns.cluster import POD, Cluster, running
from tests.netns.laptop import Laptop
from tests.netns.test_tunnel import MEGABYTE, client, echo_server, echoed

_UDP_SEGMENT = 103  # linux/udp.h
_OTHER_PORT = 5002
PIECES = [bytes([number]) * 1000 for number in range(40)]
_KINDS = (0, 1, 3, 4, 5, 0x80, 0x81, 0x84, 0x85, 0xFF)


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with running() as cluster:
        yield cluster


def hostile(dice: random.Random, packet: bytes) -> bytes:
    """*packet* with another header: nearly right ones, and noise."""
    near = (0, 1, 6, 8, 16, 18, 20, 28, 40, 52, 1398, len(packet) - 10, len(packet), 0xFFFF)

    def field() -> int:
        return dice.choice(near) if dice.random() < 0.8 else dice.randrange(1 << 16)

    flags, kind = dice.choice((0, 1, 1, 2, 3, 4, 255)), dice.choice(_KINDS)
    return struct.pack("<BBHHHH", flags, kind, *(field() for _ in range(4))) + packet[10:]


def bulk(source: IPv4Address, size: int) -> bytes:
    return syn(source, POD, PORT) + os.urandom(size)


@pytest.mark.parametrize("seed", range(3))
def test_a_hostile_sessions_headers_do_no_harm(cluster: Cluster, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 -- to be repeated
    session = Session(cluster, hello("eve"))
    try:
        honest = [udp(session.address, POD, b"x" * 400), syn(session.address, POD, 1), bulk(session.address, 60_000)]
        for _ in range(10):
            session.packets(*(hostile(dice, dice.choice(honest)) for _ in range(200)))
            session.received()
        other = Session(cluster, hello("ann"))
        try:
            arrives_alone(cluster, other, bytes(10) + b"\xff" * 40)
        finally:
            other.close()
    finally:
        session.close()
    assert cluster.stop_manager() == 0, "it drains in order: its loop is alive"
    assert "malformed" in cluster.output


def test_what_passes_the_check_is_taken_by_the_kernel(laptop: Laptop) -> None:
    dice = random.Random(7)  # noqa: S311 -- to be repeated
    source = IPv4Address("10.1.2.3")
    with laptop.inside(), closing(open_tun(1)) as device:
        laptop.run("ip", "addr", "add", f"{POD}/32", "dev", device.name)
        laptop.run("ip", "link", "set", device.name, "up")
        honest = [udp(source, POD, b"x" * 400), syn(source, POD, 1), bulk(source, 60_000)]
        allowed, taken = gso_types(device.offload), 0
        for _ in range(20_000):
            packet = hostile(dice, dice.choice(honest))
            if is_sound(memoryview(packet), allowed):
                taken += 1
                assert os.write(device.queues[0].fileno(), packet) == len(packet)
        assert taken > 500, "the dice are good enough"


async def test_what_this_kernel_makes_passes_both_ends(laptop: Laptop, cluster: Cluster) -> None:
    """TCP in bulk both ways, with ECN, datagrams that the kernel cuts (UDP GSO), fragments, small things."""
    for namespace in (laptop, cluster.pod):
        namespace.run("sysctl", "-qw", "net.ipv4.tcp_ecn=1")
    carried = Carried(laptop, cluster)
    with echo_server(cluster):
        async with carried.up():
            with await asyncio.to_thread(client, laptop) as sock:
                assert await asyncio.to_thread(echoed, sock, 20 * MEGABYTE)
            assert await asyncio.to_thread(datagrams, laptop, cluster) == PIECES
            await asyncio.to_thread(laptop.run, "ping", "-c", "2", "-s", "20000", "-i", "0.01", "-W", "5", str(POD))
            malformed = [carrier.counters.malformed for carrier in carried.pool._carriers.values()]
    assert malformed == [0, 0]
    assert cluster.stop_manager() == 0
    assert "malformed" not in cluster.output


def datagrams(laptop: Laptop, cluster: Cluster) -> list[bytes]:
    """What arrives of 40 datagrams that are sent in one piece."""
    with cluster.pod.inside():
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with laptop.inside():
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with server, sender:
        server.bind((str(POD), _OTHER_PORT))
        server.settimeout(10)
        sender.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, 1000)
        sender.sendto(b"".join(PIECES), (str(POD), _OTHER_PORT))
        return [server.recv(2000) for _ in range(40)]
