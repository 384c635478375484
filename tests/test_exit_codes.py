"""docs/exit-codes.md tells exactly the errors that there are."""

import re
from collections.abc import Iterator
from pathlib import Path

from meshdev import errors
from meshdev.errors import MeshdevError

DOC = Path(__file__).parent.parent / "docs" / "exit-codes.md"
ROW = re.compile(r"^\| (\d+) \| `([a-z-]+)` \| (.+) \| (.+) \|$", re.MULTILINE)


def _tree(kind: type[MeshdevError] = MeshdevError) -> Iterator[type[MeshdevError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from _tree(child)


def test_every_error_is_documented_and_nothing_else() -> None:
    rows = ROW.findall(DOC.read_text())
    told = [(int(number), code) for number, code, _, _ in rows]
    assert told == sorted((kind.exit_code, kind.code) for kind in _tree())
    assert all(cause.strip() and way_out.strip() for _, _, cause, way_out in rows)


def test_every_error_has_its_own_code_in_its_own_range() -> None:
    """Ranges are the contract: scripts ask ``$? -ge 50`` before they know each error."""
    kinds = list(_tree())
    assert len({kind.exit_code for kind in kinds}) == len({kind.code for kind in kinds}) == len(kinds)
    for kind in kinds:
        parent = kind.__mro__[1]
        if issubclass(parent, MeshdevError) and parent is not MeshdevError:
            assert kind.exit_code // 10 == parent.exit_code // 10
