"""A laptop a test, a cluster a file; without root these tests are skipped."""

import os
from collections.abc import Iterator

import pytest

from tests.netns.cluster import Cluster, running
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


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A manager in a pods' network, one for all tests of a file."""
    with running() as cluster:
        yield cluster
