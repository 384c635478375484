"""The app sees its clients' own addresses and ports, whether or not a sidecar has the connection."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from meshdev import capabilities
from meshdev.sidecar.agent import client_addresses
from meshdev.sidecar.agent.client_addresses import ClientAddresses
from meshdev.sidecar.agent.firewall import PodFirewall
from meshdev.sidecar.agent.sockets import Sockets
from meshdev.wire.agent import PodPort
from tests.netns.cluster import MANAGER, POD, Namespace
from tests.netns.sidecar import MINE, SidecarPod, ask, claim, intercepted, sidecar
from tests.netns.test_sidecar_life import capabilities as capabilities_of
from tests.sidecar.pod import SECOND, End
from tests.waiting import until

WEB = PodPort(8080)
OTHER = PodPort(8081)
#: Another address of the machine outside: as a node has several.
NODE: Final = "10.244.0.200"
_NO_RULES: Final = "0:\tfrom all lookup local\n32766:\tfrom all lookup main\n32767:\tfrom all lookup default\n"


async def peer(end: End, reader: Any, writer: Any) -> None:
    """Answer with the address and port that the app sees."""
    while head := await reader.readuntil(b"\r\n\r\n"):
        end.heard.append(head)
        host, port, *_ = writer.get_extra_info("peername")
        body = f"{host} {port}".encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(pod: SidecarPod, address: str = str(MANAGER), port: int = 0, to: int = 8080) -> Connection:
    """A client with that address, and port."""
    with pod.outside.inside():
        client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    client.setblocking(False)
    client.bind((address, port))
    async with asyncio.timeout(10):
        await asyncio.get_running_loop().sock_connect(client, (str(POD), to))
    return await asyncio.open_connection(sock=client)


async def seen(connection: Connection) -> str:
    """What the app sees of it."""
    async with asyncio.timeout(10):
        return await ask(*connection)


def own(connection: Connection) -> str:
    host, port = connection[1].get_extra_info("sockname")
    return f"{host} {port}"


def worker(pod: SidecarPod) -> int:
    """The pid of the agent's passthrough worker."""
    for child in Path(f"/proc/{pod.agent.pid}/task/{pod.agent.pid}/children").read_text().split():
        if b"meshdev.sidecar.worker" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    return 0


@pytest.mark.parametrize("strict", [0, 1])
async def test_the_app_sees_its_clients(strict: int) -> None:
    async with sidecar() as pod:
        for name in ("all", "default", "lo", "eth0"):
            pod.pod.run("sysctl", "-qw", f"net.ipv4.conf.{name}.rp_filter={strict}")
        pod.outside.run("ip", "addr", "add", f"{NODE}/24", "dev", "eth0")
        await pod.app(8080, peer)
        await intercepted(pod)
        for address in (str(MANAGER), NODE):
            connection = await connect(pod, address)
            assert [await seen(connection) for _ in range(3)] == [own(connection)] * 3
            connection[1].close()


async def test_the_worker_has_no_capability() -> None:
    async with sidecar() as pod:
        await pod.app(8080, peer)
        await intercepted(pod)
        assert capabilities_of(worker(pod)) == {(0, 0, 0, 0)}


async def test_a_client_may_use_its_port_again_at_once() -> None:
    """Whoever ends a connection first, and so keeps its ends for a minute."""
    async with sidecar() as pod:
        await pod.app(8080, peer)
        await intercepted(pod)
        for _ in range(4):
            connection = await connect(pod, port=40000)
            assert await seen(connection) == f"{MANAGER} 40000"
            connection[1].get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, client_addresses.RESET
            )
            connection[1].close()
            await until(lambda: not pod.pod.run("ss", "-tnH", "dport", "=", ":40000"))
        for _ in range(4):
            connection = await connect(pod, port=40001)
            assert await seen(connection) == f"{MANAGER} 40001"
            connection[1].close()
            await connection[1].wait_closed()
            await until(lambda: not pod.pod.run("ss", "-tnH", "dport", "=", ":40001"))
            # a client of another kind than Linux forgets it sooner
            pod.outside.run("ss", "-K", "state", "time-wait", "sport", "=", ":40001")


async def test_a_port_that_the_pod_has_itself_is_seen_with_the_pods_address() -> None:
    async with sidecar() as pod:
        await pod.app(8080, peer)
        await pod.app(40000)
        await intercepted(pod)
        connection = await connect(pod, port=40000)
        assert (await seen(connection)).startswith(f"{POD} ")
        await until(lambda: b"from the pod's address instead of the client's: in-use" in pod.log())
        connection[1].close()


def own_connection(pod: SidecarPod) -> None:
    """As the app makes one to its database."""
    with pod.pod.inside(), socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, client_addresses.RESET)
        sock.settimeout(5)
        sock.connect((str(MANAGER), 5432))


