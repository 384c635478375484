"""Intercepts for tests: plain ones, and strategies for all that can be."""

from hypothesis import strategies as st

from meshdev.intercept.match import HeaderMatch, Match
from meshdev.intercept.spec import KINDS, Port, Spec, Workload
from meshdev.wire.modes import MESH, PROXY

B = Workload("default", "deployment", "b", "uid-b")
HTTP = Port(8080, "http", 8080)


def mesh(*headers: HeaderMatch, number: int = 1, workload: Workload = B, ports: tuple[Port, ...] = (HTTP,)) -> Spec:
    """Mesh with these headers, ``a=1`` without any."""
    match = Match(headers or (HeaderMatch("a", "exact", "1"),))
    return Spec(f"{number:032x}", workload, MESH, match, ports)


def proxy(number: int = 1, workload: Workload = B, ports: tuple[Port, ...] = (HTTP,)) -> Spec:
    return Spec(f"{number:032x}", workload, PROXY, None, ports)


def _texts(pattern: str) -> st.SearchStrategy[str]:
    return st.from_regex(pattern, fullmatch=True)


_NAMES = _texts(r"[a-z0-9_!~-]{1,8}")
_HEADERS = st.one_of(
    st.builds(HeaderMatch, _NAMES, st.just("present"), st.just("")),
    st.builds(HeaderMatch, _NAMES, st.just("exact"), _texts('([a1=~é,"]([a1=~é,"\t ]{0,8}[a1=~é,"])?)?')),
    st.builds(
        HeaderMatch, _NAMES, st.just("regex"), _texts(r"[ab.]{1,3}([*+?]|\{1,3\})?(\[\^?[ab]\])?(\([ab]\|a*\))?\$?")
    ),
)
_MEMBERS = st.tuples(_texts(r"[a-z][a-z0-9_-]{0,5}(@[a-z]{1,3})?"), _texts(r"[a1 +-]{0,5}[a1+-]"))
_BAGGAGE = st.tuples(_NAMES, _texts(r"[a1%20!]{0,6}"))


def _lists(each: st.SearchStrategy[tuple[str, str]]) -> st.SearchStrategy[tuple[tuple[str, str], ...]]:
    return st.lists(each, max_size=3).map(tuple)


MATCHES = st.builds(
    Match,
    headers=st.lists(_HEADERS, max_size=4).map(tuple),
    path_prefix=st.none() | _texts(r"/[/ab%:.]{0,6}"),
    method=st.none() | st.sampled_from(["GET", "POST"]),
    baggage=_lists(_BAGGAGE),
    tracestate=_lists(_MEMBERS),
).filter(lambda match: match != Match())

WORKLOADS = st.builds(
    Workload,
    st.sampled_from(["default", "team-1"]),
    st.sampled_from(KINDS),
    st.sampled_from(["b", "b.c-1"]),
    st.sampled_from(["uid-1", "uid-2"]),
)
_PORTS = st.lists(
    st.builds(Port, st.integers(1, 65535), st.sampled_from(["tcp", "udp", "http"]), st.integers(1, 65535)),
    min_size=1,
    max_size=5,
    unique_by=lambda port: (port.remote, port.transport),
).map(lambda ports: tuple(sorted(ports)))


def _spec(number: int, workload: Workload, match: Match | None, ports: tuple[Port, ...], *flags: bool) -> Spec:
    mode = PROXY if match is None else MESH
    return Spec(f"{number:032x}", workload, mode, match, ports, *flags)


SPECS = st.builds(
    _spec, st.integers(0, (1 << 128) - 1), WORKLOADS, st.none() | MATCHES, _PORTS, st.booleans(), st.booleans()
)
