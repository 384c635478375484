"""Why no claim took a request of which method and path are known, and no header."""

import time

import pytest

from meshdev.intercept.match import HeaderMatch, Match
from meshdev.intercept.spec import Port, Spec
from meshdev.manager.control.unclaimed import LoggedRequest, UnclaimedRequests
from meshdev.observe.reasons import MAX_CLAIMS, NOTHING_CLAIMED
from meshdev.sidecar.envoy import noted
from meshdev.sidecar.envoy.claims import LiveClaim
from meshdev.sidecar.envoy.noted import NotedHeaders
from meshdev.wire.modes import MESH
from tests.manager.claims import WORKLOAD

A, B = HeaderMatch("a", "exact", "1"), HeaderMatch("b", "present", "")
API = Match(path_prefix="/api")
POST = Match(method="POST")
BOTH = Match(path_prefix="/api", method="POST", headers=(A,))
BAGGAGE = Match(baggage=(("user", "ann"),))


def claims(*matches: Match) -> list[LiveClaim]:
    ports = (Port(8080, "http", 3000),)
    specs = [Spec(f"{number:032x}", WORKLOAD, MESH, match, ports) for number, match in enumerate(matches)]
    return [LiveClaim(each, "ann", (), frozenset()) for each in specs]


@pytest.mark.parametrize(
    ("matches", "reason"),
    [
        ((), NOTHING_CLAIMED),
        ((Match(headers=(A,)),), "header a does not match"),
        ((Match(headers=(A, B)),), "one of the headers a, b does not match"),
        ((Match(headers=(A, B)), Match(headers=(B,))), "header b does not match"),
        ((API,), "path /x, not below /api"),
        ((POST,), "method GET, not POST"),
        ((BOTH,), "path /x, not below /api; method GET, not POST"),
        ((BOTH, API), "path /x, not below /api"),
        ((API, Match(headers=(A,))), "header a does not match"),
        ((BAGGAGE,), "header baggage does not match"),
    ],
)
def test_reasons(matches: tuple[Match, ...], reason: str) -> None:
    assert UnclaimedRequests(claims(*matches)).reason(LoggedRequest("GET", "/x")) == reason


def header(name: str, value: str = "1") -> Match:
    return Match(headers=(HeaderMatch(name, "exact", value),))


@pytest.mark.parametrize(
    ("matches", "values", "missing", "reason"),
    [
        ((header("a"),), {"a": "2"}, "", "a=2, not a=1"),
        ((header("a"),), {}, "a", "no header a"),
        ((header("a"),), {"a": ""}, "", "a=, not a=1"),
        ((Match(headers=(A, B)),), {"a": "1"}, "b", "no header b"),
        ((Match(headers=(A, B)),), {"a": "2"}, "b", "a=2, not a=1; no header b"),
        ((Match(headers=(A, B)),), {"a": "2"}, "", "a=2, not a=1"),
        ((Match(headers=(A, B)),), {"a": "1"}, "", "header b does not match"),
        ((header("a"), header("c")), {"a": "2"}, "", "header c does not match"),
        ((Match(headers=(HeaderMatch("a", "regex", "[0-9]+"),)),), {"a": "x"}, "", "a=x, not a~[0-9]+"),
        ((BAGGAGE,), {"baggage": "k=v, user=bob;p=1"}, "", "baggage user=bob, not user=ann"),
        ((Match(path_prefix="/api", headers=(A,)),), {"a": "3,1"}, "", "path /x, not below /api"),
        (
            (header("x-envoy-max-retries"),),
            {"x-envoy-max-retries": "2"},
            "",
            "x-envoy-max-retries=2, not x-envoy-max-retries=1",
        ),
        ((header("authorization"),), {}, "", "header authorization does not match"),
    ],
)
def test_reasons_by_headers(matches: tuple[Match, ...], values: dict[str, str], missing: str, reason: str) -> None:
    noted = NotedHeaders(values, frozenset(missing.split()))
    found = UnclaimedRequests(claims(*matches)).reason(LoggedRequest("GET", "/x", noted))
    assert found == reason


def test_a_probe_is_named_whatever_it_lacks() -> None:
    request = LoggedRequest("GET", "/x", NotedHeaders(missing=frozenset("a"), probe=True))
    assert UnclaimedRequests(claims(header("a"))).reason(request) == "probe of the kubelet"


@pytest.mark.parametrize(
    "match",
    [
        Match(baggage=(("user", "ann"),)),
        Match(headers=(HeaderMatch("baggage", "regex", "x.*y"),)),
        Match(headers=tuple(HeaderMatch(name, "regex", "x.*y") for name in ("baggage", "b", "c", "d"))),
    ],
)
def test_what_a_reason_costs_is_bounded_whatever_the_request_has(match: Match) -> None:
    """Anybody who reaches the pod may send it; control is one process for all."""
    many = UnclaimedRequests(claims(*[match] * MAX_CLAIMS))
    values = dict.fromkeys(("baggage", "b", "c", "d"), "," * noted.MAX_VALUE)
    seconds = []
    for _ in range(5):
        began = time.thread_time()
        many.reason(LoggedRequest("GET", "/x", NotedHeaders(values)))
        seconds.append(time.thread_time() - began)
    assert min(seconds) < 0.02
