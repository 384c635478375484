"""What a port's claims mean for its connections."""

import json

import pytest

from meshdev.intercept.match import HeaderMatch, Match
from meshdev.intercept.spec import canonical_json
from meshdev.sidecar.passthrough.http1 import RequestFollower, RequestHead
from meshdev.sidecar.worker.port import ClaimedPort
from meshdev.wire.agent import Probe
from meshdev.wire.passthrough import PortClaims

A1 = canonical_json(Match(headers=(HeaderMatch("a", "exact", "1"),)))
POST = canonical_json(Match(method="POST"))


def head(text: str = "GET / HTTP/1.1", **headers: str) -> RequestHead:
    lines = "".join(f"{name}: {value}\r\n" for name, value in {"host": "b", **headers}.items())
    event, _ = RequestFollower().next(f"{text}\r\n{lines}\r\n".encode())
    assert isinstance(event, RequestHead)
    return event


@pytest.fixture
def port() -> ClaimedPort:
    return ClaimedPort(("10.244.0.7", 8080))


def test_nothing_is_claimed_at_first(port: ClaimedPort) -> None:
    assert (port.unclaimed, port.whole, port.http2) == (True, False, False)
    assert not port.claims(head(a="1"))


def test_requests_are_claimed_by_any_of_the_matches_and_counted(port: ClaimedPort) -> None:
    port.set(PortClaims(matches=(A1, POST), envoy="/envoy", http2=True))
    assert (port.unclaimed, port.whole, port.http2, port.envoy) == (False, False, True, "/envoy")
    assert [port.claims(each) for each in (head(), head(a="1"), head("POST / HTTP/1.1"))] == [False, True, True]
    assert port.claimed == 2
    port.set(PortClaims())
    assert (port.unclaimed, port.http2) == (True, False)
    assert not port.claims(head(a="1"))


@pytest.mark.parametrize("claims", [PortClaims(matches=("null",)), PortClaims(whole=True)])
def test_every_request_is_claimed_but_those_of_probes(port: ClaimedPort, claims: PortClaims) -> None:
    port.set(PortClaims(claims.whole, claims.matches, probes=(Probe(8080, "/healthz"),)))
    assert port.whole is claims.whole
    assert port.claims(head())
    assert not port.claims(head("GET /healthz HTTP/1.1", **{"user-agent": "kube-probe/1.35"}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "7",
        '{"match":1}',
        'null,"more":1',
        json.dumps({**json.loads(A1), "colour": "red"}),
        json.dumps({**json.loads(A1), "headers": [{"name": "a", "kind": "regex", "value": "("}]}),
        json.dumps({**json.loads(A1), "headers": [{"name": "a", "kind": "regex", "value": "((a{99}){99}){99}"}]}),
        "[" * 100_000,
        "\ud800",
    ],
)
def test_a_match_that_cannot_be_read_claims_nothing(
    port: ClaimedPort, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    port.set(PortClaims(matches=(text,)))
    assert port.unclaimed
    port.set(PortClaims(matches=(text, A1)))
    assert [port.claims(each) for each in (head(), head(a="1"))] == [False, True]
    assert "a match is not applied" in caplog.text
