"""docs/compatibility.md claims nothing that no test shows, unless it says so."""

import re
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parent
PAGE: Final = TESTS.parent / "docs" / "compatibility.md"
ROW: Final = re.compile(r"^\|(?! *-).*\|$", re.MULTILINE)
TEST: Final = re.compile(r"`([\w/]+\.py)::(test_\w+)`( †)?")
#: Beside tests: a reason, or that nearly every test shows it.
OTHERWISE: Final = re.compile(r"not tested: \w.{10,}|all of `e2e/`( †)?")


def rows() -> list[str]:
    """The last cell of each line of a table, without heads."""
    cells = [row.strip("|").split("|")[-1].strip() for row in ROW.findall(PAGE.read_text())]
    return [cell for cell in cells if cell != "shown by" and set(cell) != {"-"}]


def test_each_line_names_its_test_or_why_there_is_none() -> None:
    assert len(rows()) > 40
    assert [cell for cell in rows() if not (TEST.search(cell) or OTHERWISE.fullmatch(cell))] == []


def test_a_dagger_is_a_test_on_both_kinds_of_cluster() -> None:
    for file, function, dagger in (found for cell in rows() for found in TEST.findall(cell)):
        text = (TESTS / file).read_text()
        both = re.search(r"^pytestmark = .*every_cluster", text, re.MULTILINE) is not None
        assert both == bool(dagger), f"{file}::{function}"
