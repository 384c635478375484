"""The whole way: a laptop's TUN device, the pool, the manager's process, a pod; and carriers that fail meanwhile."""

import asyncio
import hashlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import pytest

from meshdev.config import SILENCE_SECONDS
from tests.netns.carried import Carried
from tests.netns.cluster import MANAGER, POD, Cluster, running
from tests.netns.laptop import Laptop
from tests.waiting import until

PORT: Final = 5001
MEGABYTE: Final = 1 << 20


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with running() as cluster:
        yield cluster


@contextmanager
def echo_server(cluster: Cluster) -> Iterator[list[str]]:
    """Echoes TCP and UDP in the pod until the block ends; the addresses that TCP clients came from."""
    peers: list[str] = []
    with cluster.pod.inside():
        listener = socket.create_server((str(POD), PORT))
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind((str(POD), PORT))

    def echo(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while data := connection.recv(MEGABYTE):
                connection.sendall(data)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, peer = listener.accept()
                peers.append(peer[0])
                threading.Thread(target=echo, args=(connection,), daemon=True).start()

    def answer() -> None:
        with suppress(OSError):
            while True:
                data, peer = datagrams.recvfrom(1 << 16)
                if not data:
                    return
                datagrams.sendto(data, peer)

    threads = [threading.Thread(target=work) for work in (accept, answer)]
    for thread in threads:
        thread.start()
    try:
        yield peers
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        with cluster.pod.inside(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stop:
            stop.sendto(b"", (str(POD), PORT))
        for thread in threads:
            thread.join(10)
        listener.close()
        datagrams.close()


def client(laptop: Laptop) -> socket.socket:
    with laptop.inside():
        sock = socket.socket()
    sock.settimeout(20)
    sock.connect((str(POD), PORT))
    return sock


def echoed(sock: socket.socket, size: int) -> bool:
    """Whether *size* random bytes come back as they were sent."""
    data = os.urandom(size)
    sender = threading.Thread(target=sock.sendall, args=(data,))
    sender.start()
    digest, left = hashlib.sha256(), size
    while left:
        piece = sock.recv(min(left, MEGABYTE))
        assert piece, "the connection ended"
        digest.update(piece)
        left -= len(piece)
    sender.join()
    return digest.digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize("carriers", [1, 2, 8])
async def test_tcp_udp_and_ping(laptop: Laptop, cluster: Cluster, carriers: int) -> None:
    carried = Carried(laptop, cluster, carriers)
    with echo_server(cluster) as peers:
        async with carried.up():
            with await asyncio.to_thread(client, laptop) as sock:
                assert await asyncio.to_thread(echoed, sock, 20 * MEGABYTE)
            assert await asyncio.to_thread(datagram, laptop, 4000) == 4000
            assert await asyncio.to_thread(datagram, laptop, 60_000) == 60_000
            output = await asyncio.to_thread(laptop.run, "ping", "-c", "3", "-i", "0.01", "-W", "5", str(POD))
            assert "3 received" in output
            assert carried.pool.carriers()[0].rtt_ms is not None
    assert set(peers) == {str(MANAGER)}
    assert laptop.run("ip", "-o", "link").count("meshdev") == 0


def datagram(laptop: Laptop, size: int) -> int:
    """Bytes of a datagram of *size* that came back."""
    with laptop.inside():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        sock.settimeout(10)
        data = os.urandom(size)
        sock.sendto(data, (str(POD), PORT))
        back = sock.recv(1 << 16)
    return len(back) if back == data else -1


async def test_a_closed_port_is_refused_and_half_close_is_kept(laptop: Laptop, cluster: Cluster) -> None:
    carried = Carried(laptop, cluster)

    def refused() -> bool:
        with laptop.inside(), suppress(ConnectionRefusedError):
            socket.create_connection((str(POD), 1), timeout=10).close()
            return False
        return True

    def half_closed() -> bytes:
        with client(laptop) as sock:
            sock.sendall(b"last words")
            sock.shutdown(socket.SHUT_WR)
            data = b""
            while piece := sock.recv(100):
                data += piece
            return data

    with echo_server(cluster):
        async with carried.up():
            assert await asyncio.to_thread(refused)
            assert await asyncio.to_thread(half_closed) == b"last words"


class Talk:
    """Connections that echo small pieces all the time; each step of each is counted."""

    def __init__(self, laptop: Laptop, count: int) -> None:
        self._sockets = [client(laptop) for _ in range(count)]
        self.steps = [0] * count
        self.errors: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(index,)) for index in range(count)]
        for thread in self._threads:
            thread.start()

    def _work(self, index: int) -> None:
        try:
            while not self._stop.is_set():
                assert echoed(self._sockets[index], 3000)
                self.steps[index] += 1
        except (OSError, AssertionError) as error:
            self.errors.append(repr(error))

    async def goes_on(self, enough: int = 20) -> None:
        """Wait until each has made some steps from now."""
        wanted = [steps + enough for steps in self.steps]
        await until(lambda: self.errors or all(a >= b for a, b in zip(self.steps, wanted, strict=True)))
        assert self.errors == []

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
        for sock in self._sockets:
            sock.close()


async def test_connections_outlive_a_killed_carrier(laptop: Laptop, cluster: Cluster) -> None:
    carried = Carried(laptop, cluster)
    with echo_server(cluster):
        async with carried.up():
            talk = await asyncio.to_thread(Talk, laptop, 6)
            for _ in range(3):
                await talk.goes_on()
                known = len(carried.dialled)
                carried.dialled[-1].shutdown(socket.SHUT_RDWR)
                await talk.goes_on()
                await until(lambda known=known: len(carried.dialled) > known)  # type: ignore[misc]  # its default has no type
                await carried.all_up()
            await talk.goes_on()
            await asyncio.to_thread(talk.close)
            assert talk.errors == []
            assert len(carried.welcomes) == 1


async def test_connections_outlive_a_carrier_in_a_black_hole(laptop: Laptop, cluster: Cluster) -> None:
    """Its packets are dropped in both directions: neither end hears of it."""
    carried = Carried(laptop, cluster)
    with echo_server(cluster):
        async with carried.up():
            talk = await asyncio.to_thread(Talk, laptop, 6)
            await talk.goes_on()
            port = str(carried.dialled[-1].getsockname()[1])
            nft = cluster.manager.run
            nft("nft", "add table inet hole; add chain inet hole in { type filter hook input priority 0; }")
            nft(
                "nft",
                f"add rule inet hole in iif lo tcp sport {port} drop; add rule inet hole in tcp dport {port} drop",
            )
            begun = time.monotonic()
            await until(lambda: len(carried.dialled) == 3)
            assert time.monotonic() - begun < SILENCE_SECONDS  # the other carrier was alive: no need to wait that long
            await carried.all_up()
            await talk.goes_on()
            await asyncio.to_thread(talk.close)
            assert talk.errors == []
            assert len(carried.welcomes) == 1


async def test_a_new_manager_is_found_with_the_same_address(laptop: Laptop, cluster: Cluster) -> None:
    carried = Carried(laptop, cluster)
    with echo_server(cluster):
        async with carried.up():
            assert await asyncio.to_thread(datagram, laptop, 100) == 100
            assert await asyncio.to_thread(cluster.stop_manager) == 0
            await until(lambda: not carried.pool.connected())
            await asyncio.to_thread(cluster.start_manager)
            await carried.all_up()
            with await asyncio.to_thread(client, laptop) as sock:
                assert await asyncio.to_thread(echoed, sock, MEGABYTE)
            assert len(carried.welcomes) == 1
