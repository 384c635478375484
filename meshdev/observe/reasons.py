"""Why nobody's claim took a request: which conditions of the claims did not hold. For people, one line.

Of several claims the one counts of which the fewest conditions failed, and of those the most specific one. Values of
credentials are masked, on both sides of the comparison.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Final, Protocol

from meshdev.intercept.match import HeadTest
from meshdev.observe import masking
from meshdev.wire.access import MAX_REASON

#: Claims that are looked at: a pod may have thousands.
MAX_CLAIMS: Final = 32
#: Bytes of a request times claims with which they are compared: of a longer request fewer claims are looked at.
_MAX_COMPARED: Final = 16 << 10
#: Bytes of a head that is compared at all.
MAX_HEAD: Final = 16 << 10
#: Characters of one value or name in a reason.
_MAX_VALUE: Final = 48
_CUT: Final = "..."

NOTHING_CLAIMED: Final = "nothing is claimed on this port"
PROBE: Final = "probe of the kubelet"
#: Its routes find no request that it would refuse.
TOO_LONG: Final = "its head is too long to say why"
REFUSED: Final = "Envoy would refuse this request"
NO_ENVOY: Final = "fell back: the sidecar's Envoy accepts no connections"


class SeenRequest(Protocol):
    """A request as claims are compared with it."""

    @property
    def method(self) -> str:
        """The method."""

    @property
    def path(self) -> str:
        """The path, without the query."""

    def values(self, name: str) -> Sequence[str]:
        """The values of a header, by its name in lower case."""


def most_claims(size: int) -> int:
    """With how many claims a request of so many bytes is compared. Whoever sends one decides what that costs."""
    return max(1, min(MAX_CLAIMS, _MAX_COMPARED // max(size, 1)))


def not_claimed(
    request: SeenRequest, size: int, claims: Iterable[Sequence[HeadTest]], holds: Callable[[HeadTest], bool]
) -> str:
    """Why none of these *claims*, the most specific one first, takes *request*, which has *size* bytes; *holds* is
    whether a condition does.

    Empty where one would.
    """
    failed = [[test for test in tests if not holds(test)] for tests in islice(claims, most_claims(size))]
    if not failed:
        return NOTHING_CLAIMED
    closest = min(failed, key=len)
    return _shortened("; ".join(_failed(test, request) for test in closest), MAX_REASON)


def not_followed(reason: str) -> str:
    """Why a connection's requests are not told apart (sidecar/passthrough/heads.py)."""
    return _shortened(f"followed no further: {reason}", MAX_REASON)


def _failed(test: HeadTest, request: SeenRequest) -> str:
    match test.how:
        case "method":
            return f"method {_value(request.method)}, not {_value(test.value)}"
        case "path-prefix":
            return f"path {_value(request.path)}, not below {_value(test.value)}"
    values = request.values(test.header)
    name = _shortened(test.header, _MAX_VALUE)
    if not values or test.how == "present":
        return f"no header {name}"
    if test.how in {"baggage", "tracestate"}:
        return _member(test, values)
    sign = "~" if test.how == "regex" else "="
    return _other(name, _header(test.header, values), sign, _header(test.header, [test.value]))


def _other(name: str, found: str, sign: str, wanted: str) -> str:
    """Two values that are shown, or masked, or shortened alike are another all the same."""
    return f"{name}={found}, not " + (f"{name}{sign}{wanted}" if found != wanted else "the claimed one")


def _member(test: HeadTest, values: Sequence[str]) -> str:
    """What the list has instead."""
    key, _, wanted = test.value.partition("=")
    name = _shortened(key, _MAX_VALUE)
    for member in (member for value in values for member in value.split(",")):
        pair = member.partition(";")[0] if test.how == "baggage" else member
        found, equals, value = pair.partition("=")
        if equals and found.strip(" \t") == key:
            shown = _header(key, [value.strip(" \t")])
            return f"{test.header} {_other(name, shown, '=', _header(key, [wanted]))}"
    return f"{test.header} without {name}={_header(key, [wanted])}"


def _header(name: str, values: Sequence[str]) -> str:
    return _shortened(", ".join(masking.header(name, value) for value in islice(values, 3)), _MAX_VALUE)


def _value(found: str) -> str:
    return _shortened(masking.text(found), _MAX_VALUE)


def _shortened(found: str, limit: int) -> str:
    return found if len(found) <= limit else found[: limit - len(_CUT)] + _CUT
