"""The session API over real sockets: answers, and the stream of an intercept."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from meshdev.errors import InterceptError, ProtocolError, VersionError
from meshdev.session.api import Exchange, StreamRequest, serving
from meshdev.wire.counts import InterceptCounts
from meshdev.wire.modes import PROXY
from meshdev.wire.session_api import (
    Answer,
    DisconnectRequest,
    Event,
    Failed,
    Question,
    Request,
    Status,
    StatusRequest,
    Step,
    encode_request,
    parse_answer,
    parse_event,
)
from meshdev.wire.session_intercepts import InterceptRequest, LeaveRequest, Left, Live, PodIdentity, Up
from tests.wire.test_session_intercepts import INTERCEPT

WANTED = InterceptRequest(target="deploy/b", mode=PROXY)

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def opened(path: Path, request: Request) -> Ends:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(encode_request(request))
    return reader, writer


async def ask(path: Path, request: Question) -> Answer:
    reader, writer = await opened(path, request)
    line = await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    return parse_answer(request, line)


async def heard(reader: asyncio.StreamReader) -> Event:
    return parse_event(await asyncio.wait_for(reader.readline(), 5))


async def ended(reader: asyncio.StreamReader) -> bool:
    return await asyncio.wait_for(reader.read(), 5) == b""


async def connected(_request: Question) -> Status:
    return Status(state="connected", context="dev")


def mode(path: Path) -> int | None:
    return path.stat().st_mode & 0o777 if path.exists() else None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "session.sock"


async def test_answers_and_errors_are_handed_on(path: Path) -> None:
    async def handle(request: Question) -> Answer:
        if isinstance(request, LeaveRequest):
            return ("deployment/b in namespace default",)
        if isinstance(request, StatusRequest):
            return Status(state="connected", context="dev")
        raise VersionError("no")

    async with serving(path, handle):
        assert mode(path) == 0o600
        assert await ask(path, StatusRequest()) == Status(state="connected", context="dev")
        assert await ask(path, LeaveRequest()) == ("deployment/b in namespace default",)
        with pytest.raises(VersionError, match="no"):
            await ask(path, DisconnectRequest())
    assert mode(path) is None


async def test_an_answer_that_is_too_long_is_an_error(path: Path) -> None:
    """As a status may be: it names every pod of up to 32 intercepts."""
    pods = tuple(PodIdentity(f"b-{number}", "spiffe://m/" + "x" * 1000) for number in range(1056))
    status = Status(state="connected", context="dev", intercepts=(replace(INTERCEPT, identities=pods),))

    async def handle(_request: Question) -> Status:
        return status

    async with serving(path, handle):
        with pytest.raises(ProtocolError, match="is longer than"):
            await ask(path, StatusRequest())


async def test_it_ends_only_when_its_last_answer_has_left(path: Path) -> None:
    asked, undone = asyncio.Event(), asyncio.Event()

    async def handle(_request: Question) -> None:
        asked.set()
        await undone.wait()

    async with serving(path, handle):
        asking = asyncio.create_task(ask(path, DisconnectRequest()))
        await asyncio.wait_for(asked.wait(), 5)
        undone.set()
    assert await asyncio.wait_for(asking, 5) is None


async def test_a_client_that_says_nonsense_hurts_nobody(path: Path) -> None:
    async with serving(path, connected):
        for nonsense in (b"\n", b"{}\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n"):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(nonsense)
            assert b"error" in await asyncio.wait_for(reader.readline(), 5)
            writer.close()
        assert await ask(path, StatusRequest()) == Status(state="connected", context="dev")


async def test_who_takes_no_intercepts_says_so(path: Path) -> None:
    async with serving(path, connected):
        reader, writer = await opened(path, WANTED)
        event = await heard(reader)
        assert isinstance(event, Failed)
        assert event.code == "intercept"
        assert await ended(reader)
        writer.close()


async def test_an_intercept_lives_until_its_client_half_closes(path: Path) -> None:
    async def stream(request: StreamRequest, exchange: Exchange) -> None:
        assert request == WANTED
        exchange.send(Step("pods", "1 of 1", 0.1))
        exchange.send(Up(INTERCEPT))
        await exchange.closed()
        exchange.send(Left())

    async with serving(path, connected, stream):
        reader, writer = await opened(path, WANTED)
        assert [await heard(reader), await heard(reader)] == [Step("pods", "1 of 1", 0.1), Up(INTERCEPT)]
        assert await ask(path, StatusRequest()), "others are answered meanwhile"
        writer.write_eof()
        assert await heard(reader) == Left()
        assert await ended(reader)
        writer.close()


async def test_what_goes_wrong_is_the_last_event(path: Path) -> None:
    async def stream(_request: StreamRequest, exchange: Exchange) -> None:
        exchange.send(Up(INTERCEPT))
        raise InterceptError("taken over by jane@host", hint="ask jane")

    async with serving(path, connected, stream):
        reader, writer = await opened(path, WANTED)
        assert await heard(reader) == Up(INTERCEPT)
        assert await heard(reader) == Failed("intercept", "taken over by jane@host", "ask jane", 60)
        assert await ended(reader)
        writer.close()


@pytest.mark.parametrize("go", [asyncio.StreamWriter.close, lambda writer: writer.transport.abort()])
async def test_a_client_that_vanishes_is_noticed_and_told_nothing(
    path: Path, go: Callable[[asyncio.StreamWriter], None], caplog: pytest.LogCaptureFixture
) -> None:
    left = asyncio.Event()

    async def stream(_request: StreamRequest, exchange: Exchange) -> None:
        exchange.send(Up(INTERCEPT))
        await asyncio.gather(exchange.closed(), exchange.closed())
        for _ in range(10):
            exchange.send(Left())
            await asyncio.sleep(0)
        left.set()

    async with serving(path, connected, stream):
        reader, writer = await opened(path, WANTED)
        await heard(reader)
        go(writer)
        await asyncio.wait_for(left.wait(), 5)
    assert [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []


async def test_a_client_that_does_not_read_is_spared_old_news_and_gets_the_last_word(path: Path) -> None:
    async def stream(_request: StreamRequest, exchange: Exchange) -> None:
        for matched in range(10_000):
            exchange.send(Live(replace(INTERCEPT, counts=InterceptCounts(matched))))
        raise InterceptError("too bad")

    async with serving(path, connected, stream):
        reader, writer = await opened(path, WANTED)
        lines = (await asyncio.wait_for(reader.read(), 5)).splitlines()
        assert 10 < len(lines) < 5_000
        assert isinstance(parse_event(lines[-1]), Failed)
        writer.close()


@pytest.mark.usefixtures("patience")
async def test_a_stream_that_does_not_end_with_its_session_is_ended(path: Path) -> None:
    undone = asyncio.Event()

    async def stream(_request: StreamRequest, exchange: Exchange) -> None:
        exchange.send(Up(INTERCEPT))
        try:
            await asyncio.Event().wait()
        finally:
            undone.set()

    async with serving(path, connected, stream):
        reader, writer = await opened(path, WANTED)
        await heard(reader)
    await asyncio.wait_for(undone.wait(), 5)
    assert await ended(reader)
    writer.close()


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshdev.session.api.LAST_ANSWERS_SECONDS", 0.1)
