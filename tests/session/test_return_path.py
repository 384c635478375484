"""The acceptor and the SYN by hand; the return path itself is probed in tests/netns."""

import asyncio
import socket
from ipaddress import IPv4Address

import pytest

from meshdev.errors import LaptopError
from meshdev.session import return_path
from meshdev.session.return_path import accepting, syn
from meshdev.tun.linux import LinuxQueue
from tests.waiting import until

GATEWAY, ADDRESS = IPv4Address("198.18.0.1"), IPv4Address("198.18.0.7")


def test_a_syn() -> None:
    packet = syn(GATEWAY, 40000, ADDRESS, 20001)
    ip = "45000028 00004000 0106 eda3 c6120001 c6120007".replace(" ", "")
    tcp = "9c404e21 00000000 00000000 5002ffff 3954 0000".replace(" ", "")
    assert packet.hex() == ip + tcp


async def test_whoever_connects_is_counted_and_closed() -> None:
    async with accepting() as made:
        for count in (1, 2):
            _, writer = await asyncio.open_connection(str(made.target.address), made.target.port)
            await until(lambda: made.came == count)  # noqa: B023 -- awaited within the turn
            writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", made.target.port)


async def test_a_kernel_that_does_not_count_blames_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(return_path, "COME_IN_SECONDS", 0.05)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    queue = LinuxQueue(ours.detach())
    with theirs:
        async with accepting() as made:
            assert not await made.passes(queue, GATEWAY, ADDRESS, 20001)
            made._sock.setsockopt(socket.IPPROTO_IP, return_path._IP_MINTTL, 0)
            assert await made.passes(queue, GATEWAY, ADDRESS, 20001)
        queue.close()


async def test_what_never_comes_in_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(return_path, "COME_IN_SECONDS", 0.05)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    queue = LinuxQueue(ours.detach())
    async with accepting() as made:
        assert not await made.passes(queue, GATEWAY, ADDRESS, 20001)
        written = theirs.recv(1 << 16)
        assert written[:10] == bytes(10)
        assert (written[22:26], written[26:30]) == (GATEWAY.packed, ADDRESS.packed)
        queue.close()
        with theirs, pytest.raises(LaptopError, match="takes no packet"):
            await made.passes(queue, GATEWAY, ADDRESS, 20001)
