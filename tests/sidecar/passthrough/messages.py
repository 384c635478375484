"""Strategies: messages as they should be, messages as they come, and garbage that looks like them."""

from hypothesis import strategies as st

TOKENS = st.from_regex(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,12}", fullmatch=True)
VALUES = st.from_regex(rb"[!-~\x80-\xff]([\t -~\x80-\xff]{0,20}[!-~\x80-\xff])?|", fullmatch=True)
FRAMING = (b"content-length", b"transfer-encoding", b"connection")
NAMES = TOKENS.filter(lambda name: name.lower() not in FRAMING)
BODIES = st.binary(max_size=40)


@st.composite
def headers(draw: st.DrawFn) -> list[tuple[bytes, bytes]]:
    return draw(st.lists(st.tuples(NAMES, VALUES), max_size=5))


def lines(found: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"%b: %b\r\n" % each for each in found) + b"\r\n"


@st.composite
def chunked(draw: st.DrawFn, body: bytes) -> bytes:
    """*body* in chunks, with extensions and trailers now and then."""
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=3)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True) if a < b]
    text = b""
    for piece in [*pieces, b""]:
        size = draw(st.sampled_from((b"%x", b"%X", b"00%x"))) % len(piece)
        text += size + draw(st.sampled_from((b"", b"", b";a", b';a="b c"'))) + b"\r\n"
        text += piece + b"\r\n" if piece else lines(draw(headers()))
    return text


@st.composite
def framed(draw: st.DrawFn) -> tuple[list[tuple[bytes, bytes]], bytes, int | None]:
    """Framing headers, the body as it is sent, and the length that a head tells."""
    body = draw(BODIES)
    if draw(st.booleans()):
        name = draw(st.sampled_from((b"Transfer-Encoding", b"transfer-encoding")))
        return [(name, draw(st.sampled_from((b"chunked", b"Chunked "))))], draw(chunked(body)), None
    return [(draw(st.sampled_from((b"Content-Length", b"content-LENGTH"))), b"%d" % len(body))], body, len(body)


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, int | None]:
    """A request that keeps its connection, and the length that its head tells."""
    framing, body, length = draw(framed()) if draw(st.booleans()) else ([], b"", 0)
    method = draw(TOKENS.filter(lambda method: method != b"CONNECT"))
    target = draw(st.from_regex(rb"[!-~\x80-\xff]{1,20}", fullmatch=True))
    found = draw(st.permutations([*draw(headers()), *framing]))
    return b"%b %b HTTP/1.1\r\n%b" % (method, target, lines(found)) + body, length


@st.composite
def responses(draw: st.DrawFn) -> tuple[bytes, int | None]:
    """A response to GET that keeps its connection, and the length that its head tells."""
    framing, body, length = draw(framed())
    status = draw(st.sampled_from((200, 200, 206, 301, 404, 500, 999)))
    reason = draw(st.sampled_from((b" OK", b" ", b"", b" N\xf6")))
    found = draw(st.permutations([*draw(headers()), *framing]))
    return b"HTTP/1.1 %d%b\r\n%b" % (status, reason, lines(found)) + body, length


#: Pieces that, put together at random, are nearly messages.
PARTS = st.sampled_from(
    (
        *(b"GET / HTTP/1.1\r\n", b"POST /x HTTP/1.0\r\n", b"CONNECT a:1 HTTP/1.1\r\n", b"HTTP/1.1 200 OK\r\n"),
        *(
            b"HTTP/1.1 100 \r\n",
            b"HTTP/1.0 204\r\n",
            b"HTTP/1.1 101 S\r\n",
            b"GET",
            b" ",
            b"/",
            b"HTTP/1.1",
            b"HTTP/1.",
        ),
        *(b"Host: a\r\n", b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Content-Length: 3, 3\r\n"),
        *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"Connection: close\r\n"),
        *(b"Connection: keep-alive\r\n", b" folded\r\n", b"Name : x\r\n", b"no colon\r\n", b": x\r\n", b"a:\r\n"),
        *(
            b"\r\n",
            b"\r\n\r\n",
            b"\n",
            b"\r",
            b"\0",
            b"\x7f",
            b"abc",
            b"3\r\nabc\r\n",
            b"0\r\n\r\n",
            b"3",
            b";x",
            b"fffff",
        ),
    )
)
CHUNKED = (
    b"",
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200\r\nTransfer-Encoding: chunked\r\n\r\n",
)
NEARLY = st.tuples(st.sampled_from(CHUNKED), st.lists(PARTS | st.binary(max_size=3), max_size=14).map(b"".join)).map(
    b"".join
)
CUTS = st.lists(st.integers(0, 400), max_size=12)