async def test_the_apps_own_connections_may_use_the_same_ports() -> None:
    """The pod has ten ports for them, and each is a client's: while it is connected, and for a minute after that."""

    async with sidecar() as pod:
        await pod.app(8080, peer)
        await pod.laptop(5432)
        await intercepted(pod)
        pod.pod.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 40009")
        own_connection(pod)
        clients = [await connect(pod, port=port) for port in range(40000, 40010)]
        assert [await seen(each) for each in clients] == [f"{MANAGER} {port}" for port in range(40000, 40010)]
        for _ in range(3):
            own_connection(pod)
        for _, writer in clients:
            writer.close()
        ended = ("ss", "-tanH", "state", "time-wait", "dport", "=", ":8080")
        await until(lambda: pod.pod.run(*ended).count(f"{MANAGER}%lo:") == 10)
        for _ in range(3):
            own_connection(pod)


async def test_connections_that_were_redirected_go_on_and_are_not_older() -> None:
    async with sidecar(UNWANTED_SECONDS=1.5) as pod:
        await pod.app(8080, peer)
        await pod.app(8081, peer)
        older = await connect(pod, to=8081)
        assert await seen(older) == own(older)
        await intercepted(pod)
        connection = await connect(pod)
        assert await seen(connection) == own(connection)
        both = claim(MINE), claim(MINE, port=8081, name=SECOND)
        await pod.manager.claim(*both, reset_older=True)
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(5):
                await older[0].read()
        await pod.manager.until(lambda state: state.redirected == (WEB, OTHER) and not state.older)
        assert await seen(connection) == own(connection)
        await pod.manager.claim()
        await until(lambda: b"1 connections that were redirected go on" in pod.log(), 20)
        assert [await seen(connection) for _ in range(3)] == [own(connection)] * 3
        direct = await connect(pod)
        assert await seen(direct) == own(direct)
        for _, writer in (connection, direct):
            writer.close()
        await until(lambda: pod.agent.poll() is not None)
        assert (pod.rules(), pod.pod.run("ip", "rule")) == ("", _NO_RULES)
        assert pod.pod.run("ip", "route", "show", "table", "all", "proto", "253") == ""


async def test_what_a_killed_agent_leaves_is_inert_and_the_next_one_removes_it() -> None:
    ended: list[bytes] = []

    async def note_the_end(end: End, reader: Any, writer: Any) -> None:
        try:
            await peer(end, reader, writer)
        except ConnectionResetError:
            ended.append(b"reset")
            raise

    async with sidecar() as pod:
        await pod.app(8080, note_the_end)
        await intercepted(pod)
        connection = await connect(pod)
        assert await seen(connection) == own(connection)
        os.kill(worker(pod), signal.SIGSTOP)  # it is killed with the agent, and cannot end by itself before that
        pod.agent.kill()
        pod.agent.wait()
        async with asyncio.timeout(5):
            with suppress(ConnectionResetError):
                assert await connection[0].read() == b""
        await until(lambda: ended == [b"reset"])
        await until(lambda: pod.rules() == "")
        left = pod.pod.run("ip", "rule")
        assert left != _NO_RULES
        port = connection[1].get_extra_info("sockname")[1]
        connection[1].close()
        await until(lambda: not pod.outside.run("ss", "-tnH", "dport", "=", ":8080"))
        direct = await connect(pod)
        assert await seen(direct) == own(direct)
        direct[1].close()
        pod.start_agent()
        await until(lambda: b"removing the routes of 1 agents" in pod.log())
        await until(lambda: "8080 :" in pod.rules())
        (former,) = set(left.splitlines()) - set(_NO_RULES.splitlines())
        assert former not in pod.pod.run("ip", "rule")
        again = await connect(pod, port=port)
        assert await seen(again) == f"{MANAGER} {port}", "nothing is left of that connection"
        again[1].close()


async def test_two_agents_keep_apart() -> None:
    async with sidecar(UNWANTED_SECONDS=1.5) as pod:
        await pod.app(8080, peer)
        await intercepted(pod)
        first, old = pod.agent, await connect(pod)
        try:
            await pod.manager.claim()
            await until(lambda: b"1 connections that were redirected go on" in pod.log(), 20)
            pod.start_agent()
            await until(lambda: len(pod.manager.peers) == 2)
            await intercepted(pod)
            new = await connect(pod)
            for _ in range(2):
                assert (await seen(old), await seen(new)) == (own(old), own(new))
            old[1].close()
            await until(lambda: first.poll() is not None)
            assert await seen(new) == own(new)
            another = await connect(pod)
            assert await seen(another) == own(another)
        finally:
            first.kill()
            first.wait()


