"""Relays, the whole way: a pod, the manager's process, the tunnel, the laptop's real helper, a local program."""

import asyncio
import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Self

import pytest

from meshdev.config import CONTROL_PORT, CONTROL_UID, RELAY_UID, RELAYS_PORT, TUNNEL_PORT, gateway_of
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
    dial,
    local_program,
)
from tests.waiting import until


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with running() as cluster:
        # As a laptop's range must never be routed there: the manager masquerades.
        cluster.pod.run("ip", "route", "del", "198.18.0.0/16")
        yield cluster


async def ask(cluster: Cluster, session: Session, words: bytes) -> bytes:
    """What the local program answers the relay process."""

    def asked() -> bytes:
        with call(session, cluster) as sock:
            sock.sendall(words)
            return sock.recv(1 << 16)

    return await asyncio.to_thread(asked)


async def refused(cluster: Cluster, session: Session, relay: Relay | None = None) -> float:
    """Seconds after which the relay process was refused."""
    began = time.monotonic()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.to_thread(call, session, cluster, relay)
    return time.monotonic() - began


async def reaches(cluster: Cluster, session: Session) -> None:
    assert await ask(cluster, session, b"?") == b"local ?"


async def exchanges(cluster: Cluster, session: Session, source: IPv4Address = POD) -> bytes | None:
    """What a pod's datagram is answered; None where it is not."""
    with datagrams(cluster, source) as sock:
        sock.settimeout(0.3)
        sock.connect((str(MANAGER), session.udp.relay))
        sock.send(b"datagram")
        try:
            return await asyncio.to_thread(sock.recv, 100)
        except OSError:
            return None


async def allowed(cluster: Cluster, source: IPv4Address, *, allowed: bool = True) -> None:
    """Wait until it is, or is not: what control said is on its way."""
    words = ("nft", "list", "set", "inet", "meshdev", "allowed")
    await until(lambda: (str(source) in cluster.manager.run(*words)) == allowed)


async def test_the_relay_process_reaches_the_local_program(laptop: Laptop, cluster: Cluster) -> None:
    with local_program(laptop) as peers, control(cluster) as listener:
        async with connected(laptop, cluster) as session:
            claimed_up(listener, up=True)
            await session.lead()
            await reaches(cluster, session)
            assert {peer for peer, _ in peers} == {str(gateway_of(session.address))}
            times = []
            for _ in range(50):
                began = time.perf_counter()
                assert await ask(cluster, session, b"hello") == b"local hello"
                times.append(time.perf_counter() - began)
            print(f"connect, ask and answer through a relay: p50 {sorted(times)[25] * 1e3:.1f} ms")
            big = await asyncio.to_thread(_echo_much, cluster, session)
            assert big == 4 << 20


def _echo_much(cluster: Cluster, session: Session) -> int:
    """Bytes of 4 MiB that came back, without the program's own words."""
    with call(session, cluster, seconds=20) as sock:
        sender = threading.Thread(target=sock.sendall, args=(bytes(4 << 20),))
        sender.start()
        got = 0
        while got < 4 << 20:
            got += sock.recv(1 << 16).count(0)
        sender.join()
    return got


async def test_datagrams_of_allowed_sources_only(laptop: Laptop, cluster: Cluster) -> None:
    with local_program(laptop), control(cluster) as listener:
        async with connected(laptop, cluster) as session:
            await session.lead()
            assert await exchanges(cluster, session) is None
            allow(listener, session.udp, SECOND_POD)
            await allowed(cluster, SECOND_POD)
            assert await exchanges(cluster, session, SECOND_POD) == b"local datagram"
            assert await exchanges(cluster, session) is None
            allow(listener, session.udp)
            await allowed(cluster, SECOND_POD, allowed=False)
            assert await exchanges(cluster, session, SECOND_POD) is None


async def test_no_pod_reaches_a_tcp_relay_without_the_relay_process(laptop: Laptop, cluster: Cluster) -> None:
    with local_program(laptop), control(cluster) as listener:
        async with connected(laptop, cluster) as session:
            await session.lead()
            allow(listener, session.tcp, POD)
            allow(listener, session.udp, POD)
            await allowed(cluster, POD)
            for address in (MANAGER, session.address):
                with cluster.pod.inside():
                    sock = socket.socket()
                sock.settimeout(2)
                with sock, pytest.raises(OSError, match=r"refused|unreachable"):
                    await asyncio.to_thread(sock.connect, (str(address), session.tcp.relay))


async def test_relay_and_control_reach_nothing_else(laptop: Laptop, cluster: Cluster) -> None:
    """Neither the tunnel's own port nor other ports of a laptop, and no pod; other users of the pod are not held."""
    with cluster.pod.inside():
        pod = socket.create_server((str(POD), 0))
    with pod, local_program(laptop, "0.0.0.0"):
        async with connected(laptop, cluster) as session:
            await session.lead()
            somewhere = (POD, pod.getsockname()[1])
            dial(cluster, 0, *somewhere).close()
            for user in (RELAY_UID, CONTROL_UID):
                for address, port in (
                    (IPv4Address("127.0.0.1"), TUNNEL_PORT),
                    (session.address, TCP.local),
                    (session.address, session.tcp.relay + 5),
                    (session.address, session.udp.relay),
                    somewhere,
                ):
                    with pytest.raises(ConnectionRefusedError):
                        await asyncio.to_thread(dial, cluster, user, address, port)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.to_thread(dial, cluster, CONTROL_UID, session.address, session.tcp.relay)
            await reaches(cluster, session)


