"""What random heads seldom hit: a match, heads, and whether they are claimed, by Envoy and by us."""

from meshdev.intercept.match import HeaderMatch, Match


def get(*lines: str, target: str = "/", method: str = "GET", host: str | None = "b", version: str = "1.1") -> bytes:
    """A request's head."""
    hosts = [] if host is None else [f"Host: {host}"]
    return "\r\n".join((f"{method} {target} HTTP/{version}", *hosts, *lines, "", "")).encode("latin-1")


def exact(name: str, value: str) -> Match:
    return Match(headers=(HeaderMatch(name, "exact", value),))


def regex(name: str, value: str) -> Match:
    return Match(headers=(HeaderMatch(name, "regex", value),))


def present(name: str) -> Match:
    return Match(headers=(HeaderMatch(name, "present"),))


EDGES: list[tuple[Match, list[tuple[bytes, bool]]]] = [
    (exact("a", "1"), [(get("A: 1"), True), (get("a:1 "), True), (get("a: 11"), False), (get("b: 1"), False)]),
    # Several values are compared one by one, and joined where Envoy has one place for them.
    (exact("a", "1"), [(get("a: 2", "a: 1"), True), (get("a: 1,2"), False), (get("a:\t1\t"), True)]),
    (exact("accept", "1,2"), [(get("accept: 1", "accept: 2"), True), (get("accept: 1"), False)]),
    (exact("accept", "1"), [(get("accept: 1", "accept:"), True), (get("accept: 1", "accept: 2"), False)]),
    # To Envoy a byte is a character.
    (regex("a", "é|ü"), [(get("a: Ã¼"), True), (get("a: ü"), False)]),
    (regex("a", "x.y"), [(get("a: xéy"), True), (get("a: xÃ©y"), False)]),
    (regex("a", "v[0-9]+"), [(get("a: v1"), True), (get("a: xv1"), False), (get("a: v1x"), False)]),
    # Connection takes headers away first.
    (exact("a", "1"), [(get("a: 1", "Connection: close, A"), False), (get("a: 1", "Connection: close"), True)]),
    (exact("a", "1"), [(get("a: 1", "Connection: 1,2,3,4,5,6,7,8,9"), True)]),
    (exact("a", "1"), [(get("a: 1", "Connection: 1,2,3,4,5,6,7,8,9,0"), False)]),
    (exact("a", "1"), [(get("a: 1", "Connection: te", "te: " + "x" * 256), False)]),
    (exact("a", "1"), [(get("a: 1", "Connection: te", "te: " + "x" * 255), True)]),
    (exact("a", "1"), [(get("a: 1", "Connection: host"), False)]),
    (exact("a", "1"), [(get("a: 1", "Connection: host", target="http://b/"), True)]),
    (present("http2-settings"), [(get("http2-settings: A", "Connection: http2-settings"), True)]),
    (
        present("http2-settings"),
        [(get("http2-settings: A", "Connection: http2-settings, upgrade", "upgrade: h2c"), False)],
    ),
    (
        present("te"),
        [
            *((get("te: trailers"), True), (get("te: x, trailers"), True), (get("te: Trailers"), False)),
            *((get("te:"), True), (get("te:", "Connection: te"), False), (get("te: gzip"), False)),
            (get("te: x, TRAILERS", "Connection: te"), True),
        ],
    ),
    (exact("te", "trailers"), [(get("te: x, trailers"), True), (get("te: TRAILERS", "Connection: te"), True)]),
    (present("upgrade"), [(get("upgrade: tcp"), False), (get("upgrade: tcp", "Connection: upgrade"), True)]),
    (exact("upgrade", "tcp"), [(get("upgrade: foo, tcp", "Connection: upgrade"), True)]),
    (present("a"), [(get("a: 1", "upgrade: tcpx", "Connection: upgrade"), False)]),
    # Orders to Envoy are carried past it.
    (present("x-envoy-retry-on"), [(get("x-envoy-retry-on: 1"), True), (get("x-envoy-retry-on:"), False)]),
    (present("x-envoy-retry-on"), [(get("x-meshdev-retry-on: 1"), True), (get("x-meshdev-retry-on:"), True)]),
    (exact("x-meshdev-retry-on", "1"), [(get("x-meshdev-retry-on: 2", "x-envoy-retry-on: 1"), True)]),
    (present("x-forwarded-client-cert"), [(get("x-forwarded-client-cert: 1"), False)]),
    (
        present("x-forwarded-proto"),
        [
            *((get("x-forwarded-proto: gopher"), True), (get("x-forwarded-proto: meshdev-none"), False)),
            *((get(), False), (get("x-forwarded-proto:"), False)),
        ],
    ),
    (exact("x-forwarded-proto", "meshdev-none"), [(get("x-forwarded-proto: meshdev-none"), False)]),
    # Targets and hosts.
    (
        exact("host", "c"),
        [(get(target="http://c/", host=None), True), (get(target="http://u@c/"), True), (get(), False)],
    ),
    (exact("host", "localhost"), [(get(host=None, version="1.0"), True), (get(host=None), False)]),
    (exact("host", "localhost"), [(get("a: 1", host="", version="1.0"), False)]),
    (exact("host", ""), [(get(host=""), True)]),
    (Match(path_prefix="/api"), [(get(target="/api?/x"), True), (get(target="/?/api"), False)]),
    (Match(path_prefix="/api"), [(get(target="/api#x"), True), (get(target="http://c/api"), True)]),
    (Match(path_prefix="/"), [(get(target="http://c"), True), (get(target="http://c?/"), False)]),
    (Match(path_prefix="/"), [(get(target="*", method="OPTIONS"), False), (get(target="?x"), False)]),
    (Match(path_prefix="/"), [(get(target="http://c:65535/"), True), (get(target="http://c:65536/"), False)]),
    (Match(method="PUT"), [(get(method="PUT"), True), (get(method="put"), False)]),
    (
        Match(baggage=(("user", "me"),)),
        [
            *((get("baggage: a=b, user = me ;p=1,c"), True), (get("baggage: user=me;p=x;q"), True)),
            *((get("baggage: xuser=me"), False), (get("baggage: user"), False), (get("baggage: user=me@"), False)),
            (get("baggage: a=1", "baggage: user=me"), True),
        ],
    ),
    (Match(tracestate=(("u@o", "me"),)), [(get("tracestate: a=b ,\tu@o=me"), True), (get("tracestate: u@o=m"), False)]),
    (Match(tracestate=(("u", "me"),)), [(get("tracestate: u= me"), False), (get("tracestate: u=me,u=1"), True)]),
    # What Envoy would refuse is the app's to answer.
    (exact("a", "1"), [(get("a: 1", target="/\xe4"), False), (get("a: 1", host="{b}"), False)]),
]
