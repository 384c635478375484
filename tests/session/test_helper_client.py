"""The session's side of the helper, against a helper that does what the test says."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable
from ipaddress import IPv4Address, IPv4Network

import pytest

from meshdev.errors import AlreadyConnectedError, LaptopError, MeshdevError, ProtocolError, RouteError
from meshdev.session import helper_client
from meshdev.session.helper_client import HelperClient
from meshdev.wire.helper.answers import (
    Acknowledged,
    AddressSet,
    Beat,
    ListenerAddress,
    Result,
    RoutesSet,
    TunOpened,
    Upstream,
)
from meshdev.wire.helper.answers import DnsOpened as Opened
from meshdev.wire.helper.lines import (
    Greeting,
    HelperAnswer,
    HelperFailure,
    encode_answer,
    encode_greeting,
    parse_request,
)

GREETING = Greeting(7, 1000, "redirect", "", (), ())


class FakeHelper:
    """The helper's end of the socket, held by the test."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.setblocking(False)

    async def asked(self) -> tuple[int, str]:
        """Number and name of the next request."""
        line = b""
        while not line.endswith(b"\n"):
            line += await asyncio.get_running_loop().sock_recv(self.sock, 1 << 18)
        number, request = parse_request(line)
        return number, request.op

    def answer(self, number: int, result: Result | HelperFailure, *fds: int) -> None:
        """One answer with its descriptors, which are closed here."""
        line = encode_answer(HelperAnswer(number, result, len(fds)))
        if fds:
            socket.send_fds(self.sock, [line], list(fds))
            for fd in fds:
                os.close(fd)
        else:
            self.sock.send(line)


@pytest.fixture
async def pair() -> AsyncIterator[tuple[HelperClient, FakeHelper]]:
    """A client and the helper it talks to, which has greeted."""
    ours, theirs = socket.socketpair()
    client, fake = HelperClient(ours), FakeHelper(theirs)
    theirs.send(encode_greeting(GREETING))
    assert await client.greeting(1) == GREETING
    yield client, fake
    client.abandon()
    theirs.close()


Pair = tuple[HelperClient, FakeHelper]


async def test_answers_find_their_requests_in_any_order(pair: Pair) -> None:
    client, fake = pair
    async with asyncio.TaskGroup() as group:
        first = group.create_task(client.set_routes([IPv4Network("10.0.0.0/16")]))
        one, _ = await fake.asked()
        second = group.create_task(client.heartbeat())
        two, _ = await fake.asked()
        fake.answer(two, Beat(True, (), ()))
        fake.answer(one, RoutesSet((), ()))
    assert first.result() == RoutesSet((), ())
    assert second.result() == Beat(True, (), ())


async def test_descriptors_go_to_the_answer_they_came_with(pair: Pair) -> None:
    client, fake = pair
    async with asyncio.TaskGroup() as group:
        tcp = group.create_task(client.upstream_tcp(IPv4Address("192.0.2.1")))
        number, _ = await fake.asked()
        dns = group.create_task(client.dns_sockets([IPv4Address("192.0.2.1")]))
        other, _ = await fake.asked()
        kinds = [socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_DGRAM]
        sockets = [socket.socket(socket.AF_INET, kind).detach() for kind in kinds]
        opened = Opened((ListenerAddress(IPv4Address("127.0.0.1"), 53),), (Upstream(IPv4Address("192.0.2.1"), 2),))
        fake.answer(other, opened, *sockets)
        fake.answer(number, Acknowledged(), socket.socket().detach())
    listeners = dns.result()
    assert (listeners.listeners[0].udp.type, listeners.listeners[0].tcp.type) == (socket.SOCK_DGRAM, socket.SOCK_STREAM)
    assert len(listeners.upstreams[IPv4Address("192.0.2.1")]) == 2
    assert not os.get_inheritable(listeners.listeners[0].udp.fileno())
    listeners.close()
    tcp.result().close()


