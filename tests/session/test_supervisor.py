"""A connection that breaks in a way nobody foresaw."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from meshdev.session.progress import Progress
from meshdev.session.supervisor import Supervisor
from meshdev.wire.session_api import ConnectOptions, Failed, parse_event


async def test_whoever_waits_is_told_of_a_bug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def broken(_: Supervisor) -> AsyncIterator[None]:
        raise KeyError("surprise")
        yield

    monkeypatch.setattr(Supervisor, "_connection", broken)
    caller, ours = socket.socketpair()
    helper, theirs = socket.socketpair()
    with caller, helper, theirs:
        assert await Supervisor(ConnectOptions(), Progress(ours), helper).run(tmp_path / "session.sock") == 1
        told = parse_event(caller.recv(65536).rstrip(b"\n"))
    assert isinstance(told, Failed)
    assert "KeyError('surprise')" in told.message
    assert str(tmp_path) in str(told.hint)
