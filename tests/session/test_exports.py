"""Spans and logs of a session: which requests are exported, and what status shows."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

import pytest

from meshdev.errors import LaptopError, UsageError
from meshdev.session import exports
from meshdev.session.inspecting import Inspectable
from meshdev.session.records import RecordFeed
from meshdev.session.state import SessionState
from meshdev.session.supervisor import Supervisor
from meshdev.telemetry.signals import SignalState
from meshdev.wire.access import AccessRecord, AccessRecords, Watch
from meshdev.wire.session_api import ConnectOptions, DisconnectRequest, Status, StatusRequest
from meshdev.wire.session_inspect import InspectedRequest
from meshdev.wire.watching import ClaimRecords
from tests.otlp_receiver import receiving
from tests.session.test_api import ask
from tests.session.test_metrics import running
from tests.waiting import until

A, B = (Inspectable(letter * 32, "shop", f"deployment/{letter}") for letter in "ab")
ONE: Final = AccessRecord(1, IPv4Address("10.244.1.1"), 80, "HTTP/2", "laptop", 250, "GET", "b", "/a?token=x", 200)


class FakeExports:
    def __init__(self) -> None:
        self.found: list[InspectedRequest] = []
        self.states: tuple[SignalState, ...] = ()
        self.flushed = self.unrecorded = 0

    def request(self, found: InspectedRequest) -> None:
        self.found.append(found)

    def missed(self, count: int) -> None:
        self.unrecorded += count

    async def flush(self) -> None:
        self.flushed += 1

    async def close(self) -> None:
        raise NotImplementedError


class World:
    def __init__(self) -> None:
        self.watched: dict[str, Watch] = {}
        self.feed = RecordFeed(self.watched.__setitem__)
        self.exports = FakeExports()
        self.intercepts: tuple[Inspectable, ...] = ()
        self._before = 0

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        task = asyncio.ensure_future(exports.follow(self.exports, self.feed, lambda: self.intercepts))
        yield
        task.cancel()
        await asyncio.wait([task])

    def come(self, of: Inspectable, *intercepts: str | None, dropped: int = 0) -> None:
        some = tuple(replace(ONE, intercept=each) for each in intercepts)
        self.feed.on_records(ClaimRecords(of.id, "b-1", AccessRecords(some, dropped), self._before))
        self._before += len(some)


async def test_own_requests_of_all_intercepts_are_exported_as_these_come_and_go() -> None:
    world = World()
    async with world.following():
        world.intercepts = (A,)
        await until(lambda: world.watched == {A.id: Watch(on=True)})
        world.come(A, A.id, None, "c" * 32)
        await until(lambda: len(world.exports.found) == 1)
        world.intercepts = (A, B)
        await until(lambda: world.watched.keys() == {A.id, B.id})
        world.come(B, B.id)
        await until(lambda: len(world.exports.found) == 2)
        world.come(A, A.id)  # just before it is left
        world.intercepts = ()
        await until(lambda: world.watched == {A.id: Watch(), B.id: Watch()})
        world.come(A, A.id)  # and too late
    assert [(each.target, each.pod) for each in world.exports.found] == [
        ("deployment/a", "b-1"),
        ("deployment/b", "b-1"),
        ("deployment/a", "b-1"),
    ]
    assert {each.record.path for each in world.exports.found} == {"/a?token=***"}


async def test_what_came_last_is_exported_when_it_ends() -> None:
    world = World()
    world.intercepts = (A,)
    async with world.following():
        await until(lambda: A.id in world.watched)
        world.come(A, A.id, dropped=3)
    assert (len(world.exports.found), world.exports.unrecorded) == (1, 3)
    assert world.watched == {A.id: Watch()}


async def test_the_end_of_intercepts_is_flushed() -> None:
    made = FakeExports()
    async with exports.flushed(made):
        assert made.flushed == 0
    assert made.flushed == 1
    async with exports.flushed(None):
        pass


def test_status_shows_what_is_lost() -> None:
    made = FakeExports()
    made.states = (SignalState("traces", "http://c:4318/v1/traces", failed=2), SignalState("logs", "http://c", sent=1))
    found = exports.show(made, SessionState(notes=("a",)))
    assert found.signals == made.states
    assert found.notes == ("a", "2 spans were lost, of 2 for http://c:4318/v1/traces")


@asynccontextmanager
async def _nothing(_: Supervisor) -> AsyncIterator[None]:
    yield


async def test_a_session_sends_its_logs_until_it_is_disconnected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "meshdev")
    monkeypatch.setattr(Supervisor, "_connection", _nothing)
    path = tmp_path / "session.sock"
    with receiving() as receiver:
        async with running(ConnectOptions(otlp=receiver.http, otlp_logs=True), path) as task:
            await until(path.exists)
            status = await ask(path, StatusRequest())
            assert isinstance(status, Status)
            assert (status.otlp, status.notes) == (receiver.http, ())
            await ask(path, DisconnectRequest())
            assert await task == 0
        receiver.received.until(lambda got: any("disconnected" in each.body for each in got.logs))
        assert receiver.received.spans == []


async def test_a_receiver_that_is_away_is_a_note_and_delays_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "meshdev")
    monkeypatch.setattr(Supervisor, "_connection", _nothing)
    path = tmp_path / "session.sock"
    async with running(ConnectOptions(otlp="http://127.0.0.1:1", otlp_logs=True), path) as task:
        await until(path.exists)
        notes: tuple[str, ...] = ()
        async with asyncio.timeout(10):
            while not notes:
                status = await ask(path, StatusRequest())
                assert isinstance(status, Status)
                notes = status.notes
        assert "logs do not reach http://127.0.0.1:1/v1/logs" in notes[0]
        assert "Connection refused" in notes[0]
        async with asyncio.timeout(2):
            await ask(path, DisconnectRequest())
            assert await task == 0


async def test_without_the_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Supervisor, "_connection", None)
    monkeypatch.setitem(sys.modules, "meshdev.telemetry.exporting", None)
    async with running(ConnectOptions(otlp="http://127.0.0.1:1"), tmp_path / "session.sock") as task:
        with pytest.raises(LaptopError) as raised:
            await task
    assert raised.value.hint == "pip install 'meshdev[otlp]'"
    assert not await asyncio.to_thread((tmp_path / "session.sock").exists)


async def test_a_url_is_checked_again() -> None:
    with pytest.raises(UsageError):
        async with exports.exporting(ConnectOptions(otlp="collector")):
            pass
