"""A helper that is killed: nothing comes in while its device is still there, and everything is undone at once."""

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.netns.helpers import ADDRESS, helper, leftovers
from tests.netns.laptop import RESOLV_CONF, Laptop
from tests.netns.packets import datagram
from tests.waiting import until


@contextmanager
def _injecting(queue: int) -> Iterator[list[int]]:
    """Somebody at the tunnel's other end sends without a pause; how many packets the device took."""
    over, taken = threading.Event(), [0]
    packet = datagram("10.96.0.9", 53, 4000)

    def inject() -> None:
        while not over.is_set():
            try:
                os.writev(queue, [packet])
            except OSError:  # the device is gone; the descriptor is the session's and stays
                return
            taken[0] += 1

    thread = threading.Thread(target=inject)
    thread.start()
    try:
        yield taken
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("number", range(5))
async def test_nothing_comes_in_after_sigkill(laptop: Laptop, number: int) -> None:  # noqa: ARG001 -- it is a race
    async with helper(laptop) as connection:
        await connection.set_up()
        assert connection.device is not None
        with laptop.inside():
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sock, _injecting(connection.device.queues[0].fileno()) as taken:
            sock.bind((str(ADDRESS), 4000))
            sock.setblocking(False)
            await until(lambda: taken[0] > 100)
            before = taken[0]
            connection.kill_helper()
            await connection.helper_ended()
            assert "meshdev0" not in laptop.run("ip", "link")
            with pytest.raises(BlockingIOError):
                sock.recv(100)
        assert taken[0] > before


async def test_everything_is_undone_while_the_session_is_frozen(laptop: Laptop) -> None:
    before = laptop.snapshot()
    async with helper(laptop) as connection:
        await connection.set_up()
        connection.kill_helper()
        await connection.helper_ended()
        assert laptop.snapshot() == before  # the session has its descriptors still
        assert leftovers(laptop) == []
        async with helper(laptop) as second:
            await second.set_up()


async def test_resolv_conf_comes_back(laptop: Laptop) -> None:
    laptop.hide_nftables()
    async with helper(laptop) as connection:
        await connection.set_up(unguarded=True)
        assert laptop.run("cat", "/etc/resolv.conf") != RESOLV_CONF
        connection.kill_helper(signal.SIGSEGV)
        await connection.helper_ended()
        assert laptop.run("cat", "/etc/resolv.conf") == RESOLV_CONF


async def test_without_its_keeper_the_helper_undoes_everything(laptop: Laptop) -> None:
    before = laptop.snapshot()
    async with helper(laptop) as connection:
        await connection.set_up()
        os.kill(connection.keeper, signal.SIGKILL)
        await connection.helper_ended()
        assert laptop.snapshot() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
async def test_signals_are_the_helpers_business(laptop: Laptop, number: signal.Signals) -> None:
    async with helper(laptop) as connection:
        await connection.set_up()
        os.kill(connection.keeper, number)
        assert (await connection.client.heartbeat()).active
        await connection.client.close()
        async with asyncio.timeout(5):
            await connection.client.gone.wait()
