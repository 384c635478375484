"""The stream ``dashboard``: a server that exists exactly as long as its command."""

import asyncio
import json
import logging
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from meshdev.errors import InterceptError, LaptopError
from meshdev.session import dashboard
from meshdev.session.api import Exchange
from meshdev.session.intercepts import NotConnected
from meshdev.session.state import SessionState
from meshdev.wire.session_api import Event
from meshdev.wire.session_dashboard import DashboardRequest, DashboardServed
from meshdev.wire.session_intercepts import Left
from tests.kube.fake_api import FakeApi
from tests.metrics.client import exchange as http
from tests.metrics.client import read
from tests.session.test_dashboard_feed import World, world
from tests.session.test_inspecting import FakeExchange
from tests.waiting import until

__all__ = ["world"]
URL = re.compile(r"http://127\.0\.0\.1:([0-9]+)/#token=([\w-]{43})")


class Command:
    """``meshdev dashboard``, seen from the session."""

    def __init__(self, world: World, port: int | None = None) -> None:
        self.exchange = FakeExchange()
        self.closing = asyncio.Event()
        self.stream = asyncio.ensure_future(
            dashboard.stream(
                world.feed._observed, self.closing, DashboardRequest(port), cast("Exchange", self.exchange)
            )
        )

    @property
    def events(self) -> list[Event]:
        return self.exchange.events

    async def url(self) -> tuple[int, str]:
        """Port and token."""
        await until(lambda: self.events or self.stream.done())
        (served,) = self.events
        assert isinstance(served, DashboardServed)
        found = URL.fullmatch(served.url)
        assert found is not None
        return int(found[1]), found[2]


@asynccontextmanager
async def commanded(world: World, port: int | None = None) -> AsyncIterator[Command]:
    command = Command(world, port)
    try:
        yield command
    finally:
        command.exchange.close()
        await asyncio.wait_for(command.stream, 5)


async def get(port: int, token: str, path: str, method: str = "GET", body: str = "") -> tuple[int, bytes]:
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        f"Authorization: Bearer {token}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    status, _, answer = read(await http(port, "\r\n".join([*lines, "", body]).encode()))
    return status, answer


async def is_refused(port: int) -> bool:
    try:
        await http(port, b"")
    except ConnectionRefusedError:
        return True
    return False


async def test_it_is_served_until_its_command_ends(world: World) -> None:
    async with commanded(world) as command:
        port, token = await command.url()
        status, page = await get(port, token, "/")
        assert (status, b"<!doctype html>" in page) == (200, True)
    assert await is_refused(port)
    assert len(command.events) == 1


async def test_each_has_a_token_of_its_own(world: World) -> None:
    async with commanded(world) as one, commanded(world) as other:
        (port, token), (_, other_token) = await one.url(), await other.url()
        assert token != other_token
        assert (await get(port, other_token, "/events"))[0] == 401


async def test_an_intercept_is_left_by_its_id(world: World) -> None:
    async with commanded(world) as command:
        port, token = await command.url()
        assert await get(port, token, "/leave", "POST", json.dumps({"id": world.chosen[0].id})) == (200, b"{}")
        assert world.left == [world.chosen[0].id]
        status, answer = await get(port, token, "/leave", "POST", '{"id": "x"}')
        assert (status, b"no such intercept" in answer) == (409, True)


async def test_it_ends_with_the_connection_and_says_so(world: World) -> None:
    async with commanded(world) as command:
        port, _ = await command.url()
        command.closing.set()
        await until(command.stream.done)
        assert command.events[1:] == [Left()]
        assert await is_refused(port)


async def test_a_session_that_is_cancelled_leaves_nothing(world: World) -> None:
    command = Command(world)
    port, _ = await command.url()
    command.stream.cancel()
    await asyncio.wait([command.stream])
    assert await is_refused(port)


async def test_the_port_that_is_asked_for(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    async with commanded(world, port) as command:
        assert (await command.url())[0] == port
    async with commanded(world, port) as command:
        assert (await command.url())[0] == port, "at once again"


async def test_a_port_that_is_taken(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        command = Command(world, port)
        with pytest.raises(LaptopError) as raised:
            await command.stream
    assert f"127.0.0.1:{port}" in raised.value.message
    assert "--port" in (raised.value.hint or "")


async def test_the_log_has_no_token(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with commanded(world) as command:
        port, token = await command.url()
        await get(port, token, "/")
        await get(port, token[:-1], "/events")
    assert f"at port {port}" in caplog.text
    assert token[:8] not in caplog.text


async def test_nobody_looks_for_as_long_as_no_page_is_open(world: World, fake: FakeApi) -> None:
    async with commanded(world) as command:
        port, token = await command.url()
        await get(port, token, "/")
        assert (world.asked, fake.asked) == ({}, [])


async def test_before_there_is_a_connection() -> None:
    with pytest.raises(InterceptError, match="not up yet"):
        await NotConnected().dashboard(SessionState, DashboardRequest(), cast("Exchange", FakeExchange()))


def test_a_session_without_a_dashboard_does_not_load_it() -> None:
    code = "import sys, meshdev.session.__main__, meshdev.kube.rest; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=Path(__file__).parents[2]).split()
    assert "aiohttp" in loaded
    assert not {"meshdev.dashboard.server", "aiohttp.web", "aiohttp.web_server"} & {*loaded}