async def test_relay_and_control_answer_whoever_connects(cluster: Cluster) -> None:
    for user, port in ((CONTROL_UID, CONTROL_PORT), (RELAY_UID, RELAYS_PORT)):
        with cluster.manager.inside(user):
            server = socket.create_server((str(MANAGER), port))
        with server, cluster.pod.inside():
            client = socket.create_connection((str(MANAGER), port), 5)
            with client, server.accept()[0] as accepted:
                accepted.sendall(b"welcome")
                assert client.recv(100) == b"welcome"
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                accepted.close()
                with pytest.raises(ConnectionResetError):
                    client.recv(100)


async def test_nothing_else_comes_in_at_the_laptop(laptop: Laptop, cluster: Cluster) -> None:
    with local_program(laptop, "0.0.0.0"):
        async with connected(laptop, cluster) as session:
            await session.lead()
            await reaches(cluster, session)
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
            allow(listener, session.udp, POD)
            with local_program(laptop):
                await reaches(cluster, session)
            times = [await refused(cluster, session) for _ in range(5)]
            print(f"a stopped program refuses after {min(times) * 1e3:.1f} ms")
            assert min(times) < 0.2
            with local_program(laptop, "127.0.0.9"), datagrams(cluster) as sock:
                sock.sendto(b"nobody", (str(MANAGER), session.udp.relay))
                await session.lead(IPv4Address("127.0.0.9"))
                await reaches(cluster, session)
                sock.sendto(b"x", (str(MANAGER), session.udp.relay))
                while (heard := await asyncio.to_thread(sock.recv, 100)) != b"local x":
                    assert heard == b"local nobody"  # it was still on its way when the target changed
            with local_program(laptop, "192.0.2.2"):
                await session.lead(IPv4Address("192.0.2.2"))
                await reaches(cluster, session)


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
    with local_program(laptop), control(cluster):
        async with connected(laptop, cluster) as session:
            await session.lead()
            await reaches(cluster, session)
            assert str(session.tcp.relay) in cluster.manager.run("nft", "list", "table", "inet", "meshdev")
        listing = cluster.manager.run("nft", "list", "table", "inet", "meshdev")
        assert str(session.tcp.relay) not in listing
        assert "198.18" not in listing
        await refused(cluster, session)


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
            await reaches(cluster, session)
            claimed_up(listener, up=True)
            idle = call(session, cluster)
            # What the relay process does on its connections to a laptop.
            for option, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 9)):
                idle.setsockopt(socket.IPPROTO_TCP, option, value)
            idle.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            idle.sendall(b"first")
            assert await asyncio.to_thread(idle.recv, 100) == b"local first"
            with _Silenced(session) as silence, idle:
                await asyncio.to_thread(claimed_up, listener, up=False)
                told = time.monotonic() - silence.began
                took = await refused(cluster, session)
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
            await reaches(cluster, session)


async def test_a_silent_session_that_comes_back_early_keeps_its_flows(laptop: Laptop, cluster: Cluster) -> None:
    with local_program(laptop), control(cluster) as listener:
        async with connected(laptop, cluster) as session:
            await session.lead()
            await reaches(cluster, session)
            claimed_up(listener, up=True)
            with call(session, cluster) as sock:
                with _Silenced(session):
                    await asyncio.to_thread(claimed_up, listener, up=False)
                    sock.sendall(b"patience")
                assert await asyncio.to_thread(sock.recv, 100) == b"local patience"


async def test_a_killed_session_is_refused_soon_and_its_relays_go(laptop: Laptop, cluster: Cluster) -> None:
    with local_program(laptop), control(cluster) as listener:
        async with connected(laptop, cluster) as session:
            await session.lead()
            await reaches(cluster, session)
            claimed_up(listener, up=True)
            session.running.cancel()
            began = time.monotonic()
            for carrier in list(session.pool._carriers.values()):
                carrier.end(PeerClosed("killed"))
            await asyncio.to_thread(claimed_up, listener, up=False)
            assert await refused(cluster, session) < 0.2
            assert time.monotonic() - began < 1.6
            listener.sock.settimeout(15)
            while await asyncio.to_thread(listener.hear) != Seen("left", "ann@laptop", session.address):
                pass
            print(f"a killed session's relays are gone after {time.monotonic() - began:.1f} s")
            assert "198.18" not in cluster.manager.run("nft", "list", "table", "inet", "meshdev")


async def test_without_the_tunnels_process_relays_refuse_and_lead_nowhere(laptop: Laptop, cluster: Cluster) -> None:
    with local_program(laptop), control(cluster):
        async with connected(laptop, cluster) as session:
            await session.lead()
            await reaches(cluster, session)
            os.kill(cluster.manager_pid, signal.SIGKILL)
            await asyncio.to_thread(os.waitid, os.P_PID, cluster.manager_pid, os.WEXITED | os.WNOWAIT)
            assert "@relays" in cluster.manager.run("nft", "list", "table", "inet", "meshdev")
            assert await refused(cluster, session) < 0.2
