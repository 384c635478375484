"""A manager for each test: in real time, or with a clock that the test sets."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.loops import Clock
from tests.manager.standin import Manager, running


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """In real time."""
    with running(tmp_path) as manager:
        yield manager


@pytest.fixture
def timed(tmp_path: Path) -> Iterator[Manager]:
    """Its clock stands still until ``pass_time``."""
    with running(tmp_path, Clock()) as manager:
        yield manager
