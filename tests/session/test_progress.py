"""The progress channel and the session API over real sockets."""

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshdev.errors import Cancelled, ProtocolError, TunnelError, VersionError
from meshdev.session.api import serving
from meshdev.session.progress import Progress
from meshdev.wire.jsonlines import LineSplitter
from meshdev.wire.session_api import (
    ConnectOptions,
    DisconnectRequest,
    Done,
    Failed,
    Note,
    Request,
    Status,
    StatusRequest,
    Step,
    encode_request,
    parse_answer,
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
    flood = asyncio.create_task(asyncio.to_thread(caller.sendall, b"x" * (2 << 20)))
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


async def ask(path: Path, request: Request) -> Status | None:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(encode_request(request))
    line = await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    return parse_answer(request, line)


async def test_the_api_answers_and_hands_on_errors(tmp_path: Path) -> None:
    path = tmp_path / "session.sock"

    async def handle(request: Request) -> Status | None:
        if isinstance(request, StatusRequest):
            return Status(state="connected", context="dev")
        raise VersionError("no")

    async with serving(path, handle):
        assert path.stat().st_mode & 0o777 == 0o600
        assert await ask(path, StatusRequest()) == Status(state="connected", context="dev")
        with pytest.raises(VersionError, match="no"):
            await ask(path, DisconnectRequest())
    assert not path.exists()


async def test_the_api_ends_only_when_its_last_answer_has_left(tmp_path: Path) -> None:
    path = tmp_path / "session.sock"
    asked, undone = asyncio.Event(), asyncio.Event()

    async def handle(_request: Request) -> None:
        asked.set()
        await undone.wait()

    async with serving(path, handle):
        asking = asyncio.create_task(ask(path, DisconnectRequest()))
        await asyncio.wait_for(asked.wait(), 5)
        undone.set()
    assert await asyncio.wait_for(asking, 5) is None


async def test_a_client_that_says_nonsense_hurts_nobody(tmp_path: Path) -> None:
    path = tmp_path / "session.sock"

    async def handle(_request: Request) -> Status:
        return Status(state="connected")

    async with serving(path, handle):
        for nonsense in (b"\n", b"{}\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n"):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(nonsense)
            assert b"error" in await asyncio.wait_for(reader.readline(), 5)
            writer.close()
        assert await ask(path, StatusRequest()) == Status(state="connected")
