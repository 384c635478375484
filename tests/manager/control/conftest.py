"""Control beside a tunnel container, and a session that claims."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from meshdev.manager.control import core as core_module
from meshdev.manager.control import link
from tests.manager.control.claimant import Claimant
from tests.manager.control.sidecars import Control, control
from tests.manager.control.world import World
from tests.manager.standin import Manager
from tests.manager.test_intercepts import Ann


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What sessions and sidecars have time for is short here."""
    monkeypatch.setattr(core_module, "SETTLE_SECONDS", 0.05)
    monkeypatch.setattr(core_module, "REJOIN_SECONDS", 0.2)
    monkeypatch.setattr(core_module, "EDGE_SECONDS", 0.2)
    monkeypatch.setattr(link, "RETRY_SECONDS", 0.02)


@pytest.fixture
async def mesh(_impatient: None, manager: Manager, tmp_path: Path) -> AsyncIterator[Control]:
    assert manager.holders() == []
    async with control(tmp_path) as made:
        yield made


@pytest.fixture
def ann(manager: Manager) -> Iterator[Ann]:
    with Ann(manager) as made:
        yield made


@pytest.fixture
def claimant(ann: Ann) -> Claimant:
    return Claimant(ann)


@pytest.fixture
def world() -> World:
    """A tunnel container without claims; time to settle is over."""
    made = World()
    made.connect_tunnel()
    made.wait(core_module.REJOIN_SECONDS + 1)
    return made
