"""The container *control* writes down what the container *tunnel* tells it, and outlives it."""

import asyncio
import logging
from pathlib import Path

import pytest

from meshdev.manager.control import __main__ as control
from meshdev.wire.control import Close
from tests.manager.standin import Visitor, hello, running
from tests.waiting import until


async def test_it_logs_who_comes_and_goes_and_waits_for_a_tunnel_that_restarts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control, "RETRY_SECONDS", 0.01)
    caplog.set_level(logging.INFO, control.log.name)
    task = asyncio.ensure_future(control.follow_always(tmp_path / "tunnel.sock"))
    for name in ("ann", "bob"):
        with running(tmp_path) as manager:
            await until(lambda manager=manager: manager.link._listeners)  # type: ignore[misc]
            with Visitor(manager) as visitor:
                visitor.say(hello(name)).welcome()
                visitor.say(Close("bye", ""))
                await until(lambda name=name: f"left {name} 198.18.0.2" in caplog.messages)  # type: ignore[misc]
            assert f"joined {name} 198.18.0.2" in caplog.messages
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
