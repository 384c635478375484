"""A laptop a test; without root these tests are skipped."""

import os
from collections.abc import Iterator

import pytest

from tests.netns.laptop import Laptop


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder bear the mark."""
    for item in items:
        if item.path.parent.name == "netns":
            item.add_marker(pytest.mark.netns)
            if os.geteuid() != 0:
                item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.fixture
def laptop() -> Iterator[Laptop]:
    """A fresh one."""
    made = Laptop()
    yield made
    made.close()
