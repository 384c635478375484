"""Relays, the whole way: a pod, the manager's process, the tunnel, the laptop's real helper, a local program."""

import asyncio
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Self

import pytest

from meshdev.config import gateway_of
from meshdev.errors import DeviceError, PeerClosed
from meshdev.wire.intercepts import Relay
from meshdev.wire.manager import Seen
from tests.netns.cluster import MANAGER, POD, SECOND_POD, Cluster, running
from tests.netns.helpers import helper
from tests.netns.laptop import Laptop
from tests.netns.relayed import (
    TCP,
    Session,
    allow,
    call,
    claimed_up,
    connected,
    control,
    datagrams,
    local_program,
)
from tests.waiting import until


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with running() as cluster:
        # As a laptop's range must never be routed there: the manager masquerades.
        cluster.pod.run("ip", "route", "del", "198.18.0.0/16")
        yield cluster


async def ask(cluster: Cluster, relay: Relay, words: bytes, source: IPv4Address = POD) -> bytes:
    """What the local program answers a pod by TCP."""

    def asked() -> bytes:
        with call(cluster, relay, source) as sock:
            sock.sendall(words)
            return sock.recv(1 << 16)

    return await asyncio.to_thread(asked)


async def refused(cluster: Cluster, relay: Relay, source: IPv4Address = POD) -> float:
    """Seconds after which a pod was refused."""
    began = time.monotonic()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.to_thread(call, cluster, relay, source)
    return time.monotonic() - began


async def reaches(cluster: Cluster, relay: Relay, source: IPv4Address = POD) -> None:
    """Wait until it does: what control said is on its way."""
    deadline = time.monotonic() + 5
    while True:
        try:
            assert await ask(cluster, relay, b"?", source) == b"local ?"
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
        else:
            return


async def test_a_pod_reaches_the_local_program(laptop: Laptop, cluster: Cluster) -> None:
    with local_program(laptop) as peers, control(cluster) as listener:
        async with connected(laptop, cluster) as session:
            claimed_up(listener, up=True)
            await session.lead()
            allow(listener, session.tcp, POD)
            allow(listener, session.udp, POD)
            await reaches(cluster, session.tcp)
            assert {peer for peer, _ in peers} == {str(gateway_of(session.address))}
            times = []
            for _ in range(50):
                began = time.perf_counter()
                assert await ask(cluster, session.tcp, b"hello") == b"local hello"
                times.append(time.perf_counter() - began)
            print(f"connect, ask and answer through a relay: p50 {sorted(times)[25] * 1e3:.1f} ms")
            with datagrams(cluster) as sock:
                sock.sendto(b"datagram", (str(MANAGER), session.udp.relay))
                assert await asyncio.to_thread(sock.recv, 100) == b"local datagram"
            big = await asyncio.to_thread(_echo_much, cluster, session.tcp)
            assert big == 4 << 20


def _echo_much(cluster: Cluster, relay: Relay) -> int:
    """Bytes of 4 MiB that came back, without the program's own words."""
    with call(cluster, relay, seconds=20) as sock:
        sender = threading.Thread(target=sock.sendall, args=(bytes(4 << 20),))
        sender.start()
        got = 0
        while got < 4 << 20:
            got += sock.recv(1 << 16).count(0)
        sender.join()
    return got


async def test_only_allowed_sources_and_only_relays(laptop: Laptop, cluster: Cluster) -> None:
    with local_program(laptop), control(cluster) as listener:
        async with connected(laptop, cluster) as session:
            await session.lead()
            assert await refused(cluster, session.tcp) < 0.5
            allow(listener, session.tcp, SECOND_POD)
            await reaches(cluster, session.tcp, SECOND_POD)
            await refused(cluster, session.tcp, POD)
            await refused(cluster, Relay(1, "tcp", session.tcp.relay + 5), SECOND_POD)
            allow(listener, session.tcp, POD)
            await reaches(cluster, session.tcp, POD)
            await refused(cluster, session.tcp, SECOND_POD)
            with call(cluster, session.tcp) as sock:
                allow(listener, session.tcp)
                await until(lambda: _is_refused(cluster, session.tcp))
                sock.sendall(b"still here")
                assert await asyncio.to_thread(sock.recv, 100) == b"local still here"


def _is_refused(cluster: Cluster, relay: Relay) -> bool:
    try:
        call(cluster, relay).close()
    except ConnectionRefusedError:
        return True
    return False


