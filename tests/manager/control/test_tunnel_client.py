"""The control container's end of the socket: who comes and goes is logged, a tunnel that restarts is met again."""

import asyncio
import logging
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from meshdev.manager.control import link, tunnel_client
from meshdev.manager.control.tunnel_client import TunnelClient
from meshdev.wire.control import Close
from meshdev.wire.manager import Allow, ManagerAddress, PodReport, Synced, ToControl, ToTunnel
from tests.manager.standin import Visitor, hello, running
from tests.waiting import until


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "RETRY_SECONDS", 0.01)


async def test_it_logs_who_comes_and_goes_and_waits_for_a_tunnel_that_restarts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, tunnel_client.log.name)
    heard: list[ToControl] = []
    met: list[bool] = []
    one = TunnelClient(tmp_path / "tunnel.sock", lambda: met.append(True), heard.append, lambda: ())
    task = asyncio.ensure_future(one.run())
    for number, name in enumerate(("ann 198.18.0.2", "bob 198.18.0.3")):
        with running(tmp_path) as manager:
            await until(lambda number=number: len(met) == number + 1)  # type: ignore[misc]  # a default in a lambda
            await until(lambda number=number: len(heard) == 2 * (number + 1))  # type: ignore[misc]  # a default in a lambda
            with Visitor(manager) as visitor:
                visitor.say(hello(name.split()[0])).welcome()
                visitor.say(Close("bye", ""))
                await until(lambda name=name: f"left {name}" in caplog.messages)  # type: ignore[misc]  # a default in a lambda
            assert f"joined {name}" in caplog.messages
    assert heard == [ManagerAddress(IPv4Address("10.244.0.9")), Synced()] * 2
    task.cancel()
    await asyncio.wait([task])


async def test_what_waits_is_the_newest_and_a_new_tunnel_hears_what_holds(tmp_path: Path) -> None:
    said: list[ToTunnel] = []
    holds = Allow(20000, (), False)
    one = TunnelClient(tmp_path / "tunnel.sock", lambda: None, lambda _: None, lambda: [("allow 20000", holds)])
    task = asyncio.ensure_future(one.run())
    for _ in range(2):
        with running(tmp_path) as manager:
            manager.control.attach(tuple, said.append)
            await until(lambda: holds in said)
            for number in range(2000):
                one.send_latest("report", PodReport("1" * 32, "b-1", False, b"%d" % number))
            await until(lambda: any(isinstance(each, PodReport) and each.body == b"1999" for each in said))
            assert len(said) < 50
            said.clear()
    task.cancel()
    await asyncio.wait([task])


async def test_a_tunnel_that_never_pauses_leaves_others_their_turn(tmp_path: Path) -> None:
    heard: list[ToControl] = []
    marks = set[int]()
    turns = 0

    def hear(message: ToControl) -> None:
        """Slower than they come, so that there is always another one."""
        sum(range(100_000))
        heard.append(message)
        marks.add(turns)

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    with running(tmp_path) as manager:
        one = TunnelClient(tmp_path / "tunnel.sock", lambda: None, hear, lambda: ())
        many = [(f"pod {number}", ManagerAddress(IPv4Address("10.0.0.0") + number)) for number in range(200)]
        manager.control.attach(lambda: many, lambda _: None)
        tasks = [asyncio.ensure_future(one.run()), asyncio.ensure_future(others())]
        await until(lambda: len(heard) == len(many))
        assert len(marks) == len(many)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
