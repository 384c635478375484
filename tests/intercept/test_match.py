"""Matches as they are typed, shown and tried."""

import random
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.errors import UsageError
from meshdev.intercept.match import (
    ALWAYS,
    CODEC,
    HEADER,
    MATCH_KINDS,
    HeaderMatch,
    Match,
    parse_match,
    specificity,
    text,
    typed,
)
from meshdev.wire.modes import PROXY
from meshdev.wire.session_intercepts import InterceptRequest
from tests.intercept.values import MATCHES


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("a=1", HeaderMatch("a", "exact", "1")),
        ("X-User=Jane Doe", HeaderMatch("x-user", "exact", "Jane Doe")),
        ("a=", HeaderMatch("a", "exact", "")),
        ("a=b~c", HeaderMatch("a", "exact", "b~c")),
        ("a~b=c", HeaderMatch("a", "regex", "b=c")),
        ("a~^(x|y)$", HeaderMatch("a", "regex", "^(x|y)$")),
        ("a", HeaderMatch("a", "present")),
        ("A-b", HeaderMatch("a-b", "present")),
        ("a=ü", HeaderMatch("a", "exact", "ü")),
    ],
)
def test_a_header(typed: str, expected: HeaderMatch) -> None:
    assert HEADER.parsed(typed) == expected


@pytest.mark.parametrize(
    ("typed", "column", "words"),
    [
        ("", 1, "name is missing"),
        ("=1", 1, "name is missing"),
        ("a b=1", 2, "' ' cannot stand in a header's name"),
        ("a:1", 2, "':' cannot"),
        (":path=/", 1, "':' cannot"),
        ("ü=1", 1, "cannot stand"),
        ("a=b\n", 4, "'\\n' cannot"),
        ("a= b", 3, "blank"),
        ("a=b ", 4, "blank"),
        ("a=\udc80", 3, "cannot stand"),
        ("a=" + "v" * 1025, 1027, "longer than 1024"),
        ("n" * 257, 257, "longer than 256"),
        ("a~", 3, "empty"),
        ("a~(b", 3, "never closed"),
        ("abc~x(?=y)", 6, "lookahead"),
        ("Transfer-Encoding=chunked", 1, "belongs to one connection"),
    ],
)
def test_a_header_that_cannot_be_names_the_column(typed: str, column: int, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        HEADER.parsed(typed)
    assert caught.value.message.startswith(f"--header {typed}: ")
    assert caught.value.message.endswith(f"(column {column})")
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("option", "typed", "column"),
    [
        ("path_prefix", "x", 1),
        ("path_prefix", "", 1),
        ("path_prefix", "/a?b", 3),
        ("path_prefix", "/a b", 3),
        ("method", "", 1),
        ("method", "GE T", 3),
        ("baggage", ["k"], 2),
        ("baggage", ["=v"], 1),
        ("baggage", ["k=a,b"], 4),
        ("baggage", ["k=a b"], 4),
        ("tracestate", ["K=v"], 1),
        ("tracestate", ["k="], 3),
        ("tracestate", ["k=a,b"], 4),
        ("tracestate", ["k=a=b"], 4),
    ],
)
def test_other_conditions_that_cannot_be(option: str, typed: object, column: int) -> None:
    with pytest.raises(UsageError, match=rf"^--{option.replace('_', '-')} .*\(column {column}\)$"):
        parse_match(**{option: typed})


def test_all_conditions_at_once() -> None:
    found = parse_match(
        headers=["b", "A=1", "b"], path_prefix="/v1", method="post", baggage=["u=me"], tracestate=["t@v=1"]
    )
    assert found == Match(
        (HeaderMatch("a", "exact", "1"), HeaderMatch("b", "present")), "/v1", "POST", (("u", "me"),), (("t@v", "1"),)
    )
    assert text(found) == "a=1, b, path-prefix /v1, method POST, baggage u=me, tracestate t@v=1"
    assert text(None) == "all traffic"


def test_without_a_condition_it_is_no_match() -> None:
    with pytest.raises(UsageError) as caught:
        parse_match()
    assert "--header" in (caught.value.hint or "")


def test_too_many_conditions() -> None:
    with pytest.raises(UsageError, match="at most 16"):
        parse_match(headers=[f"h{number}" for number in range(17)])


#: Most specific first: each line beats the next one by the rank it is of in the table of ``match.py``.
ORDER = [
    {"headers": ["a=1", "b=2", "c"]},
    {"headers": ["a=1", "b=2"]},
    {"headers": ["a=1"], "baggage": ["k=v"]},  # as exact as the line above: alphabetical
    {"headers": ["a=1", "b~2"]},
    {"headers": ["a=1"], "path_prefix": "/long"},
    {"headers": ["a=1"], "path_prefix": "/x"},
    {"headers": ["a=1"], "method": "GET"},
    {"headers": ["a=1", "b"]},
    {"headers": ["a~1", "b~2"]},
    {"headers": ["a~1", "b"]},
    {"headers": ["a", "b"]},
    {"headers": ["a=1"]},
    {"headers": ["a=2"]},
    {"tracestate": ["k=v"]},
    {"headers": ["a~1"]},
    {"path_prefix": "/long"},
    {"path_prefix": "/x"},
    {"method": "GET"},
    {"headers": ["a"]},
]


def test_the_most_specific_comes_first() -> None:
    matches = [parse_match(**each) for each in ORDER]  # type: ignore[arg-type]  # a table of options
    shuffled = random.Random(1).sample(matches, len(matches))  # noqa: S311 -- the same shuffle each time
    assert sorted(shuffled, key=specificity) == matches


@given(st.lists(MATCHES, max_size=5))
def test_no_two_matches_are_equally_specific_unless_they_read_the_same(matches: list[Match]) -> None:
    distinct = set(matches)
    assert len({specificity(match) for match in distinct}) == len({text(match) for match in distinct})


def test_every_kind_is_a_field_of_a_match_and_of_what_a_session_is_asked_for() -> None:
    keys = [kind.key for kind in MATCH_KINDS]
    assert [each.name for each in fields(Match)] == keys
    asked = {each.name: each.default for each in fields(InterceptRequest)}
    assert [asked[kind.key] for kind in MATCH_KINDS] == [() if kind.many else None for kind in MATCH_KINDS]
    assert typed(InterceptRequest(target="deploy/b", mode=PROXY)) == {key: asked[key] for key in keys}


def test_a_kind_that_older_readers_do_not_know_is_written_only_where_it_is_used() -> None:
    written = CODEC.dump(Match(method="GET"))
    assert isinstance(written, dict)
    assert written.keys() == ALWAYS
    assert CODEC.load(written) == Match(method="GET")
    with pytest.raises(ValueError, match="has no baggage"):
        CODEC.load({"headers": [], "path_prefix": "/", "method": None})
