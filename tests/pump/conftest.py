"""A loop whose clock stands until a test moves it."""

from collections.abc import Iterator

import pytest

from meshdev.pump.loop import Loop
from tests.loops import Clock


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop(Clock())
    yield loop
    loop.close()
