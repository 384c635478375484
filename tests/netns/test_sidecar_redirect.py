"""What of a pod's traffic meets Envoy: new connections from outside, on ports that are wanted, while it makes sense."""

import asyncio
import functools
import socket
import stat
import time
from pathlib import Path
from typing import Any, Final

import pytest

from meshdev.identity.keys import key_id
from meshdev.wire.agent import PodPort
from meshdev.wire.counts import Counts
from tests.netns.cluster import MANAGER, POD
from tests.netns.sidecar import MINE, SidecarPod, ask, claim, intercepted, sidecar
from tests.sidecar.pod import FIRST, SECOND, End

WEB = PodPort(8080)
VOICE = PodPort(9090, "udp")
RAW = PodPort(7000)
#: Of another network of the pod's.
ANOTHER: Final = "10.250.0.7"


async def greet(end: End, reader: Any, writer: Any) -> None:
    """A server that speaks first."""
    writer.write(b"220 " + end.name.encode() + b"\n")
    await reader.read()


async def first_line(pod: SidecarPod) -> tuple[str, float]:
    """What a server says that speaks first, and after how many seconds."""
    started = time.monotonic()
    reader, writer = await pod.connect(RAW.number)
    line = (await reader.readline()).decode().strip()
    writer.close()
    return line, time.monotonic() - started


async def test_new_connections_meet_envoy_and_older_ones_keep_their_way() -> None:
    async with sidecar() as pod:
        await pod.app(8080)
        await pod.laptop(20001)
        reader, writer = await pod.connect(8080)
        assert await ask(reader, writer, a="1") == "original"
        await pod.manager.claim(claim(MINE))
        state = await pod.manager.until(lambda state: state.redirected)
        assert (state.redirected, state.held_back, state.older) == ((WEB,), (), ((WEB, 1),))
        assert [await pod.get(), await pod.get(a="1")] == ["original", "laptop"]
        assert await ask(reader, writer, a="1") == "original"
        writer.close()
        state = await pod.manager.until(lambda state: not state.older and state.intercepts)
        assert state.intercepts == ((FIRST, Counts(1, 0, 0)),)
        agents, envoys = pod.manager.peers, pod.manager.ads.peers
        assert len(agents) == len(envoys) == 1
        assert key_id(agents[0]) == key_id(envoys[0]), "one key"


async def test_older_connections_are_closed_where_that_is_wanted() -> None:
    async with sidecar() as pod:
        await pod.app(8080)
        await pod.laptop(20001)
        reader, writer = await pod.connect(8080)
        assert await ask(reader, writer) == "original"
        await pod.manager.claim(claim(MINE), reset_older=True)
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(5):
                await reader.read()
        assert (await pod.manager.until(lambda state: state.redirected)).older == ()
        assert await pod.get(a="1") == "laptop"
        writer.close()


async def test_envoys_port_can_only_be_reached_redirected() -> None:
    async with sidecar() as pod:
        await pod.app(8080)
        await pod.manager.claim(claim(MINE))
        await pod.manager.until(lambda state: state.redirected)
        (listener,) = pod.listener_ports()
        with pytest.raises(ConnectionRefusedError):
            await pod.connect(listener)
        with pod.pod.inside(), pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", listener), timeout=5)
        with pod.pod.inside():
            reader, writer = await asyncio.open_connection(str(POD), 8080)
        assert await ask(reader, writer, a="1") == "original", "the pod's own connections never meet Envoy"
        writer.close()


async def test_a_client_may_use_its_port_again() -> None:
    """The proxy closes first, as the app does: for a minute that client's SYN meets TIME_WAIT, not the listener."""

    async def answer_and_close(end: End, reader: Any, writer: Any) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n" + end.name.encode())

    async def once(pod: SidecarPod) -> str:
        with pod.outside.inside():
            client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.setblocking(False)
        client.bind((str(MANAGER), 40000))
        async with asyncio.timeout(5):
            await asyncio.get_running_loop().sock_connect(client, (str(POD), 8080))
            reader, writer = await asyncio.open_connection(sock=client)
            answer = await ask(reader, writer, Connection="close")
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        return answer

    async with sidecar() as pod:
        await pod.app(8080, answer_and_close)
        await pod.manager.claim(claim(MINE))
        await pod.manager.until(lambda state: state.redirected)
        (listener,) = pod.listener_ports()
        for _ in range(3):
            assert (await once(pod)).startswith("original")
            assert f":{listener}" in pod.pod.run("ss", "-tanH", "state", "time-wait")


