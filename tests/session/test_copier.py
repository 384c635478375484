"""Copiers: 127.0.0.1 to ::1, both ways, with ends and resets as they are."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from meshdev.isolation.network import THIS_NETWORK
from meshdev.session import copier as module
from meshdev.session.copier import Copier, Program, open_copier
from meshdev.wire.ports import Transport
from tests.sockets import reset
from tests.waiting import until


@asynccontextmanager
async def copying(port: int, transport: Transport = "tcp") -> AsyncIterator[Copier]:
    """A copier; its connections are cut at the end of the block."""

    async def live() -> None:
        async with asyncio.TaskGroup() as group:
            made.set_result(await open_copier(THIS_NETWORK, Program(THIS_NETWORK, "::1", port), transport, group))
            await asyncio.Event().wait()

    made: asyncio.Future[Copier] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(live())
    try:
        copier = await made
        yield copier
        copier.close()
    finally:
        task.cancel()
        await asyncio.wait([task])


def program() -> socket.socket:
    sock = socket.create_server(("::1", 0), family=socket.AF_INET6)
    sock.settimeout(5)
    return sock


def call(copier: Copier, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind)
    sock.settimeout(5)
    try:
        sock.connect(("127.0.0.1", copier.port))
    except OSError:
        sock.close()
        raise
    return sock


async def pair(listener: socket.socket, copier: Copier) -> tuple[socket.socket, socket.socket]:
    """A client's end and the program's."""
    client = call(copier)
    end, _ = await asyncio.to_thread(listener.accept)
    end.settimeout(5)
    return client, end


async def hear(sock: socket.socket) -> bytes:
    return await asyncio.to_thread(sock.recv, 1 << 16)


async def hear_all(sock: socket.socket) -> int:
    total = 0
    while data := await hear(sock):
        total += len(data)
    return total


async def test_half_closed_connections_go_on() -> None:
    with program() as listener:
        async with copying(listener.getsockname()[1]) as copier:
            client, end = await pair(listener, copier)
            with client, end:
                client.sendall(b"question")
                client.shutdown(socket.SHUT_WR)
                assert await hear(end) == b"question"
                assert await hear(end) == b""
                end.sendall(b"answer")
                assert await hear(client) == b"answer"
                end.shutdown(socket.SHUT_WR)
                assert await hear(client) == b""


async def test_much_goes_both_ways_at_once() -> None:
    size = 8 << 20
    with program() as listener:
        async with copying(listener.getsockname()[1]) as copier:
            client, end = await pair(listener, copier)
            with client, end:

                def send(sock: socket.socket) -> None:
                    sock.sendall(bytes(size))
                    sock.shutdown(socket.SHUT_WR)

                sending = [asyncio.to_thread(send, sock) for sock in (client, end)]
                *_, there, back = await asyncio.gather(*sending, hear_all(end), hear_all(client))
    assert (there, back) == (size, size)


async def test_who_does_not_read_is_not_read_for() -> None:
    with program() as listener:
        async with copying(listener.getsockname()[1]) as copier:
            client, end = await pair(listener, copier)
            with client, end:
                client.settimeout(0.3)
                # More than the kernel holds for four sockets.
                with pytest.raises(TimeoutError):
                    await asyncio.to_thread(client.sendall, bytes(128 << 20))


@pytest.mark.parametrize("side", [0, 1])
async def test_a_reset_is_handed_on(side: int) -> None:
    with program() as listener:
        async with copying(listener.getsockname()[1]) as copier:
            ends = await pair(listener, copier)
            with ends[1 - side] as other:
                reset(ends[side])
                with pytest.raises(ConnectionResetError):
                    await hear(other)


async def test_nobody_behind_is_a_reset() -> None:
    with program() as listener:
        port = listener.getsockname()[1]
    async with copying(port) as copier:
        with call(copier) as client, pytest.raises(ConnectionResetError):
            await hear(client)


async def test_a_closed_copier_keeps_its_connections_and_its_group_resets_them() -> None:
    with program() as listener:
        async with copying(listener.getsockname()[1]) as copier:
            client, end = await pair(listener, copier)
            copier.close()
            with pytest.raises(ConnectionRefusedError):
                call(copier)
            client.sendall(b"still here")
            assert await hear(end) == b"still here"
        for sock in (client, end):
            with sock, pytest.raises(ConnectionResetError):
                await hear(sock)


async def test_there_is_an_end_to_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FLOWS", 1)
    with program() as listener:
        async with copying(listener.getsockname()[1]) as copier:
            client, end = await pair(listener, copier)
            with call(copier) as more, pytest.raises(ConnectionResetError):
                await hear(more)
            client.close()
            assert await hear(end) == b""
            end.close()
            assert isinstance(copier, module._Streams)
            await until(lambda: not copier._open)
            client, end = await pair(listener, copier)
            client.close()
            end.close()


def datagrams() -> socket.socket:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    sock.settimeout(5)
    sock.bind(("::1", 0))
    return sock


async def answered(client: socket.socket, server: socket.socket, words: bytes) -> tuple[str, int]:
    """The program hears *words* and its answer comes back; whom it saw."""
    client.send(words)
    data, peer = await asyncio.to_thread(server.recvfrom, 1 << 16)
    assert data == words
    server.sendto(b"re: " + words, peer)
    assert await hear(client) == b"re: " + words
    return peer[0], peer[1]


async def test_datagrams_find_back_to_their_clients() -> None:
    with datagrams() as server:
        async with copying(server.getsockname()[1], "udp") as copier:
            with call(copier, socket.SOCK_DGRAM) as one, call(copier, socket.SOCK_DGRAM) as two:
                peers = [await answered(each, server, words) for each, words in ((one, b"a"), (two, b""), (one, b"b"))]
                assert peers[0] == peers[2] != peers[1]
                await answered(one, server, bytes(60000))


async def test_the_oldest_client_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FLOWS", 2)
    with datagrams() as server:
        async with copying(server.getsockname()[1], "udp") as copier:
            clients = [call(copier, socket.SOCK_DGRAM) for _ in range(3)]
            peers = [await answered(each, server, b"x") for each in (*clients, clients[2], clients[1], clients[0])]
            assert peers[3] == peers[2]
            assert peers[4] == peers[1]
            assert peers[5] not in peers[:5]
            for each in clients:
                each.close()


async def test_a_silent_client_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.05)
    with datagrams() as server:
        async with copying(server.getsockname()[1], "udp") as copier:
            assert isinstance(copier, module._Datagrams)
            with call(copier, socket.SOCK_DGRAM) as client:
                await answered(client, server, b"x")
                await until(lambda: not copier._clients)
                await answered(client, server, b"y")


async def test_datagrams_to_nobody_are_lost_and_the_next_program_hears() -> None:
    with datagrams() as server:
        address = server.getsockname()
    async with copying(address[1], "udp") as copier:
        with call(copier, socket.SOCK_DGRAM) as client:
            for _ in range(3):
                client.send(b"lost")
                await asyncio.sleep(0)
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
                server.setblocking(False)
                server.bind(address[:2])
                await until(lambda: client.send(b"again") and _heard(server))


def _heard(sock: socket.socket) -> bytes:
    try:
        return sock.recv(100)
    except BlockingIOError:
        return b""
