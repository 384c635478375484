"""Kinds of conditions on requests, each one entry in :data:`MATCH_KINDS`, and what follows from them for a match.

A kind is added here, as an entry and a field of :class:`Match`, and as a field of ``InterceptRequest`` in
wire/session_intercepts.py, which is what the session is asked for. The option of the commands, its check, the text of
``list``, the JSON in Leases, Envoy's route and the request to try it with follow from the entry.

Specificity (docs/intercepts.md has the same table). Of two matches that both fit a request the first difference
decides:

====  =======================================================  ==================
rank  what is compared                                         first comes
====  =======================================================  ==================
1     conditions altogether                                    the one with more
2     exact ones: ``NAME=VALUE``, baggage, tracestate          the one with more
3     expressions: ``NAME~REGEX``                              the one with more
4     characters of the path prefix                            the longer one
5     a method                                                 the one that has it
6     the text of :func:`text`                                 alphabetical order
====  =======================================================  ==================
"""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar

from meshdev.errors import UsageError
from meshdev.intercept import checks
from meshdev.intercept.checks import MAX_NAME, MAX_VALUE, Check, Fault
from meshdev.wire.codecs import Choice, Codec, InvalidValueError, Many, Nullable, Parsed
from meshdev.wire.message import dump, field, load, message, take
from meshdev.wire.session_intercepts import InterceptRequest

How = Literal["exact", "regex", "present"]

#: Headers of one match; as many members of baggage and of tracestate.
MAX_CONDITIONS: Final = 16
#: Keys that the JSON of a match always has: readers of version 0.1.0 expect them, and refuse others, as they must
#: where they cannot compare.
ALWAYS: Final = frozenset({"headers", "path_prefix", "method", "baggage", "tracestate"})

Object = dict[str, Any]
Member = tuple[str, str]
#: What ranks 2 to 5 count of one condition.
Rank = tuple[int, int, int, int]

T = TypeVar("T")


def _exact(value: str) -> Object:
    return {"string_match": {"exact": value}}


def _regex(value: str) -> Object:
    return {"string_match": {"safe_regex": {"regex": value}}}


#: Of each: what stands between name and value, what a value may be, and Envoy's matcher.
_HOWS: Final[dict[How, tuple[str, Check, Callable[[str], Object]]]] = {
    "exact": ("=", checks.header_value, _exact),
    "regex": ("~", checks.regex, _regex),
    "present": ("", checks.nothing, lambda _: {"present_match": True}),
}


class HeaderMatch(NamedTuple):
    """One condition on a header; *name* is lower case, *value* is empty for "present"."""

    name: str
    kind: How
    value: str = ""


class HeadTest(NamedTuple):
    """One condition as it is checked on the head of a request, without Envoy (sidecar/passthrough/decide.py).

    *value* is that of *header*, of one member (``KEY=VALUE``) of that list header, of the path's beginning, or the
    method. *header* is lower case.
    """

    how: Literal["exact", "regex", "present", "baggage", "tracestate", "path-prefix", "method"]
    value: str
    header: str = ""


class _Header(Codec[HeaderMatch]):
    """*kind* decides what a value may be."""

    def load(self, value: object) -> HeaderMatch:
        if not isinstance(value, dict) or value.keys() != set(HeaderMatch._fields):
            raise InvalidValueError(" is not an object of name, kind and value")
        kind = take(value, "kind", Choice(tuple(_HOWS)))
        name = take(value, "name", Parsed(checks.header_name, MAX_NAME))
        return HeaderMatch(name, kind, take(value, "value", Parsed(_HOWS[kind][1], MAX_VALUE)))

    def dump(self, value: HeaderMatch) -> object:
        return value._asdict()


class _Pair(Codec[Member]):
    """A member of a list header, as an object of its key and its value."""

    def __init__(self, key: Check, value: Check) -> None:
        self._key, self._value = Parsed(key, MAX_NAME), Parsed(value, MAX_VALUE)

    def load(self, value: object) -> Member:
        if not isinstance(value, dict) or value.keys() != {"key", "value"}:
            raise InvalidValueError(" is not an object of key and value")
        return take(value, "key", self._key), take(value, "value", self._value)

    def dump(self, value: Member) -> object:
        return {"key": value[0], "value": value[1]}


_BAGGAGE: Final = _Pair(checks.baggage_key, checks.baggage_value)
_TRACESTATE: Final = _Pair(checks.tracestate_key, checks.tracestate_value)


@message(strict=True)
class Match:
    """Which requests: all conditions hold at once. Sorted, nothing twice: equal matches are equal values.

    ``baggage`` and ``tracestate`` are members (key, value) of the list headers of these names. A kind that is added is
    an optional field.
    """

    headers: tuple[HeaderMatch, ...] = field(Many(_Header(), MAX_CONDITIONS), default=())
    path_prefix: str | None = field(Nullable(Parsed(checks.path_prefix, MAX_VALUE)), default=None)
    method: str | None = field(Nullable(Parsed(checks.method)), default=None)
    baggage: tuple[Member, ...] = field(Many(_BAGGAGE, MAX_CONDITIONS), default=())
    tracestate: tuple[Member, ...] = field(Many(_TRACESTATE, MAX_CONDITIONS), default=())

    def __post_init__(self) -> None:
        for kind in MATCH_KINDS:
            if kind.many:
                object.__setattr__(self, kind.key, tuple(sorted(set(getattr(self, kind.key)))))


