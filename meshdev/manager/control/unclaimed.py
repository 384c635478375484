"""Why no claim took a request that Envoy carried: of its headers an entry of the access log has none. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from meshdev.intercept.match import HeadTest, head_tests, in_order
from meshdev.observe import reasons
from meshdev.sidecar.envoy.claims import LiveClaim


@dataclass(frozen=True)
class LoggedRequest:
    """What is known of it, as meshdev.observe.reasons asks for it."""

    method: str
    path: str

    def values(self, _name: str) -> Sequence[str]:
        """None is known."""
        return ()


class UnclaimedRequests:
    """Of one port, whose *claims* are in the order in which they were made."""

    def __init__(self, claims: Iterable[LiveClaim]) -> None:
        matches = [claim.spec.match for claim in claims]
        ordered = [matches[place] for place in in_order(matches)]
        self._claims = [head_tests(match) for match in ordered if match is not None][: reasons.MAX_CLAIMS]

    def reason(self, request: LoggedRequest) -> str:
        """The conditions that do not hold for sure, else the headers by one of which it is another's."""
        failed = [[test for test in tests if _fails(test, request)] for tests in self._claims]
        unknown = [sorted({test.header for test in tests if test.header}) for tests in self._claims]
        by_headers = [names for tests, names in zip(failed, unknown, strict=True) if not tests and names]
        if not by_headers:
            return reasons.not_claimed(request, failed, lambda _: False)
        _, fewest = min((len(names), names) for names in by_headers)
        return f"{'header' if len(fewest) == 1 else 'one of the headers'} {', '.join(fewest)} does not match"


def _fails(test: HeadTest, request: LoggedRequest) -> bool:
    match test.how:
        case "method":
            return request.method != test.value
        case "path-prefix":
            return not request.path.startswith(test.value)
    return False