async def test_its_sockets_and_its_key_are_nobodys_business() -> None:
    async with sidecar() as pod:
        await pod.app(8080)
        await intercepted(pod)
        announced = await pod.announcement()
        assert f"127.0.0.1:{announced.port} " in pod.pod.run("ss", "-ltnH")
        assert b"PRIVATE KEY" not in pod.log()
        assert not any(b"PRIVATE KEY" in each for each in _shown(pod.envoy(), pod.agent.pid))
        modes = _modes(Path(f"/proc/{pod.agent.pid}/root{pod.manager.folder}"))
        assert modes.pop("") == "drwx------"
        assert {"admin", "secrets", "8080"} <= modes.keys()
        assert set(modes.values()) == {"srw-------"}


def _shown(*processes: int) -> list[bytes]:
    """What others may read of them."""
    return [Path(f"/proc/{each}/{name}").read_bytes() for each in processes for name in ("environ", "cmdline")]


def _modes(folder: Path) -> dict[str, str]:
    """As ls shows them; the folder's own without a name."""
    modes = {each.name: stat.filemode(each.stat().st_mode) for each in folder.iterdir()}
    return {"": stat.filemode(folder.stat().st_mode), **modes}


async def test_without_a_listener_there_is_no_redirect() -> None:
    """A tcpSocket probe sees the truth."""
    async with sidecar() as pod:
        app = await pod.app(8080)
        await pod.laptop(20001)
        await pod.manager.claim(claim())
        await pod.manager.until(lambda state: state.redirected)
        assert await pod.get() == "laptop"
        for _ in range(10):
            await app.stop()
            with pytest.raises(ConnectionRefusedError):
                await pod.connect(8080)
            await app.start()
            assert await pod.get() == "laptop", "at once"
        await app.stop()
        state = await pod.manager.until(lambda state: not state.redirected)
        assert state.held_back == ((WEB, "no-listener"),)
        await app.start()
        await pod.manager.until(lambda state: state.redirected)
        assert await pod.get() == "laptop"


async def test_probes_see_the_original() -> None:
    probes = '[{"port": 8080, "path": "/healthz", "agent": "kube-probe/"}]'
    async with sidecar(probes=probes) as pod:
        await pod.app(8080)
        await pod.laptop(20001)
        await pod.manager.claim(claim(protocol="tcp"))
        await pod.manager.until(lambda state: state.redirected)
        assert await pod.get(path="/healthz", User_Agent="kube-probe/1.35") == "original"
        assert await pod.get(path="/healthz") == "laptop"


async def test_a_server_that_speaks_first_is_heard_in_mesh_mode() -> None:
    async with sidecar() as pod:
        await pod.app(RAW.number, greet)
        await pod.manager.claim(claim(MINE, port=RAW.number, protocol="tcp"))
        await pod.manager.until(lambda state: state.redirected)
        for _ in range(2):
            assert (await first_line(pod))[0] == "220 original"
        assert pod.manager.state.redirected == (RAW,)


async def test_a_server_that_speaks_first_is_on_the_laptop_in_proxy_mode() -> None:
    async with sidecar() as pod:
        await pod.app(RAW.number, greet)
        await pod.laptop(20001, greet)
        await pod.manager.claim(claim(port=RAW.number, protocol="tcp"))
        await pod.manager.until(lambda state: state.redirected)
        for _ in range(2):
            assert (await first_line(pod))[0] == "220 laptop"
        state = await pod.manager.until(lambda state: state.flows)
        assert state.flows == ((RAW, Counts(2, 0, 0)),)


class Echo(asyncio.DatagramProtocol):
    """Answers each datagram with a letter before it."""

    def __init__(self, letter: bytes) -> None:
        self._letter = letter

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        self._transport.sendto(self._letter + data, address)


async def answer(pod: SidecarPod, address: str = str(POD)) -> bytes:
    """To a datagram that comes from outside."""
    loop = asyncio.get_running_loop()
    with pod.outside.inside():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sock:
        sock.setblocking(False)
        sock.connect((address, 9090))
        await loop.sock_sendall(sock, b"x")
        async with asyncio.timeout(5):
            return await loop.sock_recv(sock, 100)


