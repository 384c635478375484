"""Whose a request is: what Envoy would decide by the routes of the same claims (``sidecar.envoy.routes``).

Probes go to the original; else the most specific match that fits takes the request. A request that has nothing of what
claims ask for costs one look for their headers' names. Claims are found by a header's value, a list's member or a path,
so their number makes no difference; only expressions on one and the same header are tried one after the other.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from typing import Final

import re2

from meshdev.intercept.match import HeadTest, Match, head_tests, in_order
from meshdev.observe import reasons
from meshdev.sidecar.envoy import http
from meshdev.sidecar.passthrough.http1 import RequestHead
from meshdev.sidecar.passthrough.seen import SeenHead, path_of, seen, sent_as
from meshdev.wire.agent import Probe

#: Where more names of headers are asked for they are looked up, and not looked for in the head's text.
_FEW_NAMES: Final = 8
#: Which test a claim is found by: the one that the fewest requests pass.
_SELECTIVE: Final = ("exact", "baggage", "tracestate", "regex", "present", "path-prefix", "method")
_PROTO: Final = http.PROTO.encode()
_NO_PROTO: Final = [http.NO_PROTO.encode()]

Places = dict[bytes, list[int]]


class Decider:
    """Decides for one port of a pod.

    *matches* are those of the claims on it, None for all requests, in the order in which they were claimed; *probes*
    those of the kubelet on this port.
    """

    def __init__(self, matches: Sequence[Match | None], probes: Iterable[Probe] = ()) -> None:
        self._order = in_order(matches)
        self._tests = [_tests(matches[place]) for place in self._order]
        self._conditions = {test: condition(test) for test in chain.from_iterable(self._tests)}
        self._fits = [[self._conditions[test] for test in tests] for tests in self._tests]
        self._claims = _Index(self._tests)
        self._probes: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for probe in probes:
            self._probes[probe.path.encode()].append(probe.agent.encode())

    def decide(self, head: RequestHead) -> int | None:
        """The place in *matches* of the claim that takes this request; None: it is the original's.

        Also None for what Envoy would refuse, since the app may well answer it.
        """
        if not self._claims.may_have(head) or (view := seen(head)) is None:
            return None
        places = sorted(set(self._claims.candidates(view)))
        taken = next((place for place in places if all(fits(view) for fits in self._fits[place])), None)
        return None if taken is None or self._is_probe(view) else self._order[taken]

    def explain(self, head: RequestHead) -> str | None:
        """Why no claim takes this request; None where one does."""
        if len(head.raw) > reasons.MAX_HEAD:
            return reasons.TOO_LONG if self.decide(head) is None else None
        view = seen(head)
        if view is None:
            return reasons.REFUSED if self._tests else reasons.NOTHING_CLAIMED
        if self._is_probe(view):
            return reasons.PROBE
        shown = _ShownHead(view)
        return reasons.not_claimed(shown, len(head.raw), self._tests, lambda test: self._conditions[test](view)) or None

    def _is_probe(self, view: SeenHead) -> bool:
        if view.path not in self._probes:
            return False
        agent = view.headers.get(b"user-agent")
        probes = self._probes[view.path]
        return b"" in probes if agent is None else any(probe and agent[0].startswith(probe) for probe in probes)


class _ShownHead:
    """A head for people: a byte is a character, and headers have the names by which they are claimed."""

    def __init__(self, view: SeenHead) -> None:
        self._view = view

    @property
    def method(self) -> str:
        return self._view.method.decode("latin-1")

    @property
    def path(self) -> str:
        return self._view.path.decode("latin-1")

    def values(self, name: str) -> Sequence[str]:
        found = self._view.headers.get(http.masked(name).encode(), [])
        return [value.decode("latin-1") for value in found if value != _NO_PROTO[0]]


class _Index:
    """Claims, by their places in the order in which they are tried, found by what a request has."""

    def __init__(self, claims: Iterable[Sequence[HeadTest]]) -> None:
        self._exact: defaultdict[bytes, Places] = defaultdict(dict)
        self._members: defaultdict[bytes, Places] = defaultdict(dict)
        self._named: Places = {}
        self._paths: Places = {}
        self._methods: Places = {}
        self._all: list[int] = []
        for place, tests in enumerate(claims):
            self._add(place, min(tests, key=lambda test: _SELECTIVE.index(test.how), default=None))
        self._names = {*self._exact, *self._members, *self._named}
        self._prefix_sizes = sorted({len(prefix) for prefix in self._paths})
        self._sent_names = {sent for name in self._names for sent in sent_as(name)}
        self._needles = [b"\n%b:" % name for name in self._sent_names]
        #: Every request has it, or Envoy puts it in.
        self._everyone = bool(self._all) or b"host" in self._names

    def _add(self, place: int, test: HeadTest | None) -> None:
        if test is None:
            self._all = self._all or [place]  # nothing comes after it
            return
        name, value = _name(test), test.value.encode()
        match test.how:
            case "exact":
                found = self._exact[name].setdefault(value, [])
            case "baggage" | "tracestate":
                found = self._members[name].setdefault(value, [])
            case "regex" | "present":
                found = self._named.setdefault(name, [])
            case "path-prefix":
                found = self._paths.setdefault(value, [])
            case "method":
                found = self._methods.setdefault(value, [])
        found.append(place)

    def may_have(self, head: RequestHead) -> bool:
        """Whether a claim may take this request: a quick look that errs on the side of yes."""
        if self._everyone or head.method in self._methods:
            return True
        if len(self._needles) <= _FEW_NAMES:
            lower = head.lower
            for needle in self._needles:
                if needle in lower:
                    return True
        elif not self._sent_names.isdisjoint(name for name, _ in head.headers):
            return True
        if not self._paths:
            return False
        return not head.target.startswith(b"/") or any(self._by_path(path_of(head.target)))

    def candidates(self, view: SeenHead) -> Iterator[int]:
        """Places of claims that may take this request, and of all that do."""
        yield from self._all
        yield from self._methods.get(view.method, ())
        for places in self._by_path(view.path):
            yield from places
        for name in self._names & view.headers.keys():
            yield from self._named.get(name, ())
            exact, members = self._exact.get(name), self._members.get(name)
            for value in view.headers[name]:
                if exact is not None:
                    yield from exact.get(value, ())
                if members is not None:
                    for member in _MEMBERS[name](value):
                        yield from members.get(member, ())

    def _by_path(self, path: bytes) -> Iterator[list[int]]:
        for size in self._prefix_sizes:
            if (places := self._paths.get(path[:size])) is not None:
                yield places


def _tests(match: Match | None) -> tuple[HeadTest, ...]:
    return () if match is None else head_tests(match)


def _name(test: HeadTest) -> bytes:
    return http.masked(test.header).encode()


def condition(test: HeadTest) -> Callable[[SeenHead], bool]:
    """Whether a request passes the test."""
    name, value = _name(test), test.value.encode()
    match test.how:
        case "path-prefix":
            return lambda view: view.path.startswith(value)
        case "method":
            return lambda view: view.method == value
        case "present":
            fits: Callable[[bytes], bool] = lambda _: True  # noqa: E731 -- one of four
        case "exact":
            fits = value.__eq__
        case "regex":
            expression = re2.compile(value, _LATIN1)
            fits = lambda found: expression.fullmatch(found) is not None  # noqa: E731 -- one of four
        case "baggage" | "tracestate":
            members = _MEMBERS[name]
            fits = lambda found: value in members(found)  # noqa: E731 -- one of four
    if name == _PROTO:  # the mark that there is none may be sent by a client, too
        return lambda view: any(map(fits, found := view.headers.get(name, ()))) and found != _NO_PROTO
    return lambda view: any(map(fits, view.headers.get(name, ())))


def _baggage(value: bytes) -> Iterator[bytes]:
    """Members as ``KEY=VALUE``, without blanks and properties (W3C Baggage, 3.3.1)."""
    for member in value.split(b","):
        key, sign, found = member.partition(b";")[0].partition(b"=")
        yield key.strip(b" \t") + sign + found.strip(b" \t")


def _tracestate(value: bytes) -> Iterator[bytes]:
    """Members as ``KEY=VALUE`` (W3C Trace Context, 3.3.1.1)."""
    return (member.strip(b" \t") for member in value.split(b","))


_MEMBERS: Final = {b"baggage": _baggage, b"tracestate": _tracestate}

#: Envoy's: a byte is a character.
_LATIN1: Final = re2.Options()
_LATIN1.encoding = re2.Options.Encoding.LATIN1
