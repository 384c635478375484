"""What every test of the laptop's end shares: a manager, a laptop, and a check that nothing is left behind."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from meshdev.pump import pump
from meshdev.tunnel import carrier
from tests.loops import open_descriptors
from tests.manager.standin import Manager, running
from tests.tunnel.standin import Laptop, Relay, make_laptop
from tests.waiting import until


@pytest.fixture(autouse=True)
def _no_offloads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue in memory has none to set."""
    monkeypatch.setattr(carrier, "set_offload", lambda _fd, _mask: None)


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeat, doubt and silence ten times as fast."""
    monkeypatch.setattr(pump, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(pump, "SILENCE_SECONDS", 0.5)
    monkeypatch.setattr(carrier, "DOUBTFUL_SECONDS", 0.25)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with running(tmp_path) as manager:
        yield manager


@pytest.fixture
async def relay(manager: Manager) -> AsyncIterator[Relay]:
    async with Relay(manager.address).running() as relay:
        yield relay


@pytest.fixture
def laptop() -> Iterator[Laptop]:
    laptop = make_laptop(2)
    yield laptop
    laptop.close()


@pytest.fixture
async def nothing_left(manager: Manager, laptop: Laptop) -> AsyncIterator[None]:
    """No thread, task or descriptor may outlive the test's own pools."""
    assert manager is not None
    assert laptop is not None
    before = threading.active_count(), len(asyncio.all_tasks()), open_descriptors()
    yield
    manager.dismiss_all()
    # The manager's ends of our connections close when it has seen ours closed.
    await until(lambda: (threading.active_count(), len(asyncio.all_tasks())) == before[:2])
    await until(lambda: open_descriptors() == before[2])
