"""Folders that other users may enter, and places."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.isolation.places import Place, place


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder; pytest's own are for its user alone."""
    with tempfile.TemporaryDirectory(prefix="meshdev-isolation-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def there(folder: Path) -> Iterator[Place]:
    """The network of a user without rights."""
    with place(folder / "user") as made:
        yield made