async def test_datagrams_in_proxy_mode() -> None:
    loop = asyncio.get_running_loop()
    async with sidecar() as pod:
        for place, port, letter in ((pod.pod, 9090, b"o"), (pod.outside, 20001, b"l")):
            with place.inside():
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sock.bind(("0.0.0.0", port))
            await loop.create_datagram_endpoint(functools.partial(Echo, letter), sock=sock)

        assert await answer(pod) == b"ox"
        await pod.manager.claim(claim(port=9090, protocol="udp"))
        await pod.manager.until(lambda state: state.redirected == (VOICE,))
        assert await answer(pod) == b"lx"
        await pod.manager.claim()
        await pod.manager.until(lambda state: not state.redirected)
        assert await answer(pod) == b"ox"


def add_address(pod: SidecarPod) -> None:
    pod.pod.run("ip", "addr", "add", f"{ANOTHER}/32", "dev", "eth0")
    pod.outside.run("ip", "route", "add", ANOTHER, "via", str(POD))


async def test_connections_to_another_address_of_the_pod_are_left_alone() -> None:
    """An app may listen on each network of its pod by itself (Multus)."""
    async with sidecar() as pod:
        add_address(pod)
        await pod.app(8080, host=str(POD))
        await pod.app(8080, name="another", host=ANOTHER)
        await pod.laptop(20001)
        await pod.manager.claim(claim())
        await pod.manager.until(lambda state: state.redirected == (WEB,))
        assert [await pod.get(), await pod.get(address=ANOTHER)] == ["laptop", "another"]


async def test_datagrams_to_another_address_of_the_pod_are_left_alone() -> None:
    loop = asyncio.get_running_loop()
    async with sidecar() as pod:
        add_address(pod)
        for place, address, letter in (
            (pod.pod, (str(POD), 9090), b"o"),
            (pod.pod, (ANOTHER, 9090), b"a"),
            (pod.outside, ("0.0.0.0", 20001), b"l"),
        ):
            with place.inside():
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sock.bind(address)
            await loop.create_datagram_endpoint(functools.partial(Echo, letter), sock=sock)
        await pod.manager.claim(claim(port=9090, protocol="udp"))
        await pod.manager.until(lambda state: state.redirected == (VOICE,))
        assert [await answer(pod), await answer(pod, ANOTHER)] == [b"lx", b"ax"]


async def test_a_sender_of_datagrams_that_goes_on_is_redirected_and_back() -> None:
    loop = asyncio.get_running_loop()
    async with sidecar() as pod:
        for place, port, letter in ((pod.pod, 9090, b"o"), (pod.outside, 20001, b"l")):
            with place.inside():
                sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
                sock.bind(("0.0.0.0", port))
            await loop.create_datagram_endpoint(functools.partial(Echo, letter), sock=sock)
        await pod.app(8080)
        await pod.manager.claim(claim())  # now connections are tracked
        await pod.manager.until(lambda state: state.redirected == (WEB,))
        with pod.outside.inside():
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sender:
            sender.setblocking(False)
            sender.connect((str(POD), 9090))

            async def answer() -> bytes:
                await loop.sock_sendall(sender, b"x")
                async with asyncio.timeout(5):
                    return await loop.sock_recv(sender, 100)

            for _ in range(2):
                assert await answer() == b"ox"
                await pod.manager.claim(claim(), claim(port=9090, protocol="udp", name=SECOND))
                await pod.manager.until(lambda state: state.redirected == (WEB, VOICE))
                assert await answer() == b"lx"
                await pod.manager.claim(claim())
                await pod.manager.until(lambda state: state.redirected == (WEB,))
            assert await answer() == b"ox"


async def test_the_pods_own_flows_may_begin_at_the_number_of_a_door() -> None:
    loop = asyncio.get_running_loop()
    async with sidecar() as pod:
        await pod.app(8080)
        await pod.manager.claim(claim())
        await pod.manager.until(lambda state: state.redirected)
        (listener,) = pod.listener_ports()
        with pod.outside.inside():
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.bind((str(MANAGER), 53))
        await loop.create_datagram_endpoint(functools.partial(Echo, b"a"), sock=sock)
        with pod.pod.inside():
            asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with asking:
            asking.setblocking(False)
            asking.bind((str(POD), listener))
            asking.connect((str(MANAGER), 53))
            await loop.sock_sendall(asking, b"q")
            async with asyncio.timeout(5):
                assert await loop.sock_recv(asking, 100) == b"aq"