async def test_nothing_else_comes_in_at_the_laptop(laptop: Laptop, cluster: Cluster) -> None:
    with local_program(laptop, "0.0.0.0"), control(cluster) as listener:
        async with connected(laptop, cluster) as session:
            await session.lead()
            allow(listener, session.tcp, POD)
            await reaches(cluster, session.tcp)
            # From the manager's own namespace, as if its firewall did not hold.
            ping = ["nsenter", f"--net=/proc/{cluster.manager.pid}/ns/net", "ping", "-c2", "-i0.2", "-W1"]
            done = await asyncio.to_thread(
                subprocess.run, [*ping, str(session.address)], capture_output=True, text=True, check=False
            )
            assert "100% packet loss" in done.stdout, done.stdout + done.stderr
            for port in (TCP.local, 22, session.tcp.relay + 1):
                with cluster.manager.inside():
                    sock = socket.socket()
                with sock:
                    sock.settimeout(0.4)
                    with pytest.raises(TimeoutError):
                        await asyncio.to_thread(sock.connect, (str(session.address), port))
            # And straight to the loopback, which route_localnet alone would open.
            with cluster.manager.inside():
                sock = socket.socket()
            with sock:
                sock.settimeout(0.4)
                await session.client.set_relays([])
                with pytest.raises(TimeoutError):
                    await asyncio.to_thread(sock.connect, (str(session.address), session.tcp.relay))


