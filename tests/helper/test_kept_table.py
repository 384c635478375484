"""A table that others can change, where it cannot be listed: nothing is forgotten, and nothing is taken for right."""

from typing import Any, cast

import pytest

from meshdev.errors import FirewallError
from meshdev.helper.kept_table import KeptTable, deletion

BUSY = FirewallError("nftables refused: Device or resource busy")


class Library:
    """One table as text; the last command is what it is. *errors* come before its next listings.

    *deleted*: another program deletes it right after each command.
    """

    def __init__(self) -> None:
        self.table: str | None = None
        self.errors: list[FirewallError] = []
        self.deleted = False

    def run(self, commands: str, *, dry: bool = False) -> None:
        if not dry:
            self.table = None if self.deleted or commands == deletion("t") else commands.splitlines()[-1]

    def listing(self, _table: str) -> str | None:
        if self.errors:
            raise self.errors.pop()
        return self.table


@pytest.fixture
def library() -> Library:
    return Library()


@pytest.fixture
def kept(library: Library) -> KeptTable:
    return KeptTable(cast("Any", library), "t")


def test_it_is_put_back_though_a_listing_failed_before(library: Library, kept: KeptTable) -> None:
    kept.run("first")
    library.errors.append(BUSY)
    with pytest.raises(FirewallError):
        kept.run("second")  # whoever asked for it is told, and asks again
    assert kept.put_back()
    assert library.table == "first"
    kept.run("second")
    library.table = None
    assert kept.put_back()
    assert library.table == "second"


def test_what_cannot_be_listed_is_not_taken_for_changed(library: Library, kept: KeptTable) -> None:
    kept.run("first")
    library.errors.append(BUSY)
    with pytest.raises(FirewallError):
        kept.put_back()
    assert not kept.put_back()


def test_a_table_that_is_deleted_right_after_a_change_is_put_back(library: Library, kept: KeptTable) -> None:
    kept.run("first")
    library.deleted = True
    with pytest.raises(FirewallError, match="deleted by another program"):
        kept.run("second")
    library.deleted = False
    assert kept.put_back()
    assert library.table == "first"


def test_what_was_deleted_on_purpose_is_not_put_back(library: Library, kept: KeptTable) -> None:
    kept.run("first")
    kept.run(deletion("t"))
    assert not kept.put_back()
    assert library.table is None
