"""The fake API server of tests/kube, and what else intercepts need of a session."""

import asyncio

import pytest

from meshdev.session.return_path import Acceptor
from tests.kube.conftest import api, fake
from tests.session.standin import StandIn

__all__ = ["api", "fake"]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn()

    async def passes(acceptor: Acceptor, _queue: object, _gateway: object, _address: object, relay: int) -> bool:
        await asyncio.sleep(0)
        assert made.led[relay] == acceptor.target.port
        await asyncio.sleep(0.01)
        assert made.led[relay] == acceptor.target.port, "it is led elsewhere while the way is tried"
        return not made.filtered

    monkeypatch.setattr(Acceptor, "passes", passes)
    return made
