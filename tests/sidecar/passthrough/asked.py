"""Random claims, probes and heads out of a small vocabulary, so that they meet."""

import random
from collections.abc import Iterator, Sequence
from typing import TypeVar

from meshdev.intercept.match import HeaderMatch, Match
from meshdev.wire.agent import Probe

T = TypeVar("T")

#: Some of each rule that Envoy has for headers.
NAMES = (
    *("a", "a", "a", "b", "b", "x-user", "accept", "user-agent", "host", "host", "via", "te", "upgrade", "cookie"),
    *("x-forwarded-proto", "x-forwarded-for", "x-envoy-retry-on", "x-meshdev-retry-on", "x-envoy-force-trace"),
    *("http2-settings", "baggage", "tracestate", "x-request-id", "expect"),
)
VALUES = ("1", "1", "1", "2", "", "1,2", "1, 2", "v1", "v12", "Me", "me", "x=1", "h2c", "trailers", "\xe9", "a b", "-")
REGEXES = ("v[0-9]+", "1|2", ".*", "(?i)me", "1.*", "[^1]+", "1,2", "é", "(a|b|c)?", "x=1|h")
KEYS = ("user", "u", "dev@org", "a*b")
MEMBERS = ("me", "me.x", "a=b", "x")
PATHS = ("/", "/api", "/api/", "/api/v1", "/a", "/healthz", "/%61")
METHODS = ("GET", "POST", "PUT", "OPTIONS", "HEAD", "DELETE", "PURGE")
HOSTS = ("b", "b:80", "1", "", "me", "localhost", "[::1]", "a,b", "a_b")
TARGETS = ("/", "/api", "/api/v1?x=/y", "/apix", "/a//b", "/healthz", "/healthz?full", "/healthz/", "/%61", "/a#/api")
ODD_TARGETS = (
    *(
        "/?/api",
        "//api",
        "/\xe4",
        "/api?\xe4",
        "*",
        "?x",
        "api",
        "http://b/api",
        "http://1",
        "HTTPS://me/a?b",
        "http://b?x",
    ),
    *("http://b:80/", "http://u:p@1/api", "http://[::1]:80/a", "http://a_b/", "http://b:/", "ftp://b/", "http:///api"),
    *("http://b:65535/", "http://b:65536/", "/api/v1/" + "x" * 50, "http://b/a#b", "/|\\^{}"),
)
CONNECTIONS = (
    *("keep-alive", "close", "a", "A, b", "close, x-user", "upgrade", "Upgrade, HTTP2-Settings", "te", "TE, a", "host"),
    *("x-forwarded-for", "", " , a", "1,2,3,4,5,6,7,8,9", "1,2,3,4,5,6,7,8,9,a", ":a", "connection, a", "user-agent"),
    *("baggage", "x-envoy-retry-on", "via", "cookie", "upgrade, a"),
)
UPGRADES = (
    "websocket",
    "WebSocket",
    "h2c",
    "tcp",
    "spdy/3.1",
    "TLS/1.2",
    "foo",
    "we",
    "websocketx",
    "",
    "h2c, websocket",
)
TES = ("trailers", "gzip", "gzip, trailers", "Trailers", "", "trailers;q=1")
PROTOS = ("http", "https", "meshdev-none", "gopher", "")
AGENTS = ("kube-probe/1.35", "kube-probe", "kube-probe/", "curl", "me", "")
SPECIAL = {
    "connection": CONNECTIONS,
    "expect": ("100-continue", "1"),
    "host": HOSTS,
    "te": TES,
    "upgrade": UPGRADES,
    "user-agent": AGENTS,
    "x-forwarded-proto": PROTOS,
}


