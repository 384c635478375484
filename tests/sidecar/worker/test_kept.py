"""Kept connections of ten clients at once: each request meets its own end, in order, and so does who has logged in."""

import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sidecar.worker.world import Serve, World
from tests.sockets import exactly

CLIENTS = 10


@dataclass(frozen=True)
class Ask:
    """One request."""

    claimed: bool
    body: bytes
    chunked: bool

    def request(self, more: bytes) -> bytes:
        claim = b"A: 1\r\n" if self.claimed else b""
        if not self.body:
            return b"GET / HTTP/1.1\r\nHost: b\r\n%b%b\r\n" % (claim, more)
        if self.chunked:
            framing, body = b"Transfer-Encoding: chunked\r\n", b"%x\r\n%b\r\n0\r\n\r\n" % (len(self.body), self.body)
        else:
            framing, body = b"Content-Length: %d\r\n" % len(self.body), self.body
        return b"POST / HTTP/1.1\r\nHost: b\r\n%b%b%b\r\n%b" % (claim, framing, more, body)


@dataclass(frozen=True)
class Client:
    """What one asks, and where its stream is cut; *waits*: for all answers so far, now and then."""

    asks: tuple[Ask, ...]
    cuts: tuple[int, ...]
    waits: bool


_ASKS = st.builds(Ask, st.booleans(), st.binary(max_size=40), st.booleans())
_CLIENTS = st.builds(
    Client,
    st.lists(_ASKS, min_size=1, max_size=12).map(tuple),
    st.lists(st.integers(1, 120), min_size=1, max_size=8).map(tuple),
    st.booleans(),
)


def answer(end: bytes, user: bytes, number: int, body: bytes) -> bytes:
    text = b"%b %b %d %b" % (end, user, number, body)
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text)


def logging_in(end: bytes) -> Serve:
    """Whoever logs in is known to the end of the connection, as with NTLM; each answer says who, and how many came."""

    def serve(sock: socket.socket) -> None:
        user, number = b"nobody", 0
        with sock.makefile("rb") as stream:
            while (line := stream.readline()).endswith(b" HTTP/1.1\r\n"):
                headers = {}
                while (line := stream.readline()) != b"\r\n":
                    name, _, value = line.partition(b": ")
                    headers[name] = value.rstrip()
                body = stream.read(int(headers.get(b"Content-Length", 0)))
                if b"Transfer-Encoding" in headers:
                    while size := int(stream.readline(), 16):
                        body += stream.read(size + 2)[:size]
                    stream.readline()
                user = headers.get(b"Login", user)
                sock.sendall(answer(end, user, number, body))
                number += 1

    return serve


def conversation(client: Client, user: bytes) -> tuple[list[bytes], list[bytes]]:
    """Requests, and the answers that they have without a proxy. It logs in at each end once."""
    asked, answered, numbers = [], [], {True: 0, False: 0}
    for each in client.asks:
        number = numbers[each.claimed]
        asked.append(each.request(b"" if number else b"Login: %b\r\n" % user))
        answered.append(answer(b"envoy" if each.claimed else b"app", user, number, each.body))
        numbers[each.claimed] += 1
    return asked, answered


def talk(world: World, client: Client, user: bytes) -> tuple[bytes, bytes]:
    """What it heard, and what it should have."""
    asked, answered = conversation(client, user)
    sock, heard = world.client(), b""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    step = len(asked) if not client.waits else 1
    for begin in range(0, len(asked), step):
        stream = b"".join(asked[begin : begin + step])
        place = 0
        while stream:
            size = client.cuts[place % len(client.cuts)]
            sock.sendall(stream[:size])
            stream, place = stream[size:], place + 1
        heard += exactly(sock, len(b"".join(answered[begin : begin + step])))
    sock.close()
    return heard, b"".join(answered)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_CLIENTS, min_size=CLIENTS, max_size=CLIENTS))
def test_each_request_meets_its_end_in_order_and_who_has_logged_in_stays(world: World, clients: list[Client]) -> None:
    if not world.started:
        world.start(logging_in(b"app"), logging_in(b"envoy"))
    with ThreadPoolExecutor(CLIENTS) as pool:
        talks = [pool.submit(talk, world, each, b"user-%d" % number) for number, each in enumerate(clients)]
        for each in talks:
            heard, expected = each.result()
            assert heard == expected
    assert not world.worker.reasons