async def test_where_answers_are_lost_the_pods_address_is_used() -> None:
    async with sidecar() as pod:
        await pod.app(8080, peer)
        await intercepted(pod)
        for line in pod.pod.run("ip", "rule").splitlines():
            if "fwmark" in line:
                pod.pod.run("ip", "rule", "del", *line.partition(":\tfrom all ")[2].split())
        began = asyncio.get_running_loop().time()
        for _ in range(3):
            connection = await connect(pod)
            assert (await seen(connection)).startswith(f"{POD} ")
            connection[1].close()
        assert asyncio.get_running_loop().time() - began < 5, "only the first one waits"


# What makes the sockets


@pytest.fixture
def pod() -> Iterator[Namespace]:
    namespace = Namespace()
    namespace.run("ip", "link", "set", "lo", "up")
    namespace.run("ip", "addr", "add", f"{POD}/32", "dev", "lo")
    try:
        yield namespace
    finally:
        namespace.close()


def test_nothing_that_the_worker_does_with_a_socket_leaves_the_pod(pod: Namespace) -> None:
    code = """
import socket, sys
sock = socket.socket(fileno=int(sys.argv[1]))
for option, value in ((socket.SO_MARK, bytes(4)), (socket.SO_BINDTODEVICE, b""), (socket.SO_BINDTODEVICE, b"eth0")):
    try:
        sock.setsockopt(socket.SOL_SOCKET, option, value)
    except PermissionError:
        print("EPERM")
sock.bind(("192.0.2.1", 0))
sock.connect_ex(("192.0.2.2", 80))
"""
    pod.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "outside")
    pod.run("ip", "addr", "add", "192.0.2.9/24", "dev", "eth0")
    pod.run("ip", "link", "set", "eth0", "up")
    pod.run("ip", "link", "set", "outside", "up")
    with pod.inside():
        clients = ClientAddresses(7, lambda: {7})
        with clients.make() as sock:
            command = capabilities.without((sys.executable, "-c", code, str(sock.fileno())))
            done = subprocess.run(command, pass_fds=(sock.fileno(),), capture_output=True, text=True, check=True)
            assert "192.0.2.2:80" in pod.run("ss", "-tnH", "state", "syn-sent")
        clients.close()
    assert done.stdout.split() == ["EPERM", "EPERM", "EPERM"]
    assert pod.run("ip", "neigh", "show", "dev", "eth0", "192.0.2.2") == "", "nobody was asked for"


async def test_the_queue_is_kept_full(pod: Namespace) -> None:
    with pod.inside():
        clients = ClientAddresses(7, lambda: {7})
        ours, its = client_addresses.queue()
        supplying = asyncio.ensure_future(clients.supply(ours))
        taken = 0
        while taken < 3000:
            await asyncio.sleep(0)
            with suppress(BlockingIOError):
                _, found, _, _ = socket.recv_fds(its, 1, 253)
                for number in found:
                    socket.socket(fileno=number).close()
                taken += len(found)
        assert taken % client_addresses.BATCH == 0
        its.close()
        await asyncio.wait_for(supplying, 5)
        ours.close()
        clients.close()


def test_a_kernel_that_refuses_leaves_nothing(pod: Namespace) -> None:
    with pod.inside():
        first = ClientAddresses(7, lambda: {7})
        with pytest.raises(FileExistsError):
            ClientAddresses(7, lambda: {7})
        first.close()
    assert pod.run("ip", "rule") == _NO_RULES


def test_other_agents_are_left_alone(pod: Namespace) -> None:
    with pod.inside():
        firewalls = [PodFirewall(POD), PodFirewall(POD)]
        clients = [ClientAddresses(each.number, each.living) for each in firewalls]
        for each, firewall in zip(clients, firewalls, strict=True):
            firewall.keep_marked(each.mark)
        assert len({each.mark for each in clients}) == 2
        assert pod.run("ip", "rule").count("fwmark") == 2
        firewalls[0].close()  # as if it were killed
        third = PodFirewall(POD)
        ClientAddresses(third.number, third.living).close()
        assert pod.run("ip", "rule").count("fwmark") == 1
        for one in clients:
            one.close()
        for firewall in (firewalls[1], third):
            firewall.close()
    assert pod.run("ip", "rule") == _NO_RULES


def test_sockets_of_both_ends_here_are_not_older(pod: Namespace) -> None:
    """Neither where the app listens on IPv6, too, nor while an end is closed by half."""
    with pod.inside():
        clients, sockets = ClientAddresses(7, lambda: {7}), Sockets(POD)
        for host, family in ((str(POD), socket.AF_INET), ("::", socket.AF_INET6)):
            with (
                socket.create_server((host, 8080), family=family, dualstack_ipv6=family == socket.AF_INET6) as app,
                clients.make() as leg,
            ):
                leg.bind(("127.0.0.9", 0))
                leg.connect_ex((str(POD), 8080))
                with app.accept()[0]:
                    assert sockets.older([WEB]) == {}
                    leg.shutdown(socket.SHUT_WR)
                    assert sockets.older([WEB]) == {}
        sockets.close()
        clients.close()
