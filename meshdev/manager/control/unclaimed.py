"""Why no claim took a request that Envoy carried. Pure.

Of its headers an entry of the access log has those that claims ask for (meshdev.sidecar.envoy.noted), unless Envoy was
asked for others when the request came, or they are credentials: these are not known.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from meshdev.intercept.match import HeadTest, head_tests, in_order
from meshdev.observe import reasons
from meshdev.sidecar.envoy import http
from meshdev.sidecar.envoy.claims import LiveClaim
from meshdev.sidecar.envoy.noted import NotedHeaders
from meshdev.sidecar.passthrough import decide
from meshdev.sidecar.passthrough.seen import SeenHead

_NOTHING: Final = NotedHeaders()
#: Values of one header that are compared, each by itself.
_MAX_VALUES: Final = 32


@dataclass(frozen=True)
class LoggedRequest:
    """What is known of it, as meshdev.observe.reasons asks for it."""

    method: str
    path: str
    noted: NotedHeaders = _NOTHING

    def values(self, name: str) -> Sequence[str]:
        """None where the header is missing, or not known."""
        value = self.noted.values.get(name)
        return () if value is None else (value,)

    @property
    def size(self) -> int:
        """How much there is to compare, in characters."""
        return len(self.path) + sum(map(len, self.noted.values.values()))

    def as_seen(self) -> SeenHead:
        """The same for conditions, with each of several values that Envoy has joined."""
        headers = {
            http.masked(name).encode(): [
                value.encode(),
                *(each.strip().encode() for each in value.split(",", _MAX_VALUES)[:_MAX_VALUES]),
            ]
            for name, value in self.noted.values.items()
        }
        return SeenHead(self.method.encode(), self.path.encode(), headers)


class UnclaimedRequests:
    """Of one port, whose *claims* are in the order in which they were made."""

    def __init__(self, claims: Iterable[LiveClaim]) -> None:
        matches = [claim.spec.match for claim in claims]
        ordered = [matches[place] for place in in_order(matches)]
        self._claims = [head_tests(match) for match in ordered if match is not None][: reasons.MAX_CLAIMS]
        self._fits = {test: decide.condition(test) for tests in self._claims for test in tests}

    def reason(self, request: LoggedRequest) -> str:
        """The conditions that do not hold for sure, else the headers by one of which it is another's."""
        if request.noted.probe:
            return reasons.PROBE
        seen = request.as_seen()
        claims = self._claims[: reasons.most_claims(request.size)]
        unknown = [sorted({test.header for test in tests if _unknown(test, request)}) for tests in claims]
        failed = [
            [test for test in tests if not (_unknown(test, request) or self._fits[test](seen))] for tests in claims
        ]
        by_headers = [names for tests, names in zip(failed, unknown, strict=True) if not tests and names]
        if not by_headers:
            return reasons.not_claimed(request, request.size, failed, lambda _: False)
        _, fewest = min((len(names), names) for names in by_headers)
        return f"{'header' if len(fewest) == 1 else 'one of the headers'} {', '.join(fewest)} does not match"


def _unknown(test: HeadTest, request: LoggedRequest) -> bool:
    return bool(test.header) and not (test.header in request.noted.values or test.header in request.noted.missing)