class _Match(Codec[Match]):
    """What older readers do not know they refuse, as they must; so it is there only where it is used."""

    def load(self, value: object) -> Match:
        return load(Match, value)

    def dump(self, value: Match) -> object:
        return {key: part for key, part in dump(value).items() if part or key in ALWAYS}


CODEC: Final = _Match()


class Sample:
    """A request that matches, to be completed by each kind."""

    def __init__(self) -> None:
        self.method: str | None = None
        self.path = "/"
        self.headers: list[str] = []
        """As curl's ``-H`` takes them."""


class MatchKind(NamedTuple, Generic[T]):
    """All that is known of one kind of condition, whose values are of type T."""

    key: str
    """The field of :class:`Match` and ``InterceptRequest``, and the key in their JSON."""
    flags: tuple[str, ...]
    metavar: str
    help: str
    parse: Callable[[str], T]
    """What was typed. Raises Fault."""
    text: Callable[[T], str]
    rank: Callable[[T], Rank]
    route: Callable[[T], Object]
    """Fields of Envoy's RouteMatch; lists are added to those of other conditions."""
    test: Callable[[T], HeadTest]
    """The same, for a caller that decides as Envoy does; a test compares both on random requests."""
    show: Callable[[Sample, tuple[T, ...]], None]
    """Complete the request so that these conditions hold."""
    many: bool = False
    """Whether a match can have several of the kind."""

    def parsed(self, typed: str) -> T:
        """What was typed as the option's value. Raises UsageError with the column."""
        try:
            return self.parse(typed)
        except Fault as fault:
            message = f"{self.flags[0]} {typed}: {fault} (column {fault.at + 1})"
            raise UsageError(message, hint=fault.hint) from None

    def all_parsed(self, typed: Any) -> tuple[T, ...]:  # noqa: ANN401 -- a sequence of many, a text or None of one
        """All that was typed, in that order. Raises UsageError."""
        if not self.many:
            return () if typed is None else (self.parsed(typed),)
        if len(typed) > MAX_CONDITIONS:
            raise UsageError(f"{self.flags[0]} is given {len(typed)} times, at most {MAX_CONDITIONS} are possible")
        return tuple(self.parsed(each) for each in typed)

    def values(self, match: Match) -> tuple[T, ...]:
        """The conditions of this kind."""
        found = getattr(match, self.key)
        return found if self.many else () if found is None else (found,)


def _parse_header(typed: str) -> HeaderMatch:
    """``NAME=VALUE`` (exact), ``NAME~REGEX`` (the whole value), ``NAME`` (present); the first = or ~ decides."""
    at = next((at for at, letter in enumerate(typed) if letter in "=~"), len(typed))
    how, check = next((how, check) for how, (sign, check, _) in _HOWS.items() if sign == typed[at : at + 1])
    return HeaderMatch(checks.header_name(typed[:at]), how, checks.shifted(at + 1, check, typed[at + 1 :]))


def _show_header(sample: Sample, headers: tuple[HeaderMatch, ...]) -> None:
    """Of expressions the user knows an example; an empty value is ``NAME;`` to curl."""
    for each in headers:
        value = {"exact": each.value, "present": "1", "regex": "…"}[each.kind]
        sample.headers.append(f"{each.name}: {value}" if value else f"{each.name};")


def _header_matcher(name: str, matcher: Object) -> Object:
    return {"headers": [{"name": name, **matcher}]}


def _members(
    header: Literal["baggage", "tracestate"], key: Check, value: Check, expression: Callable[[Member], str]
) -> MatchKind[Member]:
    """Members of a list header, by the expression that one of them fits."""

    def parse(typed: str) -> Member:
        name, sign, rest = typed.partition("=")
        if not sign:
            raise Fault("no = after the key", len(typed), hint="KEY=VALUE")
        return key(name), checks.shifted(len(name) + 1, value, rest)

    return MatchKind(
        key=header,
        flags=(f"--{header}",),
        metavar="KEY=VALUE",
        help=f"Match requests with this member of {header}. Repeatable.",
        parse=parse,
        text=lambda member: f"{header} {'='.join(member)}",
        rank=lambda _: (1, 0, 0, 0),
        route=lambda member: _header_matcher(header, _regex(rf"(?:.*,)?[ \t]*{expression(member)}[ \t]*(?:,.*)?")),
        test=lambda member: HeadTest(header, "=".join(member), header),
        show=lambda sample, found: sample.headers.append(f"{header}: {','.join(map('='.join, found))}"),
        many=True,
    )


