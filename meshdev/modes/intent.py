"""What a request of the session API means: the texts of a command line, read. Pure."""

from dataclasses import dataclass

from meshdev.errors import UsageError
from meshdev.intercept import match
from meshdev.intercept.match import Match
from meshdev.intercept.ports import PortRequest, parse_port
from meshdev.intercept.target import Target, parse_target
from meshdev.wire.modes import Mode
from meshdev.wire.session_intercepts import AskedStrategy, InterceptRequest


@dataclass(frozen=True)
class Intent:
    """What somebody wants to intercept.

    *namespace* None is the connection's; *match* is None exactly where the mode needs none.
    """

    target: Target
    namespace: str | None
    mode: Mode
    match: Match | None
    ports: tuple[PortRequest, ...]
    strategy: AskedStrategy
    takeover: bool
    reset_existing: bool
    fallback: bool


def intent(request: InterceptRequest) -> Intent:
    """Raises UsageError, with the column where a text is wrong."""
    return Intent(
        target=parse_target(request.target),
        namespace=request.namespace,
        mode=request.mode,
        match=_match(request),
        ports=tuple(parse_port(text) for text in request.ports),
        strategy=request.strategy,
        takeover=request.takeover,
        reset_existing=request.reset_existing,
        fallback=request.fallback,
    )


def _match(request: InterceptRequest) -> Match | None:
    typed = match.typed(request)
    if request.mode.needs_match:
        return match.parse_match(**typed)
    if any(typed.values()):
        raise UsageError(f"a {request.mode} takes all traffic", hint="meshdev mesh takes the requests that match")
    return None
