"""Bytes that nobody claimed: app and client get exactly what the other one sent, whatever it is.

Each case is a request, or what somebody takes for one, and an answer of the same kind: whole, in two halves, and byte
by byte, on a connection of its own and behind an ordinary request.
"""

import itertools
import socket
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshdev.sidecar.passthrough.sniff import PREFACE
from meshdev.sidecar.worker import worker
from meshdev.wire.access import Watch
from tests.sidecar.worker.world import World
from tests.sockets import everything, exactly

PLAIN: Final = b"GET /plain HTTP/1.1\r\nHost: odd\r\n\r\n"
ORIGINAL: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\noriginal"


def head(*lines: bytes, first: bytes = b"GET /plain HTTP/1.1", host: bytes = b"Host: odd") -> bytes:
    return b"".join(line + b"\r\n" for line in (first, *([host] if host else []), *lines)) + b"\r\n"


def post(*lines: bytes, body: bytes = b"", first: bytes = b"POST /plain HTTP/1.1") -> bytes:
    return head(*lines, first=first) + body


def answer(*lines: bytes, status: bytes = b"HTTP/1.1 200 OK", body: bytes = b"") -> bytes:
    return b"".join(line + b"\r\n" for line in (status, *lines)) + b"\r\n" + body


CHUNKED: Final = b"Transfer-Encoding: chunked"
TWO: Final = b"2\r\nok\r\n0\r\n\r\n"

