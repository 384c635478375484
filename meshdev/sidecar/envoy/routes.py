"""Which requests go where: probes to the original, then the matches, most specific first, then everything else."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from meshdev.intercept import match as matches
from meshdev.intercept.match import Match
from meshdev.sidecar.envoy import access_log, http, names, noted, trace_context
from meshdev.sidecar.envoy.claims import LiveClaim, Served, in_order
from meshdev.sidecar.envoy.http import OFF, typed
from meshdev.wire.agent import PodPort, Probe

Object = dict[str, Any]

#: Bodies up to this size wait for the laptop's answer to the connection and go to the original when it refuses.
FALLBACK_BYTES: Final = 1 << 20
#: What is kept of a body for the original, in case that its connection has just been closed.
_AGAIN_BYTES: Final = 1 << 16
#: Matches every target, ``*`` of OPTIONS and absolute ones, too.
_ANYTHING: Final = {"prefix": ""}
_NO_MATCH: Final = Match()
_TIMELESS: Final = {"timeout": OFF, "idle_timeout": OFF}
_ORIGINAL: Final = "the original"
#: It was not sent, or the other end says that it did nothing with it: a gRPC server that stops does (RFC 9113, 8.7).
_UNREAD: Final = "reset-before-request,refused-stream"
_AT_ONCE: Final = {"base_interval": "0.001s", "max_interval": "0.001s"}
_PREVIOUS: Final = "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"
#: The laptop surely did not read it: the original gets the whole request, as the third. Connections to the laptop are
#: used again, so another one is tried first: the first may just have been closed.
_FALL_BACK: Final = {
    "retry_on": f"connect-failure,{_UNREAD}",
    "num_retries": 2,
    "retry_back_off": _AT_ONCE,
    "retry_priority": {
        "name": "envoy.retry_priorities.previous_priorities",
        "typed_config": typed(_PREVIOUS, update_frequency=2),
    },
}
#: A request that never left is tried once more: the app had closed the idle connection it was meant for.
_NEVER_READ: Final = {"retry_on": f"connect-failure,{_UNREAD}", "num_retries": 1, "retry_back_off": _AT_ONCE}
_NEVER_LEFT: Final = {"retry_on": _UNREAD, "num_retries": 1, "retry_back_off": _AT_ONCE}


def routes(served: Served, claims: Iterable[LiveClaim], probes: Sequence[Probe]) -> Object:
    """The routes of one port as Envoy tries them: from the top."""
    port = served.port
    of_kubelet = [_probe(probe) for probe in probes if probe.port == port.number]
    found = [{**_to_original(each, port), **noted.probe_on_route()} for each in of_kubelet]
    ordered = list(in_order(claims))
    for claim in ordered:
        traced = trace_context.of_route() if claim.spec.trace else {}
        found += [{**each, **traced} for each in _claimed(claim, port)]
    found.append(_to_original({"connect_matcher": {}}, port))
    found += _watched(ordered, port)
    found.append(_to_original(_ANYTHING, port))
    return {
        "name": names.routes(port),
        "virtual_hosts": [{"name": names.HOST, "domains": ["*"], "routes": found}],
        # A route may come before its cluster is ready; Envoy then answers 503 for that one alone.
        "validate_clusters": False,
    }


def _watched(claims: Iterable[LiveClaim], port: PodPort) -> list[Object]:
    """What no claim took, while somebody watches: it is noted which of its headers claims ask for."""
    headers = noted.names(
        test.header for claim in claims for test in matches.head_tests(claim.spec.match or _NO_MATCH) if test.header
    )
    if not headers:
        return []
    return [
        {**_to_original({**_ANYTHING, "runtime_fraction": access_log.while_watched()}, port), **noted.on_route(headers)}
    ]


def _claimed(claim: LiveClaim, port: PodPort) -> list[Object]:
    match = condition(claim.spec.match)
    if port.transport == "tcp" and claim.relay(port) is not None:
        return [_to_laptop(match, claim, port)]
    if claim.spec.fallback:
        fallen = names.counted(claim.spec.id, fallen=True)
        return [{**_to_original(match, port), "stat_prefix": fallen, "metadata": _end(_ORIGINAL, claim)}]
    route: Object = {"cluster": names.NOBODY, **_TIMELESS}
    nobody = {"match": match, "route": route, "metadata": _end(_absent(claim, port), claim)}
    return [{**nobody, "stat_prefix": names.counted(claim.spec.id)}]


def _to_laptop(match: Object, claim: LiveClaim, port: PodPort) -> Object:
    route: Object = {"cluster": names.laptop(port, claim.spec.id), **_TIMELESS}
    found: Object = {"match": match, "route": route, "stat_prefix": names.counted(claim.spec.id)}
    if not claim.spec.fallback:
        route.update(retry_policy=_NEVER_READ)
        return {**found, "metadata": _end(_absent(claim, port), claim)}
    route.update(cluster=names.either(port, claim.spec.id), retry_policy=_FALL_BACK)
    return {**found, "request_body_buffer_limit": FALLBACK_BYTES, "metadata": _end(_ORIGINAL, claim)}


def condition(match: Match | None) -> Object:
    """A match as Envoy's RouteMatch: all of it holds at once."""
    if match is None:
        return dict(_ANYTHING)
    found = matches.route(match)
    headers = [{**each, "name": http.masked(each["name"])} for each in found["headers"]]
    if any(each.name == http.PROTO for each in match.headers):
        proto = {"name": http.PROTO, "string_match": {"exact": http.NO_PROTO}, "invert_match": True}
        headers.insert(len(match.headers), proto)
    return {**found, "headers": headers}


def _probe(probe: Probe) -> Object:
    """A probe whose spec has an empty User-Agent comes without one (Envoy takes no empty prefix)."""
    agent = {"string_match": {"prefix": probe.agent}} if probe.agent else {"present_match": True, "invert_match": True}
    return {"path": probe.path, "headers": [{"name": "user-agent", **agent}]}


def _to_original(match: Object, port: PodPort) -> Object:
    route = {"cluster": names.original(port), "retry_policy": _NEVER_LEFT, **_TIMELESS}
    return {"match": match, "route": route, "request_body_buffer_limit": _AGAIN_BYTES, "metadata": _end(_ORIGINAL)}


def _end(text: str, claim: LiveClaim | None = None) -> Object:
    """What answers and records tell of a route."""
    intercept = {} if claim is None else {names.INTERCEPT: claim.spec.id}
    return {"filter_metadata": {names.METADATA: {names.END: text, **intercept}}}


def _absent(claim: LiveClaim, port: PodPort) -> str:
    return f"no program of {claim.holder} answers for port {port}, and this intercept has no fallback to the original"
