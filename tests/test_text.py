"""Foreign words on a terminal and in a log: nothing of them acts, nothing begins a line of its own."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.text import age, visible, visible_lines, without_user_info


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain – ünï 語 😀", "plain – ünï 語 😀"),
        ("\x1b[2J\x1b]0;t\x07", r"\x1b[2J\x1b]0;t\x07"),
        ("one\nmeshdev: two\r\n", r"one\nmeshdev: two\r\n"),
        ("a\u202eb\u2066c\u200b", r"a\u202eb\u2066c\u200b"),
        ("\u2028\x85\x9b1m\xa0\x00\t", r"\u2028\x85\x9b1m\xa0\x00\t"),
        ("\udc80\U000e0041", r"\udc80\U000e0041"),
    ],
)
def test_what_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text())
def test_whatever_comes_is_one_printable_line(text: str) -> None:
    shown = visible(text)
    assert shown.isprintable()
    assert visible(shown) == shown
    assert not text.isprintable() or shown == text
    lines = visible_lines(text)
    assert lines.replace("\n", "").replace("\t", "").isprintable()
    assert lines.count("\n") == text.count("\n")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@k:1/a@b", "https://k:1/a@b"),
        ("https://u:p@q@k/", "https://k/"),
        ("http://k", "http://k"),
        ("//u@[", "//["),
        ("no url at all", "no url at all"),
    ],
)
def test_user_info(url: str, shown: str) -> None:
    assert without_user_info(url) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-1, "0s"),
        (119.9, "119s"),
        (120, "2m"),
        (599, "9m59s"),
        (600, "10m"),
        (10799, "179m"),
        (12000, "3h20m"),
        (28800, "8h"),
        (172799, "47h"),
        (180000, "2d2h"),
        (700000, "8d"),
        (1e9, "11574d"),
    ],
)
def test_an_age_is_shown_as_kubectl_shows_it(seconds: float, shown: str) -> None:
    assert age(seconds) == shown
