"""A connection's phases as its clients see them, and one that breaks in a way nobody foresaw."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from meshdev.errors import Cancelled, InterceptError
from meshdev.session.progress import Progress
from meshdev.session.supervisor import Supervisor
from meshdev.wire.session_api import ConnectOptions, DisconnectRequest, Done, Failed, Status, StatusRequest, parse_event
from meshdev.wire.session_intercepts import LeaveRequest
from tests.session.test_api import ask
from tests.waiting import until


@contextmanager
def supervisor() -> Iterator[tuple[Supervisor, socket.socket]]:
    """One whose caller waits at the socket."""
    caller, ours = socket.socketpair()
    helper, theirs = socket.socketpair()
    with caller, helper, theirs:
        yield Supervisor(ConnectOptions(), Progress(ours), helper), caller


async def test_whoever_waits_is_told_of_a_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def broken(_: Supervisor) -> AsyncIterator[None]:
        raise KeyError("surprise")
        yield

    monkeypatch.setattr(Supervisor, "_connection", broken)
    with supervisor() as (made, caller):
        assert await made.run(tmp_path / "session.sock") == 1
        told = parse_event(caller.recv(65536).rstrip(b"\n"))
    assert isinstance(told, Failed)
    assert "KeyError('surprise')" in told.message
    assert str(tmp_path) in str(told.hint)


async def test_clients_follow_it_from_connecting_to_disconnected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stands, undoing = asyncio.Event(), asyncio.Event()
    path = tmp_path / "session.sock"

    @asynccontextmanager
    async def connection(_: Supervisor) -> AsyncIterator[None]:
        await stands.wait()
        try:
            yield
        finally:
            await undoing.wait()

    monkeypatch.setattr(Supervisor, "_connection", connection)
    with supervisor() as (made, caller):
        running = asyncio.ensure_future(made.run(path))
        await until(path.exists)
        settled = asyncio.ensure_future(ask(path, StatusRequest(settled=True)))
        status = await ask(path, StatusRequest())
        assert isinstance(status, Status)
        assert (status.state, settled.done()) == ("connecting", False)
        with pytest.raises(InterceptError, match="not up yet"):
            await ask(path, LeaveRequest())
        stands.set()
        status = await settled
        assert isinstance(status, Status)
        assert status.state == "reconnecting", "it stands, and has no carrier"
        assert isinstance(parse_event(caller.recv(65536).rstrip(b"\n")), Done)
        leaving = asyncio.ensure_future(ask(path, DisconnectRequest()))
        await until(made._stop.is_set)
        assert not leaving.done(), "it is not undone yet"
        undoing.set()
        await leaving
        assert await running == 0
    assert made.state.value.phase == "disconnected"


async def test_a_status_that_waits_gets_what_ended_the_attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "session.sock"

    @asynccontextmanager
    async def connection(_: Supervisor) -> AsyncIterator[None]:
        await asyncio.Event().wait()
        yield

    monkeypatch.setattr(Supervisor, "_connection", connection)
    with supervisor() as (made, _):
        running = asyncio.ensure_future(made.run(path))
        await until(path.exists)
        settled = asyncio.ensure_future(ask(path, StatusRequest(settled=True)))
        await until(lambda: made.state._changed._waiters)
        made.stop()
        with pytest.raises(Cancelled, match="disconnected"):
            await settled
        assert await running == Cancelled.exit_code