class Vocabulary:
    """Draws from it."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 -- repeats, as it should

    def some(self, values: Sequence[T], most: int) -> list[T]:
        return [self._random.choice(values) for _ in range(self._random.randint(0, most))]

    def one(self, values: Sequence[T]) -> T:
        return self._random.choice(values)

    def rarely(self, times: int = 5) -> bool:
        return self._random.randrange(times) == 0

    def match(self) -> Match | None:
        if self.rarely(12):
            return None
        headers = [self._header() for _ in range(self._random.choice((0, 0, 1, 1, 1, 2, 3)))]
        return Match(
            headers=tuple(headers),
            path_prefix=self.one(PATHS) if self.rarely() or not headers else None,
            method=self.one(METHODS) if self.rarely() else None,
            baggage=((self.one(("user", "u")), self.one(MEMBERS)),) if self.rarely(8) else (),
            tracestate=((self.one(KEYS), self.one(("me", "me.x", " x"))),) if self.rarely(8) else (),
        )

    def _header(self) -> HeaderMatch:
        name, kind = self.one(NAMES), self.one(("exact", "exact", "regex", "present"))
        if kind == "regex":
            return HeaderMatch(name, "regex", self.one(REGEXES))
        if kind == "present":
            return HeaderMatch(name, "present")
        return HeaderMatch(name, "exact", self._value(name).strip(" "))

    def probes(self, port: int) -> tuple[Probe, ...]:
        return tuple(Probe(port, self.one(("/healthz", "/", "/api")), agent) for agent in self.some(AGENTS[2:], 2))

    def head(self) -> bytes:
        """The head of a request that is followed, without a body."""
        host = [] if self.rarely(25) else [("Host", self.one(HOSTS))]
        names = [*self.some(NAMES, 5), *(["connection"] if self.rarely() else [])]
        headers = [*host, *((name, self._value(name)) for name in names)]
        self._random.shuffle(headers)
        lines = "".join(f"{self._cased(name)}:{self._blank()}{value}{self._blank()}\r\n" for name, value in headers)
        version = "HTTP/1.0" if self.rarely(10) else "HTTP/1.1"
        line = f"{self.one((*METHODS, 'get'))} {self.one(ODD_TARGETS if self.rarely() else TARGETS)} {version}"
        return f"{line}\r\n{lines}\r\n".encode("latin-1")

    def bodied(self, target: str) -> tuple[bytes, bytes]:
        """A request with a body, as it is sent, and the body."""
        body = b"".join(self.some((b"x", b"0\r\n\r\n", b"\r\n", b"GET / HTTP/1.1\r\n\r\n", b"y" * 5000), 4))
        if self.rarely(2):
            framing, sent = f"Content-Length: {self.one(('', '0', '00'))}{len(body)}", body
        else:
            framing, sent = "Transfer-Encoding: chunked", b"".join(self._chunks(body))
        lines = f"Host: b\r\n{self.one((framing, framing.upper(), framing.lower()))}{self._blank()}\r\n"
        return f"POST {target} HTTP/1.1\r\n{lines}\r\n".encode() + sent, body

    def _chunks(self, body: bytes) -> Iterator[bytes]:
        while body:
            size = self._random.randint(1, len(body))
            written = self.one((f"{size:x}", f"{size:X}", f"00{size:x}"))
            extension = self.one(("", "", ";a", ";a=b", ';a="b c";d', "; a = b", ";"))
            yield f"{written}{extension}\r\n".encode() + body[:size] + b"\r\n"
            body = body[size:]
        yield self.one((b"0\r\n\r\n", b"000\r\n\r\n", b"0;a\r\n\r\n", b"0\r\nX-Sum: 1\r\nX-Empty:\r\n\r\n"))

    def _value(self, name: str) -> str:
        if name == "baggage":
            return self._list(("user", "u"), ("", ";p=1", " ;p;q=user"))
        if name == "tracestate":
            return self._list(KEYS, ("",))
        return self.one(SPECIAL.get(name, VALUES))

    def _list(self, keys: Sequence[str], ends: Sequence[str]) -> str:
        equals = ("=", "=", " = ") if len(ends) > 1 else ("=",)
        members = [f"{self.one(keys)}{self.one(equals)}{self.one(MEMBERS)}{self.one(ends)}" for _ in range(3)]
        return self.one((",", ", ", "\t,")).join(members[: self._random.randint(1, 3)])

    def _cased(self, name: str) -> str:
        return self.one((name, name.title(), name.upper()))

    def _blank(self) -> str:
        return self.one(("", " ", " ", "\t", "  "))
