"""Matches as users write them, as people read them, and in which order they are tried.

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

from collections.abc import Callable, Sequence
from typing import Final

from meshdev.errors import UsageError
from meshdev.intercept import checks
from meshdev.intercept.checks import Fault
from meshdev.intercept.spec import MAX_CONDITIONS, HeaderMatch, Match

_EVERYTHING: Final = "all traffic"


def parse_match(
    *,
    headers: Sequence[str] = (),
    path_prefix: str | None = None,
    method: str | None = None,
    baggage: Sequence[str] = (),
    tracestate: Sequence[str] = (),
) -> Match:
    """The match of these options' values. Raises UsageError with the column, and where there is no condition."""
    for option, values in (("--header", headers), ("--baggage", baggage), ("--tracestate", tracestate)):
        if len(values) > MAX_CONDITIONS:
            raise UsageError(f"{option} is given {len(values)} times, at most {MAX_CONDITIONS} are possible")
    found = Match.of(
        headers=tuple(parse_header(value) for value in headers),
        path_prefix=None if path_prefix is None else _checked("--path-prefix", path_prefix, checks.path_prefix),
        method=None if method is None else _checked("--method", method, checks.method),
        baggage=tuple(_member("--baggage", each, checks.baggage_key, checks.baggage_value) for each in baggage),
        tracestate=tuple(
            _member("--tracestate", each, checks.tracestate_key, checks.tracestate_value) for each in tracestate
        ),
    )
    if found == Match():
        raise UsageError(
            "mesh needs to know which requests are yours",
            hint="for instance --header x-user=me; for all traffic: meshdev proxy",
        )
    return found


def parse_header(value: str) -> HeaderMatch:
    """``NAME=VALUE`` (exact), ``NAME~REGEX`` (the whole value), ``NAME`` (present); the first = or ~ decides."""
    at = min((at for at in (value.find("="), value.find("~")) if at >= 0), default=len(value))
    name = _part("--header", value, 0, at, checks.header_name)
    if at == len(value):
        return HeaderMatch(name, "present")
    if value[at] == "=":
        return HeaderMatch(name, "exact", _part("--header", value, at + 1, len(value), checks.header_value))
    return HeaderMatch(name, "regex", _part("--header", value, at + 1, len(value), checks.regex))


def text(match: Match | None) -> str:
    """One line for people; equal matches have the same."""
    if match is None:
        return _EVERYTHING
    parts = [_header_text(header) for header in match.headers]
    if match.path_prefix is not None:
        parts.append(f"path-prefix {match.path_prefix}")
    if match.method is not None:
        parts.append(f"method {match.method}")
    parts += [f"baggage {key}={value}" for key, value in match.baggage]
    parts += [f"tracestate {key}={value}" for key, value in match.tracestate]
    return ", ".join(parts)


def specificity(match: Match) -> tuple[int, int, int, int, int, str]:
    """The key to sort matches by: the most specific comes first."""
    hows = [header.kind for header in match.headers]
    members = len(match.baggage) + len(match.tracestate)
    prefix, method = match.path_prefix or "", match.method or ""
    return (
        -(len(hows) + members + bool(prefix) + bool(method)),
        -(hows.count("exact") + members),
        -hows.count("regex"),
        -len(prefix),
        -bool(method),
        text(match),
    )


def _header_text(header: HeaderMatch) -> str:
    sign = {"exact": "=", "regex": "~", "present": ""}[header.kind]
    return f"{header.name}{sign}{header.value}"


def _member(option: str, value: str, key: Callable[[str], str], load: Callable[[str], str]) -> tuple[str, str]:
    at = value.find("=")
    if at < 0:
        raise UsageError(f"{option} {value}: no = after the key (column {len(value) + 1})", hint="KEY=VALUE")
    return _part(option, value, 0, at, key), _part(option, value, at + 1, len(value), load)


def _checked(option: str, value: str, check: Callable[[str], str]) -> str:
    return _part(option, value, 0, len(value), check)


def _part(option: str, value: str, start: int, end: int, check: Callable[[str], str]) -> str:
    try:
        return check(value[start:end])
    except Fault as fault:
        raise UsageError(f"{option} {value}: {fault} (column {start + fault.at + 1})") from None