async def test_an_error_is_raised_as_what_it_was(pair: Pair) -> None:
    client, fake = pair
    async with asyncio.TaskGroup() as group:
        call = group.create_task(_raised(client.set_address(IPv4Address("198.18.0.7"), 1450)))
        number, op = await fake.asked()
        assert op == "set_address"
        fake.answer(number, HelperFailure.of(RouteError("no", hint="yes")))
    error = call.result()
    assert isinstance(error, RouteError)
    assert error.hint == "yes"


async def test_descriptors_of_an_answer_nobody_waits_for_are_closed(pair: Pair) -> None:
    client, fake = pair
    call = asyncio.ensure_future(client.open_tun(1))
    number, _ = await fake.asked()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    reader, writer = os.pipe()
    fake.answer(number, TunOpened("meshdev0", 0), writer)
    async with asyncio.TaskGroup() as group:  # a further answer: the one before has been dealt with
        beat = group.create_task(client.heartbeat())
        number, _ = await fake.asked()
        fake.answer(number, Beat(False, (), ()))
    assert not beat.result().active
    assert os.read(reader, 1) == b""  # the last writing end is closed
    os.close(reader)


async def test_the_end_of_the_helper_ends_every_call(pair: Pair) -> None:
    client, fake = pair
    async with asyncio.TaskGroup() as group:
        call = group.create_task(_raised(client.heartbeat()))
        await fake.asked()
        fake.sock.close()
        await client.gone.wait()
    assert isinstance(call.result(), LaptopError)
    assert isinstance(await _raised(client.heartbeat()), LaptopError)


@pytest.mark.parametrize(
    "line",
    [
        b"nonsense\n",
        b'{"id":99,"ok":{},"fds":0}\n',
        b'{"id":1,"ok":{},"fds":1}\n',
        b'{"id":1,"ok":{"active":1,"nameservers":[],"search":[]},"fds":0}\n',
        b"x" * 300_000,
    ],
)
async def test_a_helper_that_breaks_the_protocol_is_left(pair: Pair, line: bytes) -> None:
    client, fake = pair
    async with asyncio.TaskGroup() as group:
        call = group.create_task(_raised(client.heartbeat()))
        await fake.asked()
        await asyncio.get_running_loop().sock_sendall(fake.sock, line)
        await client.gone.wait()
    assert isinstance(call.result(), ProtocolError)


async def test_a_request_larger_than_the_socket_takes_is_sent_whole(pair: Pair) -> None:
    client, fake = pair
    fake.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    routes = [IPv4Network((int(IPv4Address("10.0.0.0")) + number, 32)) for number in range(8000)]
    async with asyncio.TaskGroup() as group:
        call = group.create_task(client.set_routes(routes))
        number, _ = await fake.asked()
        fake.answer(number, RoutesSet((), ()))
    assert call.result().routes == ()


async def test_no_greeting_in_time() -> None:
    ours, theirs = socket.socketpair()
    client = HelperClient(ours)
    with pytest.raises(LaptopError, match="did not start within"):
        await client.greeting(0.01)
    client.abandon()
    theirs.close()


async def test_a_greeting_that_says_no() -> None:
    ours, theirs = socket.socketpair()
    client = HelperClient(ours)
    theirs.send(encode_greeting(HelperFailure.of(AlreadyConnectedError("up"))))
    with pytest.raises(AlreadyConnectedError):
        await client.greeting(1)
    assert client.gone.is_set()
    theirs.close()


async def test_an_answer_that_never_comes(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helper_client, "_CALL_SECONDS", 0.01)
    client, fake = pair
    with pytest.raises(LaptopError, match="did not answer heartbeat"):
        await client.heartbeat()
    number, _ = await fake.asked()
    fake.answer(number, AddressSet(True, None))  # too late, and of another kind: that does break the protocol
    await client.gone.wait()


async def _raised(call: Awaitable[object]) -> MeshdevError | None:
    try:
        await call
    except MeshdevError as error:
        return error
    return None
