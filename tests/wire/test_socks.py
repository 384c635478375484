"""The bytes of SOCKS5 and of HTTP to a proxy, in any pieces, and bytes that are neither."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.wire.socks import MAX_HEAD, ConnectFailure, Handshake, ProxyRequest, ProxyRequestError

GREETING = bytes.fromhex("05 01 00")
NAME = bytes.fromhex("05 01 00 03 09 62 2e 64 65 66 61 75 6c 74 00 50")  # b.default:80
V4 = bytes.fromhex("05 01 00 01 0a 60 00 0a 1f 90")  # 10.96.0.10:8080
V6 = bytes.fromhex("05 01 00 04 20 01 0d b8 00 00 00 00 00 00 00 00 00 00 00 01 01 bb")
MAPPED = bytes.fromhex("05 01 00 04 00 00 00 00 00 00 00 00 00 00 ff ff 0a 60 00 0a 01 bb")
CONNECT = b"CONNECT b.default:443 HTTP/1.1\r\nHost: b.default:443\r\nProxy-Connection: keep-alive\r\n\r\n"
GET = (
    b"GET http://b.default:8080/a?b=%20 HTTP/1.1\r\nHost: elsewhere\r\nX-Case: Kept\r\nAccept: */*\r\n"
    b"Proxy-Connection: keep-alive\r\nConnection: X-Hop, close\r\nX-Hop: 1\r\nProxy-Authorization: Basic eA==\r\n\r\n"
)


def served(*pieces: bytes) -> tuple[ProxyRequest | None, bytes]:
    """What is asked for, and what was answered before."""
    handshake = Handshake()
    answers = b""
    for piece in pieces:
        if handshake.request is None:
            answers += handshake.receive(piece)
    return handshake.request, answers


def refused(*pieces: bytes) -> ProxyRequestError:
    """Why it is not."""
    with pytest.raises(ProxyRequestError) as raised:
        served(*pieces)
    return raised.value


@pytest.mark.parametrize(
    ("asked", "host", "port"),
    [
        (NAME, "b.default", 80),
        (V4, "10.96.0.10", 8080),
        (V6, "2001:db8::1", 443),
        (MAPPED, "10.96.0.10", 443),
        (NAME.replace(b"b.default", b"B.Default"), "b.default", 80),
        (bytes.fromhex("05 01 00 03 09") + b"127.0.0.1" + b"\x00\x50", "127.0.0.1", 80),
        (bytes.fromhex("05 01 00 03 0a") + b"b.default." + b"\x00\x50", "b.default", 80),
        (bytes.fromhex("05 01 00 03 09") + b"_a._tcp.b" + b"\x00\x50", "_a._tcp.b", 80),
    ],
)
def test_socks5(asked: bytes, host: str, port: int) -> None:
    request, answers = served(GREETING, asked + b"early")
    assert request == ProxyRequest("socks5", host, port, b"early")
    assert answers == b"\x05\x00"
    assert request.granted() == bytes.fromhex("05 00 00 01 00 00 00 00 00 00")
    assert request.refused(ConnectFailure.REFUSED, "no text") == bytes.fromhex("05 05 00 01 00 00 00 00 00 00")
    assert (request.address is None) == ("." in host and not host[0].isdigit())


@pytest.mark.parametrize(
    ("pieces", "answer"),
    [
        ((b"\x04\x01\x00\x50\x0a\x00\x00\x01\x00",), "00 5b 00 00 00 00 00 00"),  # SOCKS4
        ((b"\x05\x01\x02",), "05 ff"),  # a name and a password only
        ((b"\x05\x00",), "05 ff"),
        ((GREETING, b"\x05\x02" + V4[2:]), "05 07 00 01 00 00 00 00 00 00"),  # BIND
        ((GREETING, b"\x05\x03" + V4[2:]), "05 07 00 01 00 00 00 00 00 00"),  # UDP ASSOCIATE
        ((GREETING, b"\x05\x01\x00\x02\x00\x00\x00"), "05 08 00 01 00 00 00 00 00 00"),
        ((GREETING, b"\x04\x01\x00\x01"), "05 01 00 01 00 00 00 00 00 00"),
        ((GREETING, b"\x05\x01\x00\x03\x00\x00\x50"), "05 01 00 01 00 00 00 00 00 00"),  # no name
        ((GREETING, b"\x05\x01\x00\x03\x03a\xffb\x00\x50"), "05 01 00 01 00 00 00 00 00 00"),
        ((GREETING, b"\x05\x01\x00\x03\x03a b\x00\x50"), "05 01 00 01 00 00 00 00 00 00"),
        ((GREETING, b"\x05\x01\x00\x03\xff" + b"a" * 255 + b"\x00\x50"), "05 01 00 01 00 00 00 00 00 00"),
        ((b"",), ""),
        ((GREETING, V4[:-1], b""), ""),
    ],
)
def test_what_socks_does_not_serve(pieces: tuple[bytes, ...], answer: str) -> None:
    assert refused(*pieces).answer == bytes.fromhex(answer)


@pytest.mark.parametrize(
    ("target", "host", "port"),
    [
        ("b.default:443", "b.default", 443),
        ("10.96.0.10:1", "10.96.0.10", 1),
        ("[2001:DB8::1]:65535", "2001:db8::1", 65535),
        ("B.:80", "b", 80),
    ],
)
def test_connect(target: str, host: str, port: int) -> None:
    request, answers = served(f"CONNECT {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode() + b"\x16\x03\x01")
    assert request == ProxyRequest("connect", host, port, b"\x16\x03\x01")
    assert answers == b""
    assert request.granted() == b"HTTP/1.1 200 Connection established\r\n\r\n"
    assert request.refused(ConnectFailure.TIMEOUT, "b does not answer") == (
        b"HTTP/1.1 504 Gateway Timeout\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 27\r\n"
        b"Connection: close\r\nmeshdev-answer: timeout\r\n\r\nmeshdev: b does not answer\n"
    )


def test_a_plain_request_becomes_one_for_its_server() -> None:
    request, _ = served(GET + b"rest")
    assert request == ProxyRequest(
        "forward",
        "b.default",
        8080,
        b"GET /a?b=%20 HTTP/1.1\r\nHost: b.default:8080\r\nX-Case: Kept\r\nAccept: */*\r\n"
        b"Via: 1.1 meshdev\r\nConnection: close\r\n\r\nrest",
    )
    assert request.granted() == b""


@pytest.mark.parametrize(
    ("line", "first", "port"),
    [
        ("GET http://b HTTP/1.1", "GET / HTTP/1.1", 80),
        ("GET HTTP://b/ HTTP/1.0", "GET / HTTP/1.0", 80),
        ("GET http://b?a=http://c HTTP/1.1", "GET /?a=http://c HTTP/1.1", 80),
        ("GET http://b:/x#y HTTP/1.1", "GET /x HTTP/1.1", 80),
        ("OPTIONS http://b:81 HTTP/1.1", "OPTIONS * HTTP/1.1", 81),
        ("DELETE http://b//x/../y HTTP/1.1", "DELETE //x/../y HTTP/1.1", 80),
    ],
)
def test_targets_of_plain_requests(line: str, first: str, port: int) -> None:
    request, _ = served(f"{line}\r\nHost: b\r\n\r\n".encode())
    assert request is not None
    assert (request.first.split(b"\r\n")[0].decode(), request.host, request.port) == (first, "b", port)


def test_no_header_that_ends_the_body_is_left_out() -> None:
    """Else what follows would be the next request to the server."""
    request, _ = served(
        b"POST http://b/ HTTP/1.1\r\nHost: b\r\nContent-Length: 4\r\nConnection: content-length\r\n\r\nbody"
    )
    assert request is not None
    assert b"\r\nContent-Length: 4\r\n" in request.first
    assert request.first.endswith(b"\r\n\r\nbody")


@pytest.mark.parametrize(
    ("head", "status", "reason"),
    [
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1:1080", 400, "this is a proxy"),
        ("GET https://b/ HTTP/1.1\r\nHost: b", 501, "use CONNECT"),
        ("GET http://user:secret@b/ HTTP/1.1\r\nHost: b", 400, "no valid HOST:PORT"),
        ("GET http://b:0/ HTTP/1.1\r\nHost: b", 400, "no port 0"),
        ("GET http://b:99999/ HTTP/1.1\r\nHost: b", 400, "no port 99999"),
        ("GET http:///x HTTP/1.1\r\nHost: b", 400, "no valid HOST:PORT"),
        ("GET http://[::1/ HTTP/1.1\r\nHost: b", 400, "no valid HOST:PORT"),
        ("GET http://b/ HTTP/3.0\r\nHost: b", 505, "only HTTP/1"),
        ("CONNECT b HTTP/1.1\r\nHost: b", 400, "CONNECT needs HOST:PORT"),
        ("CONNECT http://b:80/ HTTP/1.1\r\nHost: b", 400, "no valid HOST:PORT"),
        ("CONNECT b:80", 400, "no request of HTTP"),
        ("GET http://b/ HTTP/1.1", 400, "Host"),
        ("GET http://b/ HTTP/1.1\r\nHost: b\r\nContent-Length: 1\r\nContent-Length: 2", 400, "Content-Length"),
        ("PRI * HTTP/2.0\r\n", 505, "only HTTP/1"),
        ("\x16\x03\x01", 400, "no request of HTTP"),
        ("GET http://b/" + "x" * MAX_HEAD, 431, "too long"),
    ],
)
def test_what_http_does_not_serve(head: str, status: int, reason: str) -> None:
    error = refused(f"{head}\r\n\r\n".encode("latin-1") if status != 431 else head.encode())
    status_line, _, body = error.answer.partition(b"\r\n")[0], *error.answer.rpartition(b"\r\n\r\n")[1:]
    assert status_line.startswith(f"HTTP/1.1 {status} ".encode())
    assert body.startswith(b"meshdev: ")
    assert reason.lower() in error.args[0].lower()


def test_every_refusal_has_both_answers() -> None:
    for cause in ConnectFailure:
        for protocol in ("connect", "forward"):
            answer = ProxyRequest(protocol, "b", 80).refused(cause, "why")
            assert answer.startswith(f"HTTP/1.1 {cause.status} ".encode())
            assert f"meshdev-answer: {cause.reason}\r\n".encode() in answer


@given(st.sampled_from([GREETING + NAME, GREETING + V6, CONNECT, GET]), st.data())
def test_pieces_do_not_matter(whole: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(whole) - 1), max_size=8)))
    pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert served(*pieces) == served(whole)


@given(
    st.lists(st.binary(min_size=0, max_size=64), max_size=6),
    st.sampled_from([b"", GREETING, NAME[:5], b"CONNECT ", b"GET http://", GET[:60], b"\x05"]),
)
def test_hostile_bytes_are_a_request_or_that_error(pieces: list[bytes], before: bytes) -> None:
    try:
        served(*filter(None, (before, *pieces)))
    except ProxyRequestError as error:
        answer = error.answer
    else:
        answer = b""
    assert len(answer) < MAX_HEAD
