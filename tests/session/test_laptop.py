"""The session's view of the machine: what counts as another network."""

import asyncio
from typing import Any, cast

import pytest

from meshdev.session.laptop import Laptop
from meshdev.wire.helper.lines import Greeting
from meshdev.wire.session_api import ConnectOptions


async def test_another_network_with_the_same_resolver_is_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = cast("Any", None)
    laptop = Laptop(nothing, Greeting(1, 0, "file", "", (), ()), nothing, ConnectOptions(), nothing)
    known = laptop.situation.value
    waiting = asyncio.ensure_future(laptop.situation.changed(known))
    await laptop._follow(())
    assert not waiting.done()
    monkeypatch.setattr("meshdev.session.laptop.sources", lambda _: ("10.0.0.7",))
    await laptop._follow(())
    async with asyncio.timeout(5):
        await waiting
        await laptop.situation.changed(known)  # a change is not missed by who looks too late
