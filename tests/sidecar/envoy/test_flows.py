"""Traffic without requests, which is claimed as a whole: bytes, servers that speak first, datagrams."""

import asyncio
import contextlib
import functools
import socket
from typing import Any

from meshdev.intercept.match import HeaderMatch, Match
from meshdev.intercept.spec import Port, Spec
from meshdev.sidecar.envoy import stats
from meshdev.sidecar.envoy.claims import LiveClaim, PodView, Served, wanted
from meshdev.sidecar.envoy.resources import resources
from meshdev.wire.agent import PodPort
from meshdev.wire.counts import Counts
from meshdev.wire.intercepts import Relay
from meshdev.wire.modes import MESH, PROXY, Mode
from tests.sidecar.pod import FIRST, LOOPBACK, SECOND, WORKLOAD, End, Pod, pod
from tests.sidecar.real_envoy import free_port, running

MINE = Match(headers=(HeaderMatch("a", "exact", "1"),))


async def greet(end: End, reader: Any, writer: Any) -> None:
    """A server that speaks first and then says everything again."""
    writer.write(b"220 " + end.name.encode() + b"\n")
    while data := await reader.read(65536):
        writer.write(data)


async def seen(app: Pod) -> stats.Stats:
    return stats.read(await app.envoy.admin(stats.TARGET))


async def test_bytes_go_to_the_laptop_in_proxy_mode() -> None:
    async with pod(End("original", greet), End("laptop", greet)) as app:
        app.claim(protocol="tcp")
        await app.serve()
        reader, writer = await app.connect()
        assert await reader.readline() == b"220 laptop\n"
        assert (await seen(app)).busy == 1
        app.claim(protocol="tcp", up=False)
        await app.serve()
        other_reader, other = await app.connect()
        assert await other_reader.readline() == b"220 original\n"
        writer.write(b"still there\n")
        assert await reader.readline() == b"still there\n"
        app.claim(protocol="tcp", up=True)
        await app.serve()
        third_reader, third = await app.connect()
        assert await third_reader.readline() == b"220 laptop\n"
        assert (await seen(app)).flows[app.port] == Counts(3, 0, 0)
        for each in (writer, other, third):
            each.close()


async def test_bytes_without_fallback_go_to_nobody_while_nobody_listens() -> None:
    async with pod(End("original", greet), End("laptop", greet)) as app:
        for up, line in ((True, b"220 laptop\n"), (False, b""), (True, b"220 laptop\n")):
            app.claim(protocol="tcp", fallback=False, up=up)
            await app.serve()
            reader, writer = await app.connect()
            with contextlib.suppress(ConnectionResetError):
                assert await reader.readline() == line
            writer.close()


async def test_bytes_go_to_the_newest_of_two_who_want_them() -> None:
    """While one takes over from another; and when he does not listen they go to the original, not to the former one."""
    second = End("second", greet)
    await second.start()
    async with pod(End("original", greet), End("laptop", greet)) as app:
        app.claim(protocol="tcp", name=SECOND)
        for up, end in ((True, b"220 second\n"), (False, b"220 original\n")):
            app.claim(protocol="tcp", name=FIRST, to=second, up=up)
            await app.serve()
            reader, writer = await app.connect()
            assert await reader.readline() == end
            writer.close()
    await second.stop()


async def test_another_laptop_takes_over_and_what_is_open_stays() -> None:
    """Both are behind one address and port of the manager."""
    second = End("second", greet)
    await second.start()
    async with pod(End("original", greet), End("laptop", greet)) as app:
        kept = []
        for to, line in ((app.laptop, b"220 laptop\n"), (second, b"220 second\n"), (app.laptop, b"220 laptop\n")):
            app.claim(protocol="tcp", to=to)
            await app.serve()
            kept.append(await app.connect())
            assert await kept[-1][0].readline() == line
            for reader, writer in kept:
                writer.write(b"still there\n")
                assert await reader.readline() == b"still there\n"
        for _, writer in kept:
            writer.close()
    await second.stop()


async def test_each_direction_ends_by_itself() -> None:
    async def count(_: End, reader: Any, writer: Any) -> None:
        writer.write(b"%d" % len(await reader.read()))

    async with pod(End("original"), End("laptop", count)) as app:
        app.claim(protocol="tcp")
        await app.serve()
        reader, writer = await app.connect()
        writer.write(b"x" * 1_000_000)
        writer.write_eof()
        assert await reader.read() == b"1000000"
        writer.close()


class Echo(asyncio.DatagramProtocol):
    """Answers each datagram with a letter before it."""

    def __init__(self, letter: bytes) -> None:
        self._letter = letter

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        self._transport.sendto(self._letter + data, address)


async def test_datagrams() -> None:
    loop = asyncio.get_running_loop()
    ports = {}
    for name in ("original", "laptop"):
        echo = functools.partial(Echo, name[:1].encode())
        transport, _ = await loop.create_datagram_endpoint(echo, local_addr=("127.0.0.1", 0))
        ports[name] = transport.get_extra_info("sockname")[1]
    voice = PodPort(ports["original"], "udp")
    listener_port = free_port(socket.SOCK_DGRAM)

    def claim(mode: Mode, *, up: bool) -> LiveClaim:
        spec = Spec(FIRST, WORKLOAD, mode, MINE if mode.needs_match else None, (Port(voice.number, "udp", 9090),))
        relay = Relay(voice.number, "udp", ports["laptop"])
        return LiveClaim(spec, "a@laptop", (relay,), frozenset({voice} if up else ()))

    assert wanted([claim(MESH, up=True)], ()) == ()
    async with running() as envoy:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", listener_port))
            sock.setblocking(False)
            for up, letter in ((True, b"l"), (False, b"o"), (True, b"l")):
                claims = [claim(PROXY, up=up)]
                served = tuple(Served(each, listener_port) for each in wanted(claims, ()))
                await envoy.ads.serve(resources(PodView(LOOPBACK, served), LOOPBACK, claims))
                for size in (0, 1, 1400, 60_000):
                    await loop.sock_sendall(sock, b"x" * size)
                    async with asyncio.timeout(5):
                        assert await loop.sock_recv(sock, 65536) == letter + b"x" * size
        found = stats.read(await envoy.admin(stats.TARGET))
        assert found.flows[voice].errors == 0
        assert found.flows[voice].matched >= 1
