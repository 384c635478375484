"""A Spec as JSON and back, and what is not one."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.errors import ProtocolError, UsageError
from meshdev.intercept.match import HeaderMatch, Match
from meshdev.intercept.spec import MAX_SPEC, Port, Spec, canonical_json, decode, encode
from meshdev.wire.modes import MESH
from tests.intercept.values import HTTP, MATCHES, SPECS, B, mesh, proxy

TEXT = (
    '{"fallback":true,"id":"00000000000000000000000000000001","match":{"baggage":[{"key":"k","value":"v"}],'
    '"headers":[{"kind":"exact","name":"a","value":"1"}],"method":"GET","path_prefix":"/x","tracestate":[]},'
    '"mode":"mesh","ports":[{"local":3000,"protocol":"http","remote":8080}],'
    '"workload":{"kind":"deployment","name":"b","namespace":"default","uid":"uid-b"}}'
)
SPEC = Spec(
    f"{1:032x}",
    B,
    MESH,
    Match((HeaderMatch("a", "exact", "1"),), "/x", "GET", (("k", "v"),)),
    (Port(8080, "http", 3000),),
)


def test_it_is_this_text() -> None:
    assert encode(SPEC) == TEXT
    assert decode(TEXT) == decode(TEXT.encode()) == SPEC


@given(SPECS)
def test_what_is_written_is_read(spec: Spec) -> None:
    assert decode(encode(spec)) == spec


def test_trace_is_there_only_where_it_is_wanted() -> None:
    traced = replace(SPEC, trace=True)
    assert json.loads(encode(traced)) == {**json.loads(TEXT), "trace": True}
    assert decode(encode(traced)) == traced


def changed(path: str, value: Any) -> str:
    """TEXT with another value at *path*; ``…`` removes it."""
    spec = json.loads(TEXT)
    *outer, last = path.split(".")
    at = spec
    for name in outer:
        at = at[int(name)] if isinstance(at, list) else at[name]
    key: Any = int(last) if isinstance(at, list) else last
    if value is ...:
        del at[key]
    else:
        at[key] = value
    return json.dumps(spec)


def test_what_a_newer_session_adds_is_skipped() -> None:
    assert decode(changed("more", 1)) == SPEC


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("id", "0" * 31),
        ("id", "G" * 32),
        ("id", 1),
        ("id", ...),
        ("match.more", 1),
        ("match.headers.0.more", 1),
        ("workload.more", 1),
        ("ports.0.more", 1),
        ("v", 2),
        ("mode", "both"),
        ("mode", "proxy"),  # with a match
        ("match", None),  # without one
        ("match", []),
        ("match.headers", [{"name": "a", "kind": "exact", "value": "1"}] * 17),
        ("match.headers.0.name", "a b"),
        ("match.headers.0.name", "connection"),
        ("match.headers.0.name", ""),
        ("match.headers.0.kind", "prefix"),
        ("match.headers.0.value", "a\nb"),
        ("match.headers.0.value", " a"),
        ("match.headers.0.value", "a" * 1025),
        ("match.headers.0.value", ...),
        ("match.headers.0", {"name": "a", "kind": "regex", "value": "("}),
        ("match.headers.0", {"name": "a", "kind": "present", "value": "1"}),
        ("match.path_prefix", "x"),
        ("match.path_prefix", "/?"),
        ("match.method", "G T"),
        ("match.method", ""),
        ("match.baggage", [["k", "v"]]),
        ("match.baggage.0.value", "a,b"),
        ("match.tracestate", [{"key": "K", "value": "v"}]),
        ("ports", []),
        ("ports", [{"remote": port, "protocol": "tcp", "local": 1} for port in range(1, 66)]),
        ("ports.0.remote", 0),
        ("ports.0.remote", 65536),
        ("ports.0.remote", True),
        ("ports.0.remote", 80.0),
        ("ports.0.protocol", "sctp"),
        ("ports", [{"remote": 1, "protocol": "tcp", "local": 1}, {"remote": 1, "protocol": "http", "local": 2}]),
        ("workload.kind", "Deployment"),
        ("workload.name", "B"),
        ("workload.name", "../b"),
        ("workload.namespace", "a.b"),
        ("workload.uid", ""),
        ("workload.uid", "a" * 64),
        ("fallback", "yes"),
        ("trace", 1),
        ("trace", None),
    ],
)
def test_what_is_not_allowed_is_refused(path: str, value: Any) -> None:
    with pytest.raises(ProtocolError):
        decode(changed(path, value))


def test_a_match_of_everything_is_refused() -> None:
    empty: dict[str, Any] = {"headers": [], "path_prefix": None, "method": None, "baggage": [], "tracestate": []}
    with pytest.raises(ProtocolError):
        decode(changed("match", empty))


@pytest.mark.parametrize("text", ["", "[]", "null", "1", "{}", "\ud800", "[" * 20000, "{" + " " * MAX_SPEC + "}"])
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        decode(text)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode(data)


@given(st.data())
def test_a_damaged_text_is_read_or_refused(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(TEXT) - 1))
    new = data.draw(st.characters())
    try:
        decode(TEXT[:at] + new + TEXT[at + 1 :])
    except ProtocolError:
        return


def test_the_order_of_conditions_and_ports_does_not_matter() -> None:
    a, b = HeaderMatch("a", "present"), HeaderMatch("b", "exact", "1")
    assert Match((b, a, a)) == Match((a, b))
    text = json.loads(encode(mesh(a, b, ports=(HTTP, Port(9090, "udp", 9090)))))
    text["ports"].reverse()
    text["match"]["headers"].reverse()
    assert decode(json.dumps(text)) == mesh(a, b, ports=(HTTP, Port(9090, "udp", 9090)))


@given(MATCHES, MATCHES)
def test_equal_matches_and_only_those_have_the_same_canonical_text(one: Match, other: Match) -> None:
    assert (canonical_json(one) == canonical_json(other)) == (one == other)


def test_what_does_not_fit_a_lease_is_an_error_of_the_user() -> None:
    headers = tuple(HeaderMatch(f"x-{number}", "exact", "v" * 1000) for number in range(16))
    with pytest.raises(UsageError, match="more than 12,288"):
        encode(replace(SPEC, match=Match(headers)))


def test_a_port_is_of_one_transport() -> None:
    assert [Port(1, each, 1).transport for each in ("tcp", "udp", "http")] == ["tcp", "udp", "tcp"]
    assert str(proxy().workload) == "deployment/b"
