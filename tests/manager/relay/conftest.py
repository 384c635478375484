"""A relay for each test, with a certificate, one permitted workload, and a laptop that listens."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.manager.relay.world import RelayWorld

Make = Callable[..., RelayWorld]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes one, with limits of its own."""
    with contextlib.ExitStack() as stack:

        def made(**limits: Any) -> RelayWorld:
            world = RelayWorld(stack, tmp_path, **limits)
            stack.callback(world.close)
            world.certify()
            world.permit()
            world.listen()
            return world

        yield made


@pytest.fixture
def world(make: Make) -> RelayWorld:
    return make()
