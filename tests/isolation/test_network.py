"""Sockets of another network, from a process in there."""

import asyncio
import errno
import os
import select
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Final

import pytest

from meshdev.errors import IsolationError
from meshdev.isolation.network import NetworkSockets, OtherNetwork, ThisNetwork, opened_network
from meshdev.isolation.socket_server import ANSWER, REQUEST, serve
from tests.isolation.places import AS_USER, DEADLINE, Place, joined, place, python, run

_LISTEN: Final = """
import socket, sys
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    while True:
        with listener.accept()[0] as sock:
            sock.sendall(b"there")
"""
_CONNECT: Final = """
import asyncio, socket
from meshdev.isolation.network import opened_network
async def main():
    async with opened_network(int(sys.argv[1])) as network:
        with await network.open_socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", int(sys.argv[2])))
            print((await asyncio.get_running_loop().sock_recv(sock, 10)).decode(), flush=True)
        sys.stdin.read()
asyncio.run(main())
"""


@pytest.fixture(scope="module")
def held(folder: Path) -> Iterator[Place]:
    """A network of this user's own."""
    with place(folder / "held", prefix=()) as made:
        yield made


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@contextmanager
def listening(there: Place) -> Iterator[int]:
    """A program in there that listens; its port."""
    command = [*there.prefix, *joined(there.pid, *python(_LISTEN))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, process_group=0) as program:
        assert program.stdout is not None
        try:
            yield int(program.stdout.readline())
        finally:
            os.killpg(program.pid, 9)


async def received(network: NetworkSockets, port: int) -> bytes:
    """What who listens there sends."""
    with await network.open_socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        return await asyncio.get_running_loop().sock_recv(sock, 10)


async def test_sockets_are_of_that_network_and_ours_of_this_one(held: Place) -> None:
    with listening(held) as port:
        async with opened_network(held.pid) as network:
            assert await received(network, port) == b"there"
            with pytest.raises(ConnectionRefusedError):
                await received(ThisNetwork(), port)
            with await network.open_socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
                assert (sock.family, sock.type) == (socket.AF_INET6, socket.SOCK_DGRAM)
                assert not sock.get_inheritable()
                assert not sock.getblocking()


async def test_a_user_without_rights_has_them_too(there: Place) -> None:
    with listening(there) as port:
        ended = run([*AS_USER, *python(_CONNECT, str(there.pid), str(port))])
        assert ended.stdout == "there\n", ended.stderr


async def test_who_gives_up_does_not_mix_up_the_others(held: Place) -> None:
    before = _open_files()
    async with opened_network(held.pid) as network:
        asking = [
            asyncio.create_task(network.open_socket(socket.AF_INET, kind))
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM) * 20
        ]
        await asyncio.sleep(0)
        for task in asking[::3]:
            task.cancel()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        made = [each for each in answers if isinstance(each, socket.socket)]
        assert len(made) == 26
        assert all(
            answer.type == kind
            for answer, kind in zip(answers, (socket.SOCK_STREAM, socket.SOCK_DGRAM) * 20, strict=True)
            if isinstance(answer, socket.socket)
        )
        for sock in made:
            sock.close()
    assert _open_files() == before


async def test_only_plain_sockets_are_made(held: Place) -> None:
    async with opened_network(held.pid) as network:
        for family, kind in ((socket.AF_INET, socket.SOCK_RAW), (socket.AF_UNIX, socket.SOCK_STREAM), (-1, 1 << 30)):
            with pytest.raises(PermissionError):
                await network.open_socket(family, kind)
        (await network.open_socket(socket.AF_INET, socket.SOCK_STREAM)).close()


async def test_a_network_that_is_gone_is_an_error(folder: Path) -> None:
    with place(folder / "left", prefix=()) as made:
        async with opened_network(made.pid) as network:
            network.close()
            with pytest.raises(OSError, match="is gone") as raised:
                await network.open_socket(socket.AF_INET, socket.SOCK_STREAM)
            assert raised.value.errno == errno.ENETDOWN
    with pytest.raises(IsolationError, match="cannot be entered: No such process"):
        async with opened_network(made.pid):
            pass


def test_the_server_ends_with_whoever_started_it(there: Place) -> None:
    """Killed, too: nobody tells it, its socket is closed."""
    with listening(there) as port:
        command = [*AS_USER, *python(_CONNECT, str(there.pid), str(port))]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as session:
            assert session.stdout is not None
            assert session.stdout.readline() == "there\n"
            (child,) = _children(session.pid)
            server = os.pidfd_open(int(child))
            session.kill()
        try:
            assert select.select([server], [], [], DEADLINE)[0], "it still runs"
        finally:
            os.close(server)


@pytest.mark.parametrize("request_", [b"", b"short", b"x" * (REQUEST.size + 1)])
def test_the_server_ends_by_what_is_no_request(request_: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        serving = Thread(target=serve, args=[theirs])
        serving.start()
        if request_:
            ours.send(request_)
        else:
            ours.close()
        serving.join(DEADLINE)
        assert not serving.is_alive()


@pytest.mark.parametrize("answer", [b"", b"x", ANSWER.pack(0), ANSWER.pack(errno.EMFILE)])
async def test_whatever_a_server_answers_is_an_error_at_most(answer: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.setblocking(False)
        network = OtherNetwork(ours)
        asking = asyncio.create_task(network.open_socket(socket.AF_INET, socket.SOCK_STREAM))
        await asyncio.sleep(0)
        if answer:
            theirs.send(answer)
        else:
            theirs.close()
        with pytest.raises(OSError, match=r"gone|Too many open files"):
            await asking
        network.close()
