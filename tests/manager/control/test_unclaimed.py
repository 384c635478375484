"""Why no claim took a request of which method and path are known, and no header."""

import pytest

from meshdev.intercept.match import HeaderMatch, Match
from meshdev.intercept.spec import Port, Spec
from meshdev.manager.control.unclaimed import LoggedRequest, UnclaimedRequests
from meshdev.observe.reasons import NOTHING_CLAIMED
from meshdev.sidecar.envoy.claims import LiveClaim
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
