"""Expressions that RE2 takes and those it does not; the accepted ones were compared with RE2 itself (docs/design)."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.intercept.re2 import MAX_DEPTH, check


@pytest.mark.parametrize(
    "text",
    [
        *(
            "a",
            "^a$",
            ".*",
            "a|b",
            "a||",
            "(a)",
            "(?:a)",
            "(?i)a",
            "(?i:a)",
            "(?-s:.)",
            "(?P<n>a)",
            "()",
            "a{",
            "a{,2}",
        ),
        *(
            "a*?",
            "a+?",
            "a??",
            "a{2}",
            "a{2,}",
            "a{2,3}?",
            "a{0}",
            r"\d+",
            r"\.",
            r"\x41",
            r"\x{FF}",
            r"\bA\b",
            r"\z",
        ),
        *(
            "[a]",
            "[]a]",
            "[^]a]",
            "[a-z]",
            "[a-]",
            "[-a]",
            r"[\d-]",
            "[[:alpha:]_]",
            "[[:^digit:]]",
            r"[\]]",
            "é",
            "[é-ü]",
        ),
        *("[a-zA-Z0-9_.-]{1000}", "[abcdefgh]{500}", r"\x{000041}"),
        *("(a{10}){100}", "]", "}", "a-b", r"\-", r"[\x41-\x5A]", "(" * MAX_DEPTH + ")" * MAX_DEPTH),
    ],
)
def test_accepted(text: str) -> None:
    assert check(text) is None


@pytest.mark.parametrize(
    ("text", "at", "words"),
    [
        ("", 0, "empty"),
        ("a(b", 1, "never closed"),
        ("a)b", 1, "closes nothing"),
        ("a[b", 1, "never closed"),
        ("[", 0, "never closed"),
        ("[a-", 0, "never closed"),
        ("*a", 0, "nothing to repeat"),
        ("a|*", 2, "nothing to repeat"),
        ("a**", 2, "nothing to repeat"),
        ("a{2}{3}", 4, "nothing to repeat"),
        ("a*+", 2, "possessive"),
        ("a++", 2, "possessive"),
        (r"\b*", 2, "nothing to repeat"),
        ("a{3,2}", 1, "no repetition"),
        ("a{1001}", 1, "no repetition"),
        ("(a{100}){11}", 8, "more than 1000"),
        ("a" * 1001, 1000, "more than 1000"),
        ("a\\", 1, "at the end"),
        (r"(a)\1", 3, "backreference"),
        (r"a\k", 1, "unknown"),
        (r"\pL", 0, "unknown"),
        (r"\Qa\E", 0, "unknown"),
        (r"\x4", 0, "unknown"),
        (r"\x{110000}", 0, "unknown"),
        (r"\x{100}", 0, "unknown"),  # to Envoy each byte is a character
        ("[" + "".join(rf"\x{code:02x}" for code in range(1, 256, 2)) + "]{1000}", 514, "more than 1000"),
        ("[abcdefgh]{501}", 10, "more than 1000"),
        ("(?=a)", 0, "lookahead"),
        ("(?!a)", 0, "lookahead"),
        ("a(?<=a)", 1, "lookbehind"),
        ("(?>a)", 0, "atomic"),
        ("(?P=n)", 0, "backreferences"),
        ("(?#a)", 0, "comments"),
        ("(?(1)a)", 0, "conditions"),
        ("(?z)", 0, "nothing that RE2 knows"),
        ("(?)", 0, "means nothing"),
        ("(?P<n>a)(?P<n>a)", 8, "two groups"),
        ("[b-a]", 1, "no range"),
        (r"[\d-z]", 1, "no range"),
        (r"[a-\d]", 1, "no range"),
        (r"[\b]", 1, "in a class"),
        ("[[:foo:]]", 1, "no class"),
        ("(" * 101 + ")" * 101, 100, "too many"),
    ],
)
def test_refused_with_the_place(text: str, at: int, words: str) -> None:
    found = check(text)
    assert found is not None
    assert (words in found[0], found[1]) == (True, at)


@given(st.text("ab01.|()[]{}^$*+?\\,-:<=!PimsUxdwbz", max_size=20))
def test_any_text_is_judged_and_what_is_accepted_python_takes_too(text: str) -> None:
    """Python's own syntax is another one, but nearly all that RE2 has it has, too: a second opinion."""
    found = check(text)
    if found is not None:
        assert 0 <= found[1] <= len(text)
    elif not re.search(r"\\z|[(]\?[^)]*U|[(]\?|\[\[|--|&&|~~|\|\|", text):
        re.compile(text)
