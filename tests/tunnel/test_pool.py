"""The pool against a real tunnel server: up, down, up again, and nothing left behind."""

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from meshdev.errors import DeviceError, ForbiddenError, MeshdevError, PortForwardError, RouteError
from meshdev.pump import pump
from meshdev.tun.memory import MemoryQueue
from meshdev.tun.offload import VNET_HEADER_LENGTH
from meshdev.tunnel import pool as pool_module
from meshdev.tunnel.pool import FIRST_BACKOFF, Pool
from meshdev.tunnel.traffic import TunnelTraffic
from meshdev.wire.control import Welcome
from tests.manager.standin import HELLO, Manager, Visitor, hello, running
from tests.pump.ends import packet
from tests.tunnel.standin import Connection, Laptop, Relay, dial
from tests.waiting import until

pytestmark = pytest.mark.usefixtures("nothing_left")


@asynccontextmanager
async def kept_up(pool: Pool) -> AsyncIterator[None]:
    """The pool as a session uses it."""
    async with pool.running():
        await pool.start()
        task = asyncio.create_task(pool.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])


def up(pool: Pool) -> int:
    return sum(carrier.up for carrier in pool.carriers())


async def test_start_brings_one_carrier_up_and_run_all_of_them(manager: Manager, laptop: Laptop) -> None:
    pool = laptop.pool(lambda: dial(manager.address))
    async with pool.running():
        welcome = await pool.start()
        assert pool.welcome == welcome
        assert pool.connected()
        assert [carrier.kind for carrier in pool.carriers()] == ["plain"]
    pool = laptop.pool(lambda: dial(manager.address), hello("bob"))
    async with kept_up(pool):
        await until(lambda: up(pool) == 2)
        await until(lambda: manager.network.attached(laptop.welcomes[-1].address) == [True, True])
    assert len(laptop.welcomes) == 2
    assert not pool.connected()


