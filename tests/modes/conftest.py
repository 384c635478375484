"""The fake API server of tests/kube; the agents of an intercept, without one."""

from collections.abc import AsyncIterator

import pytest

from meshdev.modes import agents
from tests.kube.conftest import api, fake
from tests.modes.agents_world import AgentsWorld, running

__all__ = ["api", "fake"]


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AgentsWorld]:
    monkeypatch.setattr(agents, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(agents, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(agents, "SETTLE_SECONDS", 0.05)
    made = AgentsWorld()
    async with running(made):
        yield made
