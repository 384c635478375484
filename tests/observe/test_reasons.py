"""Why a request is nobody's, in words."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.intercept.match import HeaderMatch, HeadTest, Match, head_tests
from meshdev.observe.reasons import MAX_CLAIMS, NOTHING_CLAIMED, not_claimed, not_followed
from meshdev.wire.access import MAX_REASON
from tests.intercept.values import MATCHES


@dataclass
class Asked:
    """A request."""

    method: str = "GET"
    path: str = "/x"
    headers: dict[str, list[str]] = field(default_factory=dict)

    def values(self, name: str) -> Sequence[str]:
        return self.headers.get(name, ())


def why(asked: Asked, *matches: Match) -> str:
    """With plain comparisons, where those of the sidecar are not what is tested."""

    def holds(test: HeadTest) -> bool:
        if test.how == "method":
            return asked.method == test.value
        if test.how == "path-prefix":
            return asked.path.startswith(test.value)
        if test.how == "present":
            return bool(asked.values(test.header))
        return any(test.value == value for value in asked.values(test.header))

    return not_claimed(asked, 100, [head_tests(match) for match in matches], holds)


def exact(name: str, value: str) -> HeaderMatch:
    return HeaderMatch(name, "exact", value)


A1: Final = Match(headers=(exact("a", "1"),))


@pytest.mark.parametrize(
    ("asked", "match", "reason"),
    [
        (Asked(headers={"a": ["2"]}), A1, "a=2, not a=1"),
        (Asked(headers={"a": ["2", "3"]}), A1, "a=2, 3, not a=1"),
        (Asked(headers={"a": [""]}), A1, "a=, not a=1"),
        (Asked(), A1, "no header a"),
        (Asked(), Match(headers=(HeaderMatch("a", "present"),)), "no header a"),
        (Asked(), Match(headers=(HeaderMatch("a", "regex", "v[0-9]+"),)), "no header a"),
        (Asked(headers={"a": ["v"]}), Match(headers=(HeaderMatch("a", "regex", "v[0-9]+"),)), "a=v, not a~v[0-9]+"),
        (Asked(), Match(path_prefix="/api"), "path /x, not below /api"),
        (Asked(), Match(method="POST"), "method GET, not POST"),
        (Asked(), Match(baggage=(("user", "me"),)), "no header baggage"),
        (Asked(headers={"baggage": ["x=1"]}), Match(baggage=(("user", "me"),)), "baggage without user=me"),
        (
            Asked(headers={"baggage": ["x=1, user = you ;p=1"]}),
            Match(baggage=(("user", "me"),)),
            "baggage user=you, not user=me",
        ),
        (
            Asked(headers={"tracestate": ["v@o=1", "u=2;3"]}),
            Match(tracestate=(("u", "me"),)),
            "tracestate u=2;3, not u=me",
        ),
        (Asked(headers={"tracestate": [",,x"]}), Match(tracestate=(("u", "me"),)), "tracestate without u=me"),
        (
            Asked(headers={"a": ["2"]}),
            Match(headers=(exact("a", "1"), exact("b", "1")), method="POST", path_prefix="/x"),
            "a=2, not a=1; no header b; method GET, not POST",
        ),
    ],
)
def test_one_claim(asked: Asked, match: Match, reason: str) -> None:
    assert why(asked, match) == reason


def test_of_several_claims_the_one_that_failed_least_and_then_the_most_specific() -> None:
    both = Match(headers=(exact("a", "1"), exact("b", "1")))
    path, method = Match(path_prefix="/api"), Match(method="POST")
    assert why(Asked(), both, path) == "path /x, not below /api"
    assert why(Asked(headers={"a": ["1"]}), both, path) == "no header b"
    assert why(Asked(), path, method) == "path /x, not below /api"
    assert why(Asked(), method, path) == "method GET, not POST"


def test_without_a_claim() -> None:
    assert why(Asked()) == NOTHING_CLAIMED


def test_a_claim_that_would_take_it_is_no_reason() -> None:
    assert why(Asked(headers={"a": ["1"]}), A1) == ""


@pytest.mark.parametrize(
    ("name", "value", "wanted", "reason"),
    [
        ("authorization", "Bearer abc", "Bearer xyz", "authorization=***, not the claimed one"),
        ("cookie", "s=1", "s=2", "cookie=***, not the claimed one"),
        ("x-user", "eyJhbGciOiJIUzI1NiJ9.e30.x", "me", "x-user=***, not x-user=me"),
        ("x-url", "http://u:p@b/", "http://b/", "x-url=http://***@b/, not x-url=http://b/"),
        ("x-q", "token=abc", "a", "x-q=token=***, not x-q=a"),
    ],
)
def test_credentials_are_masked_on_both_sides(name: str, value: str, wanted: str, reason: str) -> None:
    assert why(Asked(headers={name: [value]}), Match(headers=(exact(name, wanted),))) == reason


def test_credentials_in_paths_and_members_are_masked() -> None:
    assert why(Asked(path="/a;jsessionid=abc"), Match(path_prefix="/token=x")) == (
        "path /a;jsessionid=***, not below /token=***"
    )
    asked = Asked(headers={"baggage": ["session-id=abc"], "tracestate": ["token=abc"]})
    assert why(asked, Match(baggage=(("session-id", "me"),))) == "baggage session-id=***, not the claimed one"
    assert why(asked, Match(tracestate=(("token", "me"),))) == "tracestate token=***, not the claimed one"
    assert why(asked, Match(baggage=(("api-key", "me"),))) == "baggage without api-key=***"


def test_long_values_are_shortened() -> None:
    asked = Asked(path="/" + "x" * 999, headers={"a": ["y" * 999] * 99})
    match = Match(headers=(exact("a", "z" * 999),), path_prefix="/" + "w" * 999)
    reason = why(asked, match)
    assert reason == (
        f"a={'y' * 45}..., not a={'z' * 45}...; path /{'x' * 44}..., not below /{'w' * 44}..."[: MAX_REASON - 3] + "..."
    )
    assert len(reason) == MAX_REASON
    long = "n" * 200
    assert why(Asked(), Match(headers=(exact(long, "1"),))) == f"no header {'n' * 45}..."


def test_no_more_claims_are_looked_at_than_that() -> None:
    looked: list[HeadTest] = []

    def fails(test: HeadTest) -> bool:
        looked.append(test)
        return False

    claims = [head_tests(Match(headers=(exact(f"h{number}", "1"),))) for number in range(MAX_CLAIMS + 100)]
    for size, most in ((0, MAX_CLAIMS), (512, MAX_CLAIMS), (1024, 16), (4096, 4), (1 << 20, 1)):
        looked.clear()
        assert not_claimed(Asked(), size, claims, fails) == "no header h0"
        assert len(looked) == most


def test_what_is_not_followed() -> None:
    assert not_followed("until-close") == "followed no further: until-close"


_TEXTS = st.text(max_size=20) | st.just("token=abcdefghijkl")


@given(
    st.lists(MATCHES, max_size=4),
    st.builds(Asked, _TEXTS, _TEXTS, st.dictionaries(st.sampled_from(["a", "b", "baggage"]), st.lists(_TEXTS))),
)
def test_any_request(matches: list[Match], asked: Asked) -> None:
    reason = why(asked, *matches)
    assert len(reason) <= MAX_REASON
    assert "abcdefghijkl" not in reason
    for match in matches:
        for header in match.headers:
            reason = why(Asked(headers={header.name: ["token=abcdefghijkl"]}), match)
            assert "abcdefghijkl" not in reason