async def test_the_loopback_is_shut_to_packets_that_are_sent_there(laptop: Laptop, cluster: Cluster) -> None:
    with local_program(laptop):
        async with connected(laptop, cluster) as session:
            await session.lead()
            cluster.manager.run("ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
            cluster.manager.run("ip", "route", "add", "127.0.0.1/32", "dev", "mesh0")
            cluster.manager.run("ip", "route", "flush", "table", "local", "type", "broadcast")
            with cluster.manager.inside():
                sock = socket.socket()
            with sock:
                sock.settimeout(0.4)
                with pytest.raises(OSError, match=r"timed out|unreachable|Invalid"):
                    await asyncio.to_thread(sock.connect, ("127.0.0.1", TCP.local))


async def test_a_stopped_program_refuses_and_another_target_counts_at_once(laptop: Laptop, cluster: Cluster) -> None:
    with control(cluster) as listener:
        async with connected(laptop, cluster) as session:
            await session.lead()
            allow(listener, session.tcp, POD)
            allow(listener, session.udp, POD)
            with local_program(laptop):
                await reaches(cluster, session.tcp)
            times = [await refused(cluster, session.tcp) for _ in range(5)]
            print(f"a stopped program refuses after {min(times) * 1e3:.1f} ms")
            assert min(times) < 0.2
            with local_program(laptop, "127.0.0.9"), datagrams(cluster) as sock:
                sock.sendto(b"nobody", (str(MANAGER), session.udp.relay))
                await session.lead(IPv4Address("127.0.0.9"))
                await reaches(cluster, session.tcp)
                sock.sendto(b"x", (str(MANAGER), session.udp.relay))
                while (heard := await asyncio.to_thread(sock.recv, 100)) != b"local x":
                    assert heard == b"local nobody"  # it was still on its way when the target changed
            with local_program(laptop, "192.0.2.2"):
                await session.lead(IPv4Address("192.0.2.2"))
                await reaches(cluster, session.tcp)


async def test_relays_before_a_device_are_refused(laptop: Laptop) -> None:
    async with helper(laptop) as connection:
        with pytest.raises(DeviceError, match="before open_tun"):
            await connection.client.set_relays([])


async def test_nothing_of_the_relays_is_left_on_the_laptop(laptop: Laptop, cluster: Cluster) -> None:
    before = laptop.snapshot()
    with control(cluster):
        async with connected(laptop, cluster) as session:
            await session.lead()
            assert "relayed" in laptop.run("nft", "list", "ruleset")
            await session.client.close()
    assert laptop.snapshot() == before


async def test_a_withdrawn_and_a_gone_session_leave_nothing_at_the_manager(laptop: Laptop, cluster: Cluster) -> None:
    with local_program(laptop), control(cluster) as listener:
        async with connected(laptop, cluster) as session:
            await session.lead()
            allow(listener, session.tcp, POD)
            await reaches(cluster, session.tcp)
            assert str(session.tcp.relay) in cluster.manager.run("nft", "list", "table", "inet", "meshdev")
            old = call(cluster, session.tcp)
        listing = cluster.manager.run("nft", "list", "table", "inet", "meshdev")
        assert str(session.tcp.relay) not in listing
        assert "198.18" not in listing
        with old, pytest.raises(ConnectionError):
            await asyncio.to_thread(until_reset, old)


def until_reset(sock: socket.socket) -> None:
    """As a keepalive does."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        sock.sendall(b"x")
        time.sleep(0.05)


class _Silenced:
    """The carriers stop, as when the laptop falls asleep."""

    def __init__(self, session: Session) -> None:
        self._pool = session.pool

    def __enter__(self) -> Self:
        self.began = time.monotonic()
        self._hold, self._held = threading.Event(), threading.Event()

        def stall() -> None:
            self._held.set()
            self._hold.wait(30)

        self._pool._loop.post(stall)
        assert self._held.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._hold.set()


async def test_a_silent_session_is_refused_within_a_second_or_so_and_its_flows_cut(
    laptop: Laptop, cluster: Cluster
) -> None:
    with local_program(laptop), control(cluster) as listener:
        async with connected(laptop, cluster) as session:
            await session.lead()
            allow(listener, session.tcp, POD)
            await reaches(cluster, session.tcp)
            claimed_up(listener, up=True)
            idle = call(cluster, session.tcp)
            # What Envoy does on its connections to a laptop.
            for option, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 9)):
                idle.setsockopt(socket.IPPROTO_TCP, option, value)
            idle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            idle.sendall(b"first")
            assert await asyncio.to_thread(idle.recv, 100) == b"local first"
            with _Silenced(session) as silence, idle:
                await asyncio.to_thread(claimed_up, listener, up=False)
                told = time.monotonic() - silence.began
                took = await refused(cluster, session.tcp)
                idle.settimeout(10)
                with pytest.raises(ConnectionResetError):
                    await asyncio.to_thread(idle.recv, 100)
                cut = time.monotonic() - silence.began
                print(
                    f"silent: told after {told:.2f} s, refused in {took * 1e3:.1f} ms, idle flow cut after {cut:.2f} s"
                )
                assert told < 1.6
                assert took < 0.2
                assert 4.5 < cut < 7.5
            await asyncio.to_thread(claimed_up, listener, up=True)
            await reaches(cluster, session.tcp)


async def test_a_silent_session_that_comes_back_early_keeps_its_flows(laptop: Laptop, cluster: Cluster) -> None:
    with local_program(laptop), control(cluster) as listener:
        async with connected(laptop, cluster) as session:
            await session.lead()
            allow(listener, session.tcp, POD)
            await reaches(cluster, session.tcp)
            claimed_up(listener, up=True)
            with call(cluster, session.tcp) as sock:
                with _Silenced(session):
                    await asyncio.to_thread(claimed_up, listener, up=False)
                    sock.sendall(b"patience")
                assert await asyncio.to_thread(sock.recv, 100) == b"local patience"


async def test_a_killed_session_is_refused_soon_and_its_relays_go(laptop: Laptop, cluster: Cluster) -> None:
    with local_program(laptop), control(cluster) as listener:
        async with connected(laptop, cluster) as session:
            await session.lead()
            allow(listener, session.tcp, POD)
            await reaches(cluster, session.tcp)
            claimed_up(listener, up=True)
            session.running.cancel()
            began = time.monotonic()
            for carrier in list(session.pool._carriers.values()):
                carrier.end(PeerClosed("killed"))
            await asyncio.to_thread(claimed_up, listener, up=False)
            assert await refused(cluster, session.tcp) < 0.2
            assert time.monotonic() - began < 1.6
            listener.sock.settimeout(15)
            while await asyncio.to_thread(listener.hear) != Seen("left", "ann@laptop", session.address):
                pass
            print(f"a killed session's relays are gone after {time.monotonic() - began:.1f} s")
            assert "198.18" not in cluster.manager.run("nft", "list", "table", "inet", "meshdev")


async def test_without_the_tunnels_process_relays_refuse_and_lead_nowhere(laptop: Laptop, cluster: Cluster) -> None:
    with local_program(laptop), control(cluster) as listener:
        async with connected(laptop, cluster) as session:
            await session.lead()
            allow(listener, session.tcp, POD)
            await reaches(cluster, session.tcp)
            os.kill(cluster.manager_pid, signal.SIGKILL)
            await asyncio.to_thread(os.waitid, os.P_PID, cluster.manager_pid, os.WEXITED | os.WNOWAIT)
            assert "@relays" in cluster.manager.run("nft", "list", "table", "inet", "meshdev")
            assert await refused(cluster, session.tcp) < 0.2
