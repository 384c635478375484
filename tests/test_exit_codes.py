"""docs/exit-codes.md tells exactly the errors that there are."""

import re
from pathlib import Path

from meshdev.errors import MeshdevError
from tests.error_tree import every_kind, told_as, told_kinds

DOC = Path(__file__).parent.parent / "docs" / "exit-codes.md"
ROW = re.compile(r"^\| (\d+) \| `([a-z-]+)` \| (.+) \| (.+) \|$", re.MULTILINE)


def test_every_error_is_documented_and_nothing_else() -> None:
    rows = ROW.findall(DOC.read_text())
    told = [(int(number), code) for number, code, _, _ in rows]
    assert told == sorted((kind.exit_code, kind.code) for kind in told_kinds())
    assert all(cause.strip() and way_out.strip() for _, _, cause, way_out in rows)


def test_an_adapters_own_errors_have_the_code_of_their_nearest_kind() -> None:
    """They tell causes apart inside; outside nobody knows them."""
    for kind in every_kind():
        assert (kind.code, kind.exit_code) == (told_as(kind).code, told_as(kind).exit_code)


def test_every_error_has_its_own_code_in_its_own_range() -> None:
    """Ranges are the contract: scripts ask ``$? -ge 50`` before they know each error."""
    kinds = told_kinds()
    assert len({kind.exit_code for kind in kinds}) == len({kind.code for kind in kinds}) == len(kinds)
    for kind in kinds:
        parent = kind.__mro__[1]
        if issubclass(parent, MeshdevError) and parent is not MeshdevError:
            assert kind.exit_code // 10 == parent.exit_code // 10
