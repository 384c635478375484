"""The session's view of the machine: what counts as another network."""

import asyncio
from typing import cast

import pytest

from meshdev.session.helper_client import HelperClient
from meshdev.session.laptop import Laptop
from meshdev.session.progress import Progress
from meshdev.wire.session_api import ConnectOptions


async def test_another_network_with_the_same_resolver_is_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    laptop = Laptop(cast("HelperClient", None), ConnectOptions(), cast("Progress", None))
    known = laptop.situation
    waiting = asyncio.ensure_future(laptop.wait_for_change(known))
    await laptop._follow(())
    assert not waiting.done()
    monkeypatch.setattr("meshdev.session.laptop.sources", lambda _: ("10.0.0.7",))
    await laptop._follow(())
    async with asyncio.timeout(5):
        await waiting
        await laptop.wait_for_change(known)  # a change is not missed by who looks too late
