"""The progress channel over a real socket."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from meshdev.errors import Cancelled, ProtocolError, TunnelError
from meshdev.session.progress import Progress
from meshdev.wire.jsonlines import LineSplitter
from meshdev.wire.session_api import (
    ConnectOptions,
    Done,
    Failed,
    Note,
    Status,
    Step,
    parse_event,
)


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    caller, session = socket.socketpair()
    caller.settimeout(5)
    with caller, session:
        yield caller, session


async def test_options_come_first(ends: tuple[socket.socket, socket.socket]) -> None:
    caller, session = ends
    caller.sendall(ConnectOptions(context="dev", carriers=3).encode())
    assert await Progress(session).options() == ConnectOptions(context="dev", carriers=3)


async def test_a_caller_that_is_gone_cancels(ends: tuple[socket.socket, socket.socket]) -> None:
    caller, session = ends
    caller.close()
    with pytest.raises(Cancelled):
        await Progress(session).options()


async def test_a_line_without_an_end_is_refused(ends: tuple[socket.socket, socket.socket]) -> None:
    caller, session = ends
    progress = Progress(session)
    flood = asyncio.create_task(asyncio.to_thread(caller.sendall, b"x" * (8 << 20)))
    with pytest.raises(ProtocolError, match="too long"):
        await progress.options()
    session.close()
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        await flood


async def test_events_arrive_in_order_and_the_end_closes(ends: tuple[socket.socket, socket.socket]) -> None:
    caller, session = ends
    progress = Progress(session)
    progress.step("cluster", "here")
    progress.note("mind the gap")
    await progress.done(Status(state="connected"))
    progress.note("nobody hears this")
    received = b""
    while data := caller.recv(65536):
        received += data
    events = [parse_event(line) for line in LineSplitter().feed(received)]
    assert [type(event) for event in events] == [Step, Note, Done]


async def test_gone_returns_when_the_caller_half_closes(ends: tuple[socket.socket, socket.socket]) -> None:
    caller, session = ends
    progress = Progress(session)
    waiting = asyncio.create_task(progress.gone())
    caller.shutdown(socket.SHUT_WR)
    await asyncio.wait_for(waiting, 5)
    await progress.failed(TunnelError("too bad"))
    assert parse_event(caller.recv(65536)) == Failed("tunnel", "too bad", None, 40)
