"""Texts that people read."""

from hypothesis import example, given
from hypothesis import strategies as st

from meshdev.wire.objects import for_people


@given(st.text(), st.integers(1, 40))
@example("a b", 2)
def test_a_line_for_people_is_one_already(text: str, limit: int) -> None:
    line = for_people(text, limit)
    assert len(line) <= limit
    assert line.isprintable()
    assert for_people(line, limit) == line
