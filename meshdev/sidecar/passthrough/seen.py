"""A request's head as Envoy sees it when it looks for a route: with other headers than were sent.

Envoy joins, drops and renames headers, takes the Host from an absolute target, and refuses some requests that every app
answers. Sources: Envoy 1.40, source/common/http/{header_map_impl,utility,conn_manager_utility}.cc and its HTTP/1 codec,
our own options in ``sidecar.envoy``, and the real Envoy: tests/sidecar/passthrough compares both on random requests.
"""

import re
from collections.abc import Iterator
from typing import Final

from meshdev.sidecar.envoy import http
from meshdev.sidecar.passthrough.http1 import RequestHead

#: Envoy has a place for one value each of these, and joins what comes twice; empty ones are passed over.
#: Of all others each value is compared by itself.
_JOINED: Final = frozenset(
    {
        *(b"accept", b"accept-encoding", b"access-control-request-headers", b"access-control-request-method"),
        *(b"authorization", b"cache-control", b"connection", b"content-encoding", b"content-type", b"expect"),
        *(b"grpc-accept-encoding", b"grpc-timeout", b"host", b"if-match", b"origin", b"pragma", b"referer", b"te"),
        *(b"upgrade", b"user-agent", b"via", b"x-client-trace-id", b"x-forwarded-for", b"x-forwarded-host"),
        *(b"x-forwarded-port", b"x-forwarded-proto", b"x-request-id", b"x-envoy-attempt-count"),
        *(b"x-envoy-decorator-operation", b"x-envoy-downstream-service-cluster", b"x-envoy-downstream-service-node"),
        *(b"x-envoy-external-address", b"x-envoy-is-timeout-retry", b"x-envoy-original-host", b"x-envoy-original-path"),
    }
)
#: Obeyed by this Envoy if they were not carried past it under other names: by their own names, the other ones.
_MASKED: Final = {f"x-envoy-{name}".encode(): f"x-meshdev-{name}".encode() for name in http.ENVOY_HEADERS}
#: Believed only from peers that Envoy trusts.
_DROPPED: Final = (
    *(b"x-forwarded-client-cert", b"x-envoy-force-trace", b"x-envoy-ip-tags", b"x-envoy-original-url"),
    b"x-envoy-expected-rq-timeout-ms",
)
#: Headers that Connection may not name, and how many it may.
_NOT_NAMED: Final = frozenset({b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"})
_MOST_NAMED: Final = 9
#: Those that it may name and that stay; ``te`` has rules of its own.
_KEPT: Final = frozenset({b"connection", b"http2-settings", b"te"})
_MOST_TE: Final = 255
#: What begins like one of these is passed on, if it is one (sidecar/envoy/listeners.py).
_OFFERS: Final = (b"web", b"tcp", b"spd")
_UPGRADES: Final = frozenset({b"websocket", b"tcp", b"spdy/3.1"})
_PROTO: Final = http.PROTO.encode()

_AUTHORITY: Final = re.compile(rb"[!$%&'()*+,\-.0-9:;=@A-Z\[\]_a-z~]*")
_PATH_END: Final = re.compile(rb"[?#]")
_TARGET: Final = re.compile(rb"[!-~]+")
_ABSOLUTE: Final = re.compile(
    rb"(?i:https?)://(?:[A-Za-z0-9\-_.!~*'()%;:&=+$,]*@)?"
    rb"((?:[A-Za-z0-9.\-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]+))?)(/.*)?"
)
_MOST_PORT: Final = 65535
_NO_HOST: Final = b"localhost"  # of HTTP/1.0

Headers = dict[bytes, list[bytes]]


class SeenHead:
    """What routes are compared with. ``path`` is without query; ``headers`` are values to be compared one by one."""

    __slots__ = ("headers", "method", "path")

    def __init__(self, method: bytes, path: bytes, headers: Headers) -> None:
        self.method = method
        self.path = path
        self.headers = headers


def seen(head: RequestHead) -> SeenHead | None:
    """What Envoy makes of *head*; None where it would refuse it or find no route at all."""
    headers = _joined(head)
    if not (_connection(headers) and _upgrade(headers)):
        return None
    host, path = _target(head, headers)
    if host is None or path is None or _AUTHORITY.fullmatch(host) is None:
        return None
    headers[b"host"] = [host]
    for name in _DROPPED:
        headers.pop(name, None)
    for name, other in _MASKED.items():
        if value := headers.pop(name, [b""])[0]:
            headers[other] = [value]
    if headers.get(_PROTO) == [b""]:
        return None  # the scheme of a request without a scheme
    return SeenHead(head.method, path, headers)


def path_of(target: bytes) -> bytes:
    """The path of a target that begins with one."""
    end = _PATH_END.search(target)
    return target if end is None else target[: end.start()]


def _joined(head: RequestHead) -> Headers:
    headers: Headers = {}
    for name, value in head.headers:
        found = headers.setdefault(name, [])
        if found and (name in _JOINED or name in _MASKED):
            found[0] = b",".join(filter(None, (found[0], value)))
        else:
            found.append(value)
    return headers


def _target(head: RequestHead, headers: Headers) -> tuple[bytes | None, bytes | None]:
    """Host and path."""
    if _TARGET.fullmatch(head.target) is None:
        return None, None
    if head.target.startswith(b"/"):
        default = None if head.minor else [_NO_HOST]
        found = headers.get(b"host", default)
        return (None if found is None else found[0]), path_of(head.target)
    absolute = _ABSOLUTE.fullmatch(head.target)
    if absolute is None or int(absolute[2] or 0) > _MOST_PORT:
        return None, None
    return absolute[1], path_of(absolute[3] or b"/")


def _options(headers: Headers, name: bytes) -> list[bytes]:
    """The members of a list."""
    value = headers.get(name, [b""])[0]
    return [found for option in value.split(b",") if (found := option.strip(b" \t"))]


def _connection(headers: Headers) -> bool:
    """Take away what belongs to this connection. Whether Envoy takes the rest."""
    named = [name.lower() for name in _options(headers, b"connection")]
    te = headers.get(b"te", [b""])[0]
    if len(named) > _MOST_NAMED or any(name in _NOT_NAMED or name.startswith(b":") for name in named):
        return False
    if b"te" in named and len(te) > _MOST_TE:
        return False
    for name in named:
        if name not in _KEPT and name != b"upgrade":
            headers.pop(name, None)
    if te or b"te" in named:
        headers.pop(b"te", None)
        # Only where Connection names it, as it should, its case makes no difference.
        codings = (te.lower() if b"te" in named else te).split(b",")
        if b"trailers" in [coding.strip(b" \t") for coding in codings]:
            headers[b"te"] = [b"trailers"]
    return True


def _upgrade(headers: Headers) -> bool:
    """Take away offers that are not passed on. Whether Envoy takes what is left."""
    offered = _options(headers, b"upgrade")
    headers.pop(b"upgrade", None)
    if b"upgrade" not in [name.lower() for name in _options(headers, b"connection")]:
        return True
    if any(offer.lower() == b"h2c" for offer in offered):
        headers.pop(b"http2-settings", None)
    left = [offer for offer in offered if offer.lower().startswith(_OFFERS)]
    if left:
        headers[b"upgrade"] = left
    return not left or (len(left) == 1 and left[0].lower() in _UPGRADES)


def sent_as(name: bytes) -> Iterator[bytes]:
    """Names under which a header may be sent that is seen as *name*."""
    yield name
    yield from (sent for sent, other in _MASKED.items() if other == name)
