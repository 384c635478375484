"""A worker between real sockets."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sidecar.worker.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        made = World(stack, tmp_path)
        try:
            yield made
        finally:
            made.close()