REQUESTS: Final = {
    "plain": PLAIN,
    "HTTP/1.0": head(first=b"GET / HTTP/1.0"),
    "HTTP/1.0, kept": head(b"Connection: keep-alive", first=b"GET / HTTP/1.0"),
    "HTTP/0.9": b"GET /\r\n",
    "HTTP/1.2": head(first=b"GET / HTTP/1.2"),
    "HTTP/2.0 in a line": head(first=b"GET / HTTP/2.0"),
    "http in lower case": head(first=b"GET / http/1.1"),
    "no Host": head(host=b""),
    "two Hosts": head(b"Host: other"),
    "empty Host": head(host=b"Host:"),
    "Host {name}": head(host=b"Host: {svc}"),
    "Host with blanks": head(host=b"Host: a b"),
    "absolute target": head(first=b"GET http://odd/plain HTTP/1.1"),
    "target *": head(first=b"OPTIONS * HTTP/1.1"),
    "target without slash": head(first=b"GET ?x=1 HTTP/1.1"),
    "target with fragment": head(first=b"GET /a#b HTTP/1.1"),
    "target with two slashes": head(first=b"GET //a/../b//c HTTP/1.1"),
    "target escaped": head(first=b"GET /%2e%2E/%2f%zz HTTP/1.1"),
    "target with a blank": head(first=b"GET /a b HTTP/1.1"),
    "target in UTF-8": head(first="GET /\u4f60\u597d HTTP/1.1".encode()),
    "target in Latin-1": head(first=b"GET /caf\xe9 HTTP/1.1"),
    "target of 9,000 bytes": head(first=b"GET /" + b"x" * 9000 + b" HTTP/1.1"),
    "two blanks": head(first=b"GET  /  HTTP/1.1"),
    "method of its own": head(first=b"BREW /pot HTTP/1.1"),
    "method in lower case": head(first=b"get / HTTP/1.1"),
    "no method": head(first=b" / HTTP/1.1"),
    "CONNECT": head(first=b"CONNECT odd:80 HTTP/1.1"),
    "HEAD": head(first=b"HEAD / HTTP/1.1"),
    "empty lines first": b"\r\n\r\n" + PLAIN,
    "bare LF": b"GET / HTTP/1.1\nHost: odd\n\n",
    "bare CR": b"GET / HTTP/1.1\rHost: odd\r\r",
    "one bare LF": b"GET / HTTP/1.1\r\nHost: odd\nX: y\r\n\r\n",
    "folded line": head(b"X: a", b" b"),
    "blank before the colon": head(b"X : a"),
    "blank before the name": head(b" X: a"),
    "no colon": head(b"X"),
    "empty name": head(b": a"),
    "empty value": head(b"X:"),
    "no blank behind the colon": head(b"X:a"),
    "tabs": head(b"X:\ta\tb\t"),
    "name in parentheses": head(b"(request-target): x"),
    "name with underscore": head(b"x_y: 1"),
    "name in UTF-8": head("\u00e9: 1".encode()),
    "value in UTF-8": head("X: \u4f60".encode()),
    "control character": head(b"X-Y: a\x1fb"),
    "NUL": head(b"X-Y: a\0b"),
    "DEL": head(b"X-Y: a\x7fb"),
    "names in odd case": head(b"x-REQUEST-iD: 1", b"COOKIE: a=1; b=2", b"cookie: c=3"),
    "hop by hop": head(b"Connection: X-Y, close", b"X-Y: 1", b"Keep-Alive: 5", b"TE: trailers", b"Proxy-Connection: a"),
    "orders to Envoy": head(b"x-envoy-retry-on: 5xx", b"x-envoy-upstream-rq-timeout-ms: 1", b"x-forwarded-proto: a"),
    "Expect": post(b"Expect: 100-continue", b"Content-Length: 2", body=b"ab"),
    "Expect something": post(b"Expect: miracles", b"Content-Length: 2", body=b"ab"),
    "upgrade": head(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
    "upgrade to TLS": head(b"Connection: Upgrade", b"Upgrade: TLS/1.2, HTTP/1.1"),
    "upgrade to h2c": head(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"),
    "length": post(b"Content-Length: 3", body=b"abc"),
    "length 0": post(b"Content-Length: 0"),
    "two equal lengths": post(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"),
    "two lengths": post(b"Content-Length: 3", b"Content-Length: 4", body=b"abcd"),
    "list of lengths": post(b"Content-Length: 3, 3", body=b"abc"),
    "length with a sign": post(b"Content-Length: +3", body=b"abc"),
    "length with a minus": post(b"Content-Length: -3", body=b"abc"),
    "length in hex": post(b"Content-Length: 0x3", body=b"abc"),
    "length of 30 digits": post(b"Content-Length: " + b"9" * 30, body=b"abc"),
    "length of a GET": head(b"Content-Length: 3") + b"abc",
    "chunked": post(CHUNKED, body=TWO),
    "chunked in capitals": post(b"Transfer-Encoding: CHUNKED", body=TWO),
    "chunked, with extensions": post(CHUNKED, body=b'2;a=b;c="d"\r\nok\r\n0;e\r\n\r\n'),
    "chunked, with trailers": post(CHUNKED, b"Trailer: X", body=b"2\r\nok\r\n0\r\nX: y\r\n\r\n"),
    "chunked, leading zeros": post(CHUNKED, body=b"0002\r\nok\r\n000\r\n\r\n"),
    "chunked, bare LF": post(CHUNKED, body=b"2\nok\n0\n\n"),
    "chunked, bad size": post(CHUNKED, body=b"zz\r\nok\r\n"),
    "chunked, huge size": post(CHUNKED, body=b"f" * 40 + b"\r\nok\r\n"),
    "chunked, no end of a chunk": post(CHUNKED, body=b"2\r\nokay\r\n0\r\n\r\n"),
    "chunked twice": post(CHUNKED, CHUNKED, body=TWO),
    "chunked, identity": post(b"Transfer-Encoding: identity, chunked", body=TWO),
    "gzip": post(b"Transfer-Encoding: gzip", body=b"\x1f\x8b"),
    "chunked and length": post(CHUNKED, b"Content-Length: 3", body=TWO),
    "coding with a tab": post(b"Transfer-Encoding:\tchunked", body=TWO),
    "coding with a vertical tab": post(b"Transfer-Encoding: \x0bchunked", body=TWO),
    "coding in HTTP/1.0": post(CHUNKED, body=TWO, first=b"POST / HTTP/1.0"),
    "TLS": bytes.fromhex("16030100050100000100"),
    "PROXY protocol 1": b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + PLAIN,
    "PROXY protocol 2": bytes.fromhex("0d0a0d0a000d0a515549540a21110000c0000201c000020200010002") + PLAIN,
    "Redis": b"*1\r\n$4\r\nPING\r\n",
    "Redis, inline": b"PING\r\n",
    "SMTP": b"EHLO example.org\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "PostgreSQL": bytes.fromhex("0000000804d2162f"),
    "MQTT": bytes.fromhex("100c00044d5154540402003c0000"),
    "HTTP/2": PREFACE + bytes.fromhex("000000040000000000"),
    "a beginning of HTTP/2": PREFACE[:17],
    "almost HTTP/2": PREFACE[:18] + b"XX\r\n\r\n",
    "one byte": b"G",
    "zeros": b"\0" * 1000,
    "pipelined": PLAIN * 5,
    "pipelined, the last one odd": PLAIN * 3 + head(b"X : a"),
    "200 headers": head(*(b"X-%d: %d" % (number, number) for number in range(200))),
    "60 KiB of headers": head(*(b"X-%d: %s" % (number, b"v" * 1000) for number in range(60))),
    "100 KiB of headers": head(*(b"X-%d: %s" % (number, b"v" * 1000) for number in range(100))),
}
RESPONSES: Final = {
    "plain": ORIGINAL,
    "nothing": b"",
    "no reason": answer(b"Content-Length: 0", status=b"HTTP/1.1 200"),
    "no reason, a blank": answer(b"Content-Length: 0", status=b"HTTP/1.1 200 "),
    "reason in UTF-8": answer(b"Content-Length: 0", status="HTTP/1.1 200 \u00e9".encode()),
    "HTTP/1.0": answer(status=b"HTTP/1.0 200 OK", body=b"until the end"),
    "HTTP/0.9": b"only a body",
    "HTTP/2": answer(b"Content-Length: 2", status=b"HTTP/2 200 OK", body=b"ok"),
    "until the end": answer(body=b"until the end"),
    "chunked": answer(CHUNKED, body=TWO),
    "chunked twice": answer(CHUNKED, CHUNKED, body=TWO),
    "chunked and length": answer(CHUNKED, b"Content-Length: 2", body=TWO),
    "chunked, trailers": answer(CHUNKED, body=b"2\r\nok\r\n0\r\nX: y\r\n\r\n"),
    "chunked, odd": answer(CHUNKED, body=b"2 ; x\r\nok\r\n0\r\n\r\n"),
    "gzip, chunked": answer(b"Transfer-Encoding: gzip, chunked", body=TWO),
    "identity": answer(b"Transfer-Encoding: identity", b"Content-Length: 2", body=b"ok"),
    "two equal lengths": answer(b"Content-Length: 2", b"Content-Length: 2", body=b"ok"),
    "two lengths": answer(b"Content-Length: 2", b"Content-Length: 3", body=b"ok!"),
    "more than its length": answer(b"Content-Length: 2", body=b"ok and more"),
    "less than its length": answer(b"Content-Length: 20", body=b"ok"),
    "204": answer(status=b"HTTP/1.1 204 No Content"),
    "204 chunked": answer(CHUNKED, status=b"HTTP/1.1 204 No Content", body=b"0\r\n\r\n"),
    "204 with a length": answer(b"Content-Length: 2", status=b"HTTP/1.1 204 No Content", body=b"ok"),
    "304 with a length": answer(b"Content-Length: 20", status=b"HTTP/1.1 304 Not Modified"),
    "100, then 200": answer(status=b"HTTP/1.1 100 Continue") + ORIGINAL,
    "103, then 200": answer(b"Link: </a>", status=b"HTTP/1.1 103 Early Hints") + ORIGINAL,
    "101": answer(b"Upgrade: websocket", b"Connection: Upgrade", status=b"HTTP/1.1 101 Switching Protocols")
    + b"\x81\0",
    "408": answer(b"Content-Length: 0", b"Connection: close", status=b"HTTP/1.1 408 Request Timeout"),
    "status 99": answer(b"Content-Length: 0", status=b"HTTP/1.1 099 Odd"),
    "status 999": answer(b"Content-Length: 0", status=b"HTTP/1.1 999 Odd"),
    "status in words": answer(b"Content-Length: 0", status=b"HTTP/1.1 OK"),
    "control character": answer(b"X-Y: a\x01b", b"Content-Length: 2", body=b"ok"),
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "folded line": answer(b"X: a", b" b", b"Content-Length: 2", body=b"ok"),
    "Connection: close": answer(b"Connection: close", b"Content-Length: 2", body=b"ok"),
    "two responses": ORIGINAL * 2,
    "100 KiB of headers": answer(*(b"X-%d: %s" % (number, b"v" * 1000) for number in range(100)), b"Content-Length: 0"),
    "binary": bytes(range(256)) * 4,
    "SETTINGS": bytes.fromhex("000006040000000000000300000064"),
}
CASES: Final = {
    **{f"request: {name}": (request, ORIGINAL) for name, request in REQUESTS.items()},
    **{f"response: {name}": (PLAIN, response) for name, response in RESPONSES.items()},
}


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what never becomes a head; set before the worker is made."""
    monkeypatch.setattr(worker, "HEAD_SECONDS", 0.05)


def conversation(world: World, pieces: list[bytes], response: bytes, *, kept: bool) -> tuple[bytes, bytes]:
    """What the app got of *pieces*, and the client of *response*."""
    got: list[bytes] = []
    size = sum(map(len, pieces))

    def serve(sock: socket.socket) -> None:
        if kept:
            exactly(sock, len(PLAIN))
            sock.sendall(ORIGINAL)
        got.append(exactly(sock, size))
        if response:
            sock.sendall(response)

    port = world.port
    port.app = world.server(serve)
    client = world.client()
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if kept:
        client.sendall(PLAIN)
        assert exactly(client, len(ORIGINAL)) == ORIGINAL
    for piece in pieces:
        client.sendall(piece)
    heard = everything(client)
    client.close()
    world.until(lambda: got)
    return got[0], heard


def watch(world: World) -> None:
    """Have everything recorded."""
    world.loop.post(lambda: world.worker.recorder.add(world.port))
    world.loop.post(lambda: world.worker.recorder.watch(Watch(on=True, all=True)))
    world.until(lambda: world.port.watched)


@pytest.mark.parametrize("watched", [False, True], ids=["", "watched"])
@pytest.mark.parametrize("case", CASES)
def test_nothing_is_changed(world: World, case: str, watched: bool) -> None:
    request, response = CASES[case]
    world.start(lambda _: None)
    if watched:
        watch(world)
    middle = len(request) // 2
    ways = [[request], [piece for piece in (request[:middle], request[middle:]) if piece]]
    if len(request) < 100:
        ways.append([bytes([byte]) for byte in request])
    for pieces, kept in itertools.product(ways, (False, True)):
        assert conversation(world, pieces, response, kept=kept) == (request, response)


_WORDS: Final = (
    *(PLAIN, ORIGINAL, b"GET ", b"/ ", b"HTTP/1.1", b"\r\n", b"\r\n\r\n", b"Content-Length: ", b"5", b"0\r\n\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"2\r\nok\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
    *(PREFACE[:10], PREFACE, b"Host: b\r\n", b"POST / HTTP/1.1\r\n", b"\0", b"\n", b" ", b"x" * 300),
)
_PIECES: Final = st.lists(st.one_of(st.sampled_from(_WORDS), st.binary(min_size=1, max_size=20)), max_size=12)


@pytest.mark.parametrize("watched", [False, True], ids=["", "watched"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_PIECES, _PIECES)
def test_garbage_is_not_changed(world: World, watched: bool, sent: list[bytes], answered: list[bytes]) -> None:
    """Both sides say what they have to say at once, piece by piece, and then end."""
    got: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        for piece in answered:
            sock.sendall(piece)
        sock.shutdown(socket.SHUT_WR)
        got.append(everything(sock))

    if not world.started:
        world.start(serve)
        if watched:
            watch(world)
    world.port.app = world.server(serve)
    client = world.client()
    for piece in sent:
        client.sendall(piece)
    client.shutdown(socket.SHUT_WR)
    assert everything(client) == b"".join(answered)
    world.until(lambda: got)
    assert got == [b"".join(sent)]
    client.close()
