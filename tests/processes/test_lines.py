"""Output of several programs as lines with their names."""

import pytest

from meshdev.processes.lines import MAX_LINE, PrefixedLines


def test_lines_that_come_in_pieces_are_whole_again() -> None:
    lines = PrefixedLines("b", 4)
    assert lines.feed(b"one\ntw") == [b"b    | one\n"]
    assert lines.feed(b"o") == []
    assert lines.feed(b"\n\n") == [b"b    | two\n", b"b    | \n"]
    assert lines.feed(b"no end") == []
    assert lines.end() == [b"b    | no end\n"]
    assert lines.end() == []


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        (b"a\r\n", b"a"),
        (b"10%\r20%\r100%\n", b"100%"),
        (b"\xff\xfe\n", b"\xff\xfe"),
        (b"\x1b[31mred\n", b"\x1b[31mred"),
    ],
)
def test_what_a_line_shows(printed: bytes, shown: bytes) -> None:
    assert PrefixedLines("b", 1).feed(printed) == [b"b | " + shown + b"\n"]


def test_a_line_without_an_end_is_cut() -> None:
    found = PrefixedLines("b", 1).feed(b"x" * (2 * MAX_LINE + 1))
    assert [len(line) for line in found] == [MAX_LINE + 5, MAX_LINE + 5]


def test_names_are_coloured_where_wanted() -> None:
    assert PrefixedLines("b", 1, 0).feed(b"a\n") == [b"\x1b[36mb | \x1b[0ma\n"]
    assert PrefixedLines("b", 1, 6).feed(b"a\n") == [b"\x1b[33mb | \x1b[0ma\n"]
