"""Another parser reads what is followed alike: h11, fed with exactly the bytes that a follower took for one message."""

import itertools
from contextlib import suppress

import h11
from hypothesis import given, settings
from hypothesis import strategies as st

from meshdev.sidecar.passthrough.http1 import RequestFollower, RequestHead, ResponseHead
from tests.sidecar.passthrough import messages
from tests.sidecar.passthrough.following import Follower, Seen, answering, follow


def split(follower: Follower, data: bytes) -> tuple[list[bytes], Seen]:
    """The messages that are complete, each with its bytes."""
    seen = follow(follower, [data])
    begins = [place for place, what in seen.events if what not in {"body", "end"}]
    parts = [seen.bytes[begin:end] for begin, end in itertools.pairwise([*begins, len(seen.bytes)])]
    complete = parts[: len(seen.heads)]
    went_on = seen.events and seen.events[-1][1] not in {"end", "head 0"}
    if went_on and len(parts) == len(complete):
        complete.pop()
    return ([] if follower.raw == "chunk" else complete), seen


def read(reader: h11.Connection, data: bytes) -> tuple[list[str], bytes]:
    """Kinds of events up to the end of the message, and its body. Raises RemoteProtocolError."""
    reader.receive_data(data)
    kinds, body = [], b""
    while True:
        event = reader.next_event()
        if event is h11.NEED_DATA or event is h11.PAUSED:
            break
        if isinstance(event, h11.Data):
            body += event.data
        kinds.append(type(event).__name__)
        if isinstance(event, h11.EndOfMessage):
            break
    return kinds, body


def asked(method: bytes) -> h11.Connection:
    """A client of h11 whose request is complete."""
    client = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    client.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
    client.send(h11.EndOfMessage())
    return client


@given(st.lists(messages.requests(), min_size=1, max_size=3))
def test_requests(sent: list[tuple[bytes, int | None]]) -> None:
    whole, _ = split(RequestFollower(), b"".join(data for data, _ in sent))
    assert len(whole) == len(sent)
    for data in whole:
        server = h11.Connection(h11.SERVER)
        with suppress(h11.RemoteProtocolError):  # stricter, on what is no framing: bytes of the target, a second Host
            kinds, _ = read(server, data.replace(b" HTTP/1.1\r\n", b" HTTP/1.1\r\nHost: a\r\n", 1))
            assert (kinds[0], kinds[-1]) == ("Request", "EndOfMessage")
            assert server.trailing_data[0] == b""


@given(messages.NEARLY)
@settings(max_examples=600)
def test_nearly_requests(data: bytes) -> None:
    whole, seen = split(RequestFollower(), data)
    for part, head in zip(whole, seen.heads, strict=False):
        assert isinstance(head, RequestHead)
        server = h11.Connection(h11.SERVER)
        try:
            kinds, body = read(server, part)
        except h11.RemoteProtocolError:
            continue
        assert kinds[-1] == "EndOfMessage"
        assert server.trailing_data[0] == b""
        assert head.length in {len(body), None}


@given(messages.NEARLY, st.sampled_from((b"GET", b"HEAD")))
@settings(max_examples=600)
def test_nearly_responses(data: bytes, method: bytes) -> None:
    whole, seen = split(answering(method), data)
    for part, head in zip(whole, seen.heads, strict=False):
        assert isinstance(head, ResponseHead)
        client = asked(method)
        try:
            kinds, body = read(client, part)
        except h11.RemoteProtocolError:
            continue
        assert kinds[0] == ("Response" if head.final else "InformationalResponse")
        assert (kinds[-1] == "EndOfMessage") == head.final
        assert client.trailing_data[0] == b""
        assert head.length in {len(body), None}


@given(messages.responses())
def test_responses(sent: tuple[bytes, int | None]) -> None:
    whole, _ = split(answering(b"GET"), sent[0])
    assert whole == [sent[0]]
    client = asked(b"GET")
    kinds, _ = read(client, sent[0])
    assert (kinds[0], kinds[-1]) == ("Response", "EndOfMessage")
    assert client.trailing_data[0] == b""
