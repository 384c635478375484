"""Followers: where messages begin and end, whatever the pieces; what is not clear is raw; what it costs."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from meshdev.sidecar.passthrough.heads import HEAD_BYTES
from meshdev.sidecar.passthrough.http1 import (
    MAX_PIPELINED,
    Body,
    Raw,
    RequestFollower,
    RequestHead,
    ResponseFollower,
    ResponseHead,
)
from tests.sidecar.passthrough import messages
from tests.sidecar.passthrough.following import answering, cut, follow, request, said


@given(st.lists(messages.requests(), min_size=1, max_size=4), messages.CUTS)
def test_requests_begin_and_end_where_they_do(sent: list[tuple[bytes, int | None]], cuts: list[int]) -> None:
    data = b"".join(each for each, _ in sent)
    follower = RequestFollower()
    seen = follow(follower, cut(data, cuts))
    assert seen.bytes == data
    assert [head.length for head in seen.heads] == [length for _, length in sent]
    begins = [place for place, what in seen.events if what.startswith("head")]
    assert begins == [sum(len(each) for each, _ in sent[:count]) for count in range(len(sent))]
    assert all(head.exchange.sent for head in seen.heads)
    assert follower.between


@given(st.lists(messages.responses(), min_size=1, max_size=4), messages.CUTS)
def test_responses_begin_and_end_where_they_do(sent: list[tuple[bytes, int | None]], cuts: list[int]) -> None:
    data = b"".join(each for each, _ in sent)
    follower = answering(*[b"GET"] * len(sent))
    seen = follow(follower, cut(data, cuts))
    assert seen.bytes == data
    assert [head.length for head in seen.heads] == [length for _, length in sent]
    assert follower.between
    assert not follower.waiting


@given(messages.NEARLY, messages.CUTS)
@settings(max_examples=400)
@example(b"GET / HTTP/1.1\r\nA: \0\r\n\r\n", [1, 20])
def test_pieces_make_no_difference_to_requests(data: bytes, cuts: list[int]) -> None:
    whole, pieces = follow(RequestFollower(), [data]), follow(RequestFollower(), cut(data, cuts))
    assert pieces.events == whole.events
    assert whole.bytes == data[: len(whole.bytes)]
    assert pieces.bytes == whole.bytes
    assert follow(RequestFollower(), cut(data, range(len(data)))).events == whole.events


@given(messages.NEARLY, messages.CUTS, st.lists(st.sampled_from((b"GET", b"HEAD")), max_size=3))
@settings(max_examples=400)
def test_pieces_make_no_difference_to_responses(data: bytes, cuts: list[int], methods: list[bytes]) -> None:
    whole, pieces = follow(answering(*methods), [data]), follow(answering(*methods), cut(data, cuts))
    assert pieces.events == whole.events
    assert whole.bytes == data[: len(whole.bytes)]
    assert pieces.bytes == whole.bytes
    assert follow(answering(*methods), cut(data, range(len(data)))).events == whole.events


@given(st.binary(max_size=200), messages.CUTS)
def test_garbage_passes(data: bytes, cuts: list[int]) -> None:
    for follower in (RequestFollower(), answering(b"GET", b"HEAD")):
        seen = follow(follower, cut(data, cuts))
        left = follower.give_up("other").held if seen.raw is None else b""
        assert seen.bytes + left == data


CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
REQUESTS = {
    b"GET / HTTP/1.1\r\n\r\n": ["head 0"],
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n\r\n": ["head 0", "head 0"],
    b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n": ["head 3", "body", "end", "head 0"],
    b"POST / HTTP/1.1\r\nContent-Length:3 \t\r\n\r\nab": ["head 3", "body"],
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: 1\r\n\r\n": [
        "head None",
        "body",
        "end",
    ],
    CHUNKED + b"3\r\nabcd\r\n": ["head None", "body", "chunk"],
    CHUNKED + b"0\r\nA: b\r\nGET / HTTP/1.1\r\n\r\n": ["head None", "body", "chunk"],
    CHUNKED + b"\r\n": ["head None", "chunk"],
    b"GET ?x HTTP/1.1\r\n(x): 1\r\n\r\n": ["header-line"],
    b"GET /\xe4 HTTP/1.1\r\nA: \xe4\r\n\r\n": ["head 0"],
    b"PRI * HTTP/2.0\r\n\r\n": ["request-line"],
    b"GET / HTTP/1.2\r\n\r\n": ["request-line"],
    b"GET / http/1.1\r\n\r\n": ["request-line"],
    b"GET  / HTTP/1.1\r\n\r\n": ["request-line"],
    b"GET /\r\n\r\n": ["request-line"],
    b" GET / HTTP/1.1\r\n\r\n": ["request-line"],
    b"\r\nGET / HTTP/1.1\r\n\r\n": ["request-line"],
    b"*1\r\n$4\r\nPING\r\n": ["request-line"],
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\n\r\n": ["request-line"],
    b"\x16\x03\x01": ["request-line"],
    b"GET / HTTP/1.1\nHost: a\n\n": ["bare-cr-or-lf"],
    b"GET / HTTP/1.1\r\nHost: a\n\r\n": ["bare-cr-or-lf"],
    b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n": ["bare-cr-or-lf"],
    b"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n": ["control-character"],
    b"GET / HTTP/1.1\r\nHost: a\x1fb\r\n\r\n": ["control-character"],
    b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n": ["folded-line"],
    b"GET / HTTP/1.1\r\n\tb\r\n\r\n": ["folded-line"],
    b"GET / HTTP/1.1\r\nHost : a\r\n\r\n": ["blank-before-colon"],
    b"GET / HTTP/1.1\r\nHost\r\n\r\n": ["header-line"],
    b"GET / HTTP/1.1\r\n: a\r\n\r\n": ["header-line"],
    b"POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n": ["length-and-coding"],
    b"POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n": ["length"],
    b"POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n\r\n": ["length"],
    b"POST / HTTP/1.1\r\nContent-Length: +3\r\n\r\n": ["length"],
    b"POST / HTTP/1.1\r\nContent-Length: 0x3\r\n\r\n": ["length"],
    b"POST / HTTP/1.1\r\nContent-Length: \r\n\r\n": ["length"],
    b"POST / HTTP/1.1\r\nContent-Length: 1000000000000000000\r\n\r\n": ["length"],
    b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n": ["coding"],
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n": ["coding"],
    b"POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n": ["coding"],
    b"POST / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n\r\n": ["control-character"],
    b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n": ["coding"],
    b"CONNECT a:1 HTTP/1.1\r\n\r\nabc": ["connect"],
    b"GET / HTTP/1.1\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\n\r\n": ["head 0", "after-close"],
    b"GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n": ["head 0"],
    b"GET / HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\n\r\n": ["head 0", "after-close"],
    b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\nGET / HTTP/1.0\r\n\r\n": ["head 0", "head 0"],
    b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\nx": ["head 0", "after-close"],
    b"POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 1\r\n\r\nab": ["head 1", "body", "end", "after-close"],
}


@pytest.mark.parametrize("data", REQUESTS)
def test_requests(data: bytes) -> None:
    assert said(RequestFollower(), data) == REQUESTS[data]
    assert said(RequestFollower(), *cut(data, range(len(data)))) == REQUESTS[data]


OK = b"HTTP/1.1 200 OK\r\n"
RESPONSES = {
    OK + b"Content-Length: 2\r\n\r\nok": ["head 2", "body", "end"],
    OK + b"Content-Length: 0\r\n\r\n": ["head 0"],
    OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n": ["head None", "body", "end"],
    OK + b"\r\nto the end": ["until-close"],
    b"HTTP/1.0 200 OK\r\n\r\n": ["until-close"],
    b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nokx": ["head 2", "body", "end", "after-close"],
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n": ["head 0"],
    OK + b"Connection: close\r\nContent-Length: 0\r\n\r\nx": ["head 0", "after-close"],
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n": [
        "head 0"
    ]
    * 3,
    b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\nbytes": ["upgraded"],
    b"HTTP/1.1 102 P\r\nContent-Length: 2\r\n\r\n": ["length-of-no-body"],
    b"HTTP/1.1 204 No Content\r\n\r\n": ["head 0"],
    b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n": ["head 0"],
    b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": ["length-of-no-body"],
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 20\r\n\r\n": ["head 0"],
    OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n": ["coding"],
    OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n": ["coding"],
    OK + b"Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\n": ["coding"],
    OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n": ["length"],
    OK + b"X-Y: a\x01b\r\n": ["control-character"],
    b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n": ["head 0"],
    b"HTTP/1.1 2000\r\n": ["status-line"],
    b"HTTP/1.1  200\r\n": ["status-line"],
    b"HTTP/1.1 099\r\n": ["status-line"],
    b"HTTP/2 200\r\n": ["status-line"],
    b"ICY 200 OK\r\n": ["status-line"],
    b"220 mail ready\r\n": ["status-line"],
    b"HTTP/1.1 200 OK\nA: 1\n\n": ["bare-cr-or-lf"],
    OK + b"Content-Length: 0\r\n\r\nHTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n": ["head 0", "unasked-response"],
}


@pytest.mark.parametrize("data", RESPONSES)
def test_responses(data: bytes) -> None:
    assert said(answering(b"GET"), data) == RESPONSES[data]
    assert said(answering(b"GET"), *cut(data, range(len(data)))) == RESPONSES[data]


def test_a_head_response_has_no_body_whatever_it_says() -> None:
    length, chunks = OK + b"Content-Length: 9\r\n\r\n", OK + b"Transfer-Encoding: chunked\r\n\r\n"
    assert said(answering(*[b"HEAD"] * 3), length, chunks, OK + b"\r\n") == ["head 0"] * 3
    assert said(answering(b"HEAD", b"GET"), length + length + b"123456789") == ["head 0", "head 9", "body", "end"]
    assert said(answering(b"HEAD"), length + b"123456789") == ["head 0", "status-line"]


def test_an_answer_before_the_body_is_complete() -> None:
    """An early 401 or 413: whether the rest of the body follows only the client knows."""
    requests, responses = RequestFollower(), ResponseFollower()
    head, _ = requests.next(b"POST / HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
    assert isinstance(head, RequestHead)
    responses.expect(head)
    assert isinstance(responses.next(b"HTTP/1.1 100 Continue\r\n\r\n")[0], ResponseHead)
    refused = b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n"
    event, end = responses.next(refused)
    assert event == Raw("early-response", refused)
    assert end == len(refused)


def test_an_answer_after_the_body_is_complete() -> None:
    requests, responses = RequestFollower(), ResponseFollower()
    head, _ = requests.next(b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nab")
    assert isinstance(head, RequestHead)
    responses.expect(head)
    assert not head.exchange.sent
    requests.next(b"ab")
    assert requests.next(b"c") == (Body(last=True), 1)
    assert head.exchange.sent
    assert said(responses, OK + b"Content-Length: 0\r\n\r\n") == ["head 0"]
    assert not responses.waiting


def test_who_answers_unasked_is_told_apart() -> None:
    event, _ = ResponseFollower().next(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n")
    assert isinstance(event, Raw)
    assert event.head is not None
    assert event.head.status == 408


def test_pipelined_requests_are_split_at_the_byte() -> None:
    """Whoever has to wait with the second request keeps exactly its bytes."""
    first, second = b"GET /1 HTTP/1.1\r\nA: 1\r\n\r\n", b"GET /2 HTTP/1.1\r\n\r\n"
    follower = RequestFollower()
    assert follower.next(first[:9]) == (None, 9)
    assert follower.held == 9
    head, end = follower.next(first[9:] + second)
    assert isinstance(head, RequestHead)
    assert head.raw == first
    assert end == len(first) - 9
    assert follower.between
    other, _ = follower.next(first[9:] + second, end)
    assert isinstance(other, RequestHead)
    assert other.raw == second


def test_what_a_head_says() -> None:
    follower = RequestFollower()
    head, _ = follower.next(b"PUT /a?b HTTP/1.0\r\nHost: H\r\nX-A:\t1 2 \r\nEmpty:\r\nContent-Length: 7\r\n\r\n")
    assert isinstance(head, RequestHead)
    assert (head.method, head.target, head.minor, head.length, head.keep_alive) == (b"PUT", b"/a?b", 0, 7, False)
    assert head.headers == [(b"host", b"H"), (b"x-a", b"1 2"), (b"empty", b""), (b"content-length", b"7")]
    assert follower.body_left == 7
    assert not follower.skip(5)
    assert follower.skip(2)
    assert head.exchange.sent


def test_a_head_takes_64_kib_and_no_more() -> None:
    fits = b"GET / HTTP/1.1\r\nA: " + b"x" * (HEAD_BYTES - 23) + b"\r\n\r\n"
    assert len(fits) == HEAD_BYTES
    assert said(RequestFollower(), fits) == ["head 0"]
    longer = fits.replace(b"A", b"AA")
    for pieces in ([longer], cut(longer, range(0, len(longer), 1000)), [longer[:HEAD_BYTES], longer[HEAD_BYTES:]]):
        follower = RequestFollower()
        seen = follow(follower, pieces)
        assert [what for _, what in seen.events] == ["head-size"]
        assert seen.bytes == longer
        assert not follower.held
    assert said(RequestFollower(), b"x" * HEAD_BYTES) == ["head-size"]


def test_a_head_that_takes_too_long_goes_on_as_it_is() -> None:
    follower = RequestFollower()
    follower.next(b"GET / HT")
    assert follower.give_up("head-time") == Raw("head-time", b"GET / HT")
    assert not follower.held
    assert follower.next(b"TP/1.1\r\n\r\n") == (None, 10)
    assert follower.give_up("other") == Raw("head-time", b"")


def test_giving_up_in_a_body() -> None:
    follower = RequestFollower()
    follower.next(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert follower.give_up("other") == Raw("other", b"")
    assert follower.next(b"3\r\n") == (None, 3)


def test_too_many_requests_without_an_answer() -> None:
    follower = ResponseFollower()
    assert all(follower.expect(request()) for _ in range(MAX_PIPELINED))
    assert not follower.expect(request())