async def test_whether_the_manager_answered_is_told_of_each_carrier(
    manager: Manager, laptop: Laptop, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A middlebox answers the upgrade and swallows what comes then."""
    monkeypatch.setattr("meshdev.tunnel.carrier.WELCOME_SECONDS", 0.2)
    relay.freeze()
    ways, told = itertools.chain([relay.address], itertools.repeat(manager.address)), list[tuple[str, str]]()

    def greeted(kind: str, error: MeshdevError | None) -> None:
        told.append((kind, error.message if error else "answered"))

    pool = Pool(laptop.device.queues, lambda: dial(next(ways)), HELLO, laptop._note, on_greeted=greeted)
    async with kept_up(pool):
        await until(lambda: up(pool) == 2)
    relay.thaw()
    assert told == [("plain", "the manager did not answer within 0 seconds"), *[("plain", "answered")] * 2]


async def test_packets_pass_both_ways_on_each_carrier(manager: Manager, laptop: Laptop) -> None:
    pool = laptop.pool(lambda: dial(manager.address))
    loop = asyncio.get_running_loop()
    async with kept_up(pool):
        await until(lambda: up(pool) == 2)
        for index, kernel in enumerate(laptop.kernel):
            cluster = manager.network.cluster_side(laptop.welcomes[0].address, index)
            os.set_blocking(cluster, True)
            os.set_blocking(kernel, True)
            os.write(kernel, packet(index))
            assert await loop.run_in_executor(None, os.read, cluster, 1 << 16) == packet(index)
            os.write(cluster, packet(index + 10))
            assert await loop.run_in_executor(None, os.read, kernel, 1 << 16) == packet(index + 10)
        # The pump counts a packet once it has delivered it: the reader may be faster.
        counters = [carrier.counters for carrier in pool._carriers.values()]
        await until(lambda: [(one.packets_out, one.packets_in) for one in counters] == [(1, 1), (1, 1)])
    await loop.shutdown_default_executor()


async def test_leaving_says_bye_so_that_the_session_is_gone_at_once(manager: Manager, laptop: Laptop) -> None:
    pool = laptop.pool(lambda: dial(manager.address))
    async with kept_up(pool):
        await until(lambda: up(pool) == 2)
        assert manager.holders() == ["ann@laptop"]
    await until(lambda: manager.holders() == [])
    assert [isinstance(queue, MemoryQueue) and queue.attached for queue in laptop.device.queues] == [False, False]


async def test_a_cut_carrier_is_dialled_again_to_the_same_session(
    manager: Manager, laptop: Laptop, relay: Relay
) -> None:
    pool = laptop.pool(lambda: dial(relay.address))
    async with kept_up(pool):
        for round_number in range(1, 4):
            await until(lambda: up(pool) == 2)
            relay.cut()
            await until(lambda enough=2 * round_number: relay.accepted > enough)  # type: ignore[misc]  # its default has no type
        await until(lambda: up(pool) == 2)
        assert len(laptop.welcomes) == 1
        assert manager.holders() == ["ann@laptop"]
        await until(lambda: pool.reconnects == relay.accepted - 2)


async def test_traffic_outlives_its_carriers(manager: Manager, laptop: Laptop, relay: Relay) -> None:
    pool = laptop.pool(lambda: dial(relay.address))
    async with kept_up(pool):
        await until(lambda: up(pool) == 2)
        assert (pool.traffic(), pool.reconnects) == (TunnelTraffic(), 0)
        size = len(packet(0)) - VNET_HEADER_LENGTH
        for number in (1, 2):
            for index, kernel in enumerate(laptop.kernel):
                os.write(kernel, packet(index))
                os.write(manager.network.cluster_side(laptop.welcomes[0].address, index), packet(index))
            passed = TunnelTraffic(2 * number, 2 * number, 2 * number * size, 2 * number * size)
            await until(lambda passed=passed: pool.traffic() == passed)  # type: ignore[misc]  # its default has no type
            relay.cut()
            await until(lambda number=number: pool.reconnects == 2 * number)  # type: ignore[misc]  # the same
            await until(lambda: up(pool) == 2)
            assert pool.traffic() == passed
    assert pool.traffic() == passed


@pytest.mark.usefixtures("_impatient")
async def test_a_black_hole_is_seen_and_left(laptop: Laptop, relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshdev.tunnel.carrier.WELCOME_SECONDS", 0.3)
    pool = laptop.pool(lambda: dial(relay.address))
    async with kept_up(pool):
        await until(lambda: up(pool) == 2)
        relay.freeze()
        begun = time.monotonic()
        await until(lambda: not pool.connected())
        doubted = time.monotonic() - begun
        await until(lambda: relay.accepted > 2)
        assert doubted < 0.5 <= time.monotonic() - begun < 2
        relay.thaw()
        await until(lambda: up(pool) == 2)
        assert len(laptop.welcomes) == 1
    assert pool.last_error is not None


@pytest.mark.usefixtures("_impatient")
async def test_a_carrier_that_alone_is_silent_is_left_before_its_silence_is_proof(
    manager: Manager, laptop: Laptop, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump, "SILENCE_SECONDS", 60)
    monkeypatch.setattr(pool_module, "LOOK_SECONDS", 0.05)
    ways = itertools.chain([relay.address], itertools.repeat(manager.address))
    pool = laptop.pool(lambda: dial(next(ways)))
    async with kept_up(pool):
        await until(lambda: up(pool) == 2)
        relay.freeze()
        await until(lambda: up(pool) == 1)
        await until(lambda: up(pool) == 2)
        assert relay.accepted == 1


async def test_another_manager_may_bring_another_address(laptop: Laptop, relay: Relay, tmp_path: Path) -> None:
    pool = laptop.pool(lambda: dial(relay.address))
    (tmp_path / "second").mkdir()
    async with kept_up(pool):
        await until(lambda: up(pool) == 2)
        first = laptop.welcomes[0]
        with running(tmp_path / "second") as second:
            with Visitor(second) as squatter:
                squatter.say(hello("squatter", wanted=first.address)).welcome()
                relay.target = second.address
                relay.cut()
                await until(lambda: len(laptop.welcomes) == 2)
                await until(lambda: up(pool) == 2)
            assert laptop.welcomes[1].address == first.address + 1
            assert second.holders() == ["squatter", "ann@laptop"]
            relay.target = ("127.0.0.1", 1)
            relay.cut()
            await until(lambda: not pool.connected())


async def test_a_new_manager_that_has_the_old_address_free_gives_it_and_nobody_is_told(
    laptop: Laptop, relay: Relay, tmp_path: Path
) -> None:
    (tmp_path / "second").mkdir()
    pool = laptop.pool(lambda: dial(relay.address), replace(HELLO, wanted=HELLO.pools[0][77]))
    async with kept_up(pool):
        await until(lambda: up(pool) == 2)
        with running(tmp_path / "second") as second:
            relay.target = second.address
            relay.cut()
            await until(lambda: up(pool) == 2 and second.holders() == ["ann@laptop"])
            relay.target = ("127.0.0.1", 1)
            relay.cut()
    assert [welcome.address for welcome in laptop.welcomes] == [HELLO.pools[0][77]]


async def test_start_tries_again_while_the_pod_does_not_listen_yet(manager: Manager, laptop: Laptop) -> None:
    times: list[float] = []

    async def late() -> Connection:
        times.append(time.monotonic())
        if len(times) < 4:
            raise PortForwardError("connection refused")
        return await dial(manager.address)

    async with (pool := laptop.pool(late)).running():
        await pool.start()
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert [gap >= FIRST_BACKOFF * factor for gap, factor in zip(gaps, (1, 2, 4), strict=True)] == [True] * 3


async def test_start_gives_up_with_the_last_reason(laptop: Laptop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "START_SECONDS", 0.2)

    async def never() -> Connection:
        raise PortForwardError("connection refused")

    async with (pool := laptop.pool(never)).running():
        with pytest.raises(PortForwardError, match="connection refused"):
            await pool.start()


async def test_start_does_not_wait_where_another_try_cannot_help(laptop: Laptop) -> None:
    dialled: list[None] = []

    async def forbidden() -> Connection:
        dialled.append(None)
        raise ForbiddenError("pods/portforward")

    async with (pool := laptop.pool(forbidden)).running():
        with pytest.raises(ForbiddenError):
            await pool.start()
    assert len(dialled) == 1


async def test_carriers_that_end_as_soon_as_they_are_up_are_dialled_ever_more_slowly(
    manager: Manager, laptop: Laptop
) -> None:
    times: list[float] = []

    async def spoilt() -> Connection:
        connection = await dial(manager.address)
        times.append(time.monotonic())
        return connection

    async def nobody(_: Welcome) -> None:
        return None

    pool = Pool(laptop.device.queues[:1], spoilt, HELLO, nobody)
    async with kept_up(pool):
        while len(times) < 4:
            # Another carrier with the same number makes the manager end ours.
            count = len(times)
            with Visitor(manager) as rival:
                rival.say(HELLO)
                await until(lambda count=count: len(times) > count)  # type: ignore[misc]  # its default has no type
                await until(lambda: up(pool) == 1)
    assert times[3] - times[1] >= FIRST_BACKOFF * (2 + 4)


# -- whatever happens, nothing is left: the fixture nothing_left looks -----------------------------------------------


async def cancelled(work: Awaitable[None], when: Callable[[], object]) -> None:
    task = asyncio.ensure_future(work)
    await until(when)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled_while_dialling(laptop: Laptop) -> None:
    dialling = asyncio.Event()

    async def hang() -> Connection:
        dialling.set()
        await asyncio.Event().wait()
        raise AssertionError

    await cancelled(work(laptop.pool(hang)), dialling.is_set)


async def test_cancelled_while_waiting_for_welcome(laptop: Laptop, relay: Relay) -> None:
    relay.freeze()
    await cancelled(work(laptop.pool(lambda: dial(relay.address))), lambda: relay.accepted)


async def test_cancelled_while_up(manager: Manager, laptop: Laptop) -> None:
    pool = laptop.pool(lambda: dial(manager.address))
    await cancelled(work(pool), lambda: up(pool) == 2)
    await until(lambda: manager.holders() == [])


async def test_cancelled_in_a_black_hole(laptop: Laptop, relay: Relay) -> None:
    pool = laptop.pool(lambda: dial(relay.address))

    def in_a_black_hole() -> bool:
        if up(pool) < 2:
            return False
        relay.freeze()
        return True

    await cancelled(work(pool), in_a_black_hole)


async def work(pool: Pool) -> None:
    async with pool.running(), asyncio.TaskGroup() as group:
        await pool.start()
        group.create_task(pool.run())
        await asyncio.Event().wait()


async def test_an_error_in_the_block(manager: Manager, laptop: Laptop) -> None:
    pool = laptop.pool(lambda: dial(manager.address))

    async def fail() -> None:
        async with pool.running():
            await pool.start()
            raise RouteError("no")

    with pytest.raises(ExceptionGroup) as caught:
        await fail()
    assert caught.group_contains(RouteError)
    await until(lambda: manager.holders() == [])


async def test_a_laptop_that_cannot_take_the_address(manager: Manager, laptop: Laptop) -> None:
    async def refuse(_: Welcome) -> None:
        raise RouteError("no")

    async with (pool := laptop.pool(lambda: dial(manager.address), on_welcome=refuse)).running():
        with pytest.raises(RouteError):
            await pool.start()
        assert pool.welcome is None
        assert not pool.connected()


async def test_a_device_that_was_taken_away_ends_the_run(
    laptop: Laptop, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: object) -> None:
        raise DeviceError("the TUN queue does not change state: Invalid argument")

    pool = laptop.pool(lambda: dial(relay.address))
    async with pool.running():
        await pool.start()
        running_pool = asyncio.create_task(pool.run())
        await until(lambda: up(pool) == 2)
        monkeypatch.setattr(MemoryQueue, "detach", gone)
        monkeypatch.setattr(MemoryQueue, "attach", gone)
        relay.cut()
        with pytest.raises(ExceptionGroup) as caught:
            await running_pool
        assert caught.group_contains(DeviceError)


async def test_a_bug_in_the_packet_loop_ends_the_block(manager: Manager, laptop: Laptop) -> None:
    pool = laptop.pool(lambda: dial(manager.address))
    nothing: dict[str, None] = {}

    async def meet_a_bug() -> None:
        async with pool.running():
            await pool.start()
            pool._loop.post(lambda: nothing["a bug"])
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as caught:
        await meet_a_bug()
    assert caught.group_contains(KeyError)
