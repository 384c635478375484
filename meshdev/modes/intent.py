"""What a request of the session API means: the texts of a command line, read. Pure."""

from dataclasses import dataclass

from meshdev.errors import UsageError
from meshdev.intercept.match import parse_match
from meshdev.intercept.ports import PortRequest, parse_port
from meshdev.intercept.spec import Match, Mode
from meshdev.intercept.target import Target, parse_target
from meshdev.wire.session_intercepts import InterceptRequest, Strategy


@dataclass(frozen=True)
class Intent:
    """What somebody wants to intercept. *namespace* None is the connection's; *match* is None exactly for a proxy."""

    target: Target
    namespace: str | None
    mode: Mode
    match: Match | None
    ports: tuple[PortRequest, ...]
    strategy: Strategy
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
    if request.mode == "mesh":
        return parse_match(
            headers=request.headers,
            path_prefix=request.path_prefix,
            method=request.method,
            baggage=request.baggage,
            tracestate=request.tracestate,
        )
    if request.headers or request.path_prefix or request.method or request.baggage or request.tracestate:
        raise UsageError("a proxy takes all traffic", hint="meshdev mesh takes the requests that match")
    return None