def _baggage(member: Member) -> str:
    """One among others, with or without properties (W3C Baggage, 3.3.1)."""
    key, value = map(re.escape, member)
    return rf"{key}[ \t]*=[ \t]*{value}[ \t]*(?:;[^,]*)?"


def _tracestate(member: Member) -> str:
    """One among others (W3C Trace Context, 3.3.1.1)."""
    return "=".join(map(re.escape, member))


HEADER: Final = MatchKind(
    key="headers",
    flags=("--header", "-H"),
    metavar="NAME=VALUE",
    help="Match requests with this header; also NAME~REGEX or NAME. Repeatable.",
    parse=_parse_header,
    text=lambda header: f"{header.name}{_HOWS[header.kind][0]}{header.value}",
    rank=lambda header: (header.kind == "exact", header.kind == "regex", 0, 0),
    route=lambda header: _header_matcher(header.name, _HOWS[header.kind][2](header.value)),
    test=lambda header: HeadTest(header.kind, header.value, header.name),
    show=_show_header,
    many=True,
)
#: In the order in which matches are printed.
MATCH_KINDS: Final[tuple[MatchKind[Any], ...]] = (
    HEADER,
    MatchKind(
        key="path_prefix",
        flags=("--path-prefix",),
        metavar="PATH",
        help="Match requests whose path has this prefix.",
        parse=checks.path_prefix,
        text="path-prefix {}".format,
        rank=lambda path: (0, 0, len(path), 0),
        route=lambda path: {"prefix": path},
        test=lambda path: HeadTest("path-prefix", path),
        show=lambda sample, found: setattr(sample, "path", found[0]),
    ),
    MatchKind(
        key="method",
        flags=("--method",),
        metavar="METHOD",
        help="Match requests of this method.",
        parse=checks.method,
        text="method {}".format,
        rank=lambda _: (0, 0, 0, 1),
        route=lambda method: _header_matcher(":method", _exact(method)),
        test=lambda method: HeadTest("method", method),
        show=lambda sample, found: setattr(sample, "method", found[0]),
    ),
    _members("baggage", checks.baggage_key, checks.baggage_value, _baggage),
    _members("tracestate", checks.tracestate_key, checks.tracestate_value, _tracestate),
)


def typed(request: InterceptRequest) -> dict[str, Any]:
    """What was typed of each kind: arguments of :func:`parse_match`."""
    return {kind.key: getattr(request, kind.key) for kind in MATCH_KINDS}


def parse_match(**options: Any) -> Match:  # noqa: ANN401 -- by the kind's key: a sequence of many, a text or None of one
    """The match of these options' values. Raises UsageError with the column, and where there is no condition."""
    found: Object = {}
    for kind in MATCH_KINDS:
        if values := kind.all_parsed(options.get(kind.key, () if kind.many else None)):
            found[kind.key] = values if kind.many else values[0]
    if not found:
        raise UsageError(
            "mesh needs to know which requests are yours",
            hint="for instance --header x-user=me; for all traffic: meshdev proxy",
        )
    return Match(**found)


def text(match: Match | None) -> str:
    """One line for people; equal matches have the same."""
    if match is None:
        return "all traffic"
    return ", ".join(kind.text(each) for kind, each in _conditions(match))


def specificity(match: Match) -> tuple[int | str, ...]:
    """The key to sort matches by: the most specific comes first."""
    ranks = [kind.rank(each) for kind, each in _conditions(match)]
    return (-len(ranks), *(-sum(counted) for counted in zip(*ranks, strict=True)), text(match))


def in_order(matches: Sequence[Match | None]) -> list[int]:
    """Places in *matches*, the most specific first; None, which is everything, comes last.

    *matches* are in the order in which they were claimed: of equal ones, which meet while one takes over from another,
    the newest is first.
    """
    return sorted(range(len(matches)), key=lambda place: (_rank(matches[place]), -place))


def _rank(match: Match | None) -> tuple[int | str, ...]:
    return (1,) if match is None else (0, *specificity(match))


def head_tests(match: Match) -> tuple[HeadTest, ...]:
    """All of it, to be checked on heads."""
    return tuple(kind.test(each) for kind, each in _conditions(match))


def route(match: Match) -> Object:
    """Envoy's RouteMatch, before names of headers are changed: all of it holds at once."""
    found: Object = {"prefix": "", "headers": []}
    for kind, each in _conditions(match):
        for name, value in kind.route(each).items():
            found[name] = [*found.get(name, ()), *value] if isinstance(value, list) else value
    return found


def sample(request: InterceptRequest) -> Sample:
    """A request that is intercepted, with the conditions as typed; expressions need an example of the user's."""
    found = Sample()
    for kind in MATCH_KINDS:
        if values := kind.all_parsed(getattr(request, kind.key)):
            kind.show(found, values)
    return found


def _conditions(match: Match) -> Iterator[tuple[MatchKind[Any], Any]]:
    return ((kind, each) for kind in MATCH_KINDS for each in kind.values(match))
