"""One version, in all places that have it."""

import re
import tomllib
from pathlib import Path
from typing import Final

import pytest

from meshdev.config import VERSION

ROOT: Final = Path(__file__).parent.parent
PLACES: Final = {"Makefile": r"^IMAGE \?= .*:(.*)$", "CHANGELOG.md": r"^## ([\d.]+)"}


def test_the_package_has_it() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION


@pytest.mark.parametrize(("file", "pattern"), PLACES.items())
def test_others_have_it(file: str, pattern: str) -> None:
    found = re.search(pattern, (ROOT / file).read_text(), re.MULTILINE)
    assert found is not None
    assert found[1] == VERSION
