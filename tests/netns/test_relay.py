"""The relay with a real Envoy and the product's retry policy: whatever fails at the laptop or at the relay, the
original answers, and no request fails.

A relay that sent its Finished before it looks at the key, or in TLS 1.3, would turn 60 of 60 requests into a 503.
"""

import asyncio
import socket
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

import pytest

from meshdev.wire.relay import RelayRemoved
from tests.netns.relay import RELAY, RelayedPod, ask, relayed_pod
from tests.sidecar.pod import End, length
from tests.waiting import until

GET = b"GET / HTTP/1.1\r\nHost: b\r\nA: 1\r\n\r\n"
BODY = bytes(range(256)) * 300
POST = b"POST / HTTP/1.1\r\nHost: b\r\nA: 1\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


@pytest.fixture
async def pod() -> AsyncIterator[RelayedPod]:
    async with relayed_pod() as pod:
        yield pod


async def sixty(pod: RelayedPod, request: bytes, *, kept: bool) -> Counter[str]:
    """Who answers 60 requests, twenty at a time: each on a connection of its own, or three on each of twenty."""
    found: Counter[str] = Counter()

    async def three() -> None:
        if kept:
            reader, writer = await pod.connect()
            found.update([await ask(reader, writer, request) for _ in range(3)])
            writer.close()
        else:
            found.update([await pod.ask(request) for _ in range(3)])

    await asyncio.gather(*(three() for _ in range(20)))
    return found


every_way = pytest.mark.parametrize("kept", [False, True], ids=["new", "kept"])
every_request = pytest.mark.parametrize("request_", [GET, POST], ids=["get", "post"])


@every_way
@every_request
async def test_permitted(pod: RelayedPod, request_: bytes, kept: bool) -> None:
    await pod.program.start()
    pod.permit()
    assert await sixty(pod, request_, kept=kept) == {"laptop": 60}
    assert pod.relay.alive()


@every_way
@every_request
async def test_nothing_listens(pod: RelayedPod, request_: bytes, kept: bool) -> None:
    pod.permit()
    assert await sixty(pod, request_, kept=kept) == {"original": 60}


@every_way
@every_request
async def test_the_laptop_is_silent(pod: RelayedPod, request_: bytes, kept: bool) -> None:
    await pod.program.start()
    pod.permit()
    with pod.silent():
        assert await sixty(pod, request_, kept=kept) == {"original": 60}
    assert pod.program.heard == []


@every_way
@every_request
async def test_the_key_is_refused(pod: RelayedPod, request_: bytes, kept: bool) -> None:
    await pod.program.start()
    pod.permit("0" * 64)
    assert await sixty(pod, request_, kept=kept) == {"original": 60}
    assert pod.program.heard == []


async def test_there_is_no_such_relay(pod: RelayedPod) -> None:
    pod.relay.send()
    assert await sixty(pod, POST, kept=True) == {"original": 60}


async def test_a_laptop_that_comes_and_goes_between_requests(pod: RelayedPod) -> None:
    pod.permit()
    reader, writer = await pod.connect()
    for _ in range(5):
        await pod.program.start()
        assert await ask(reader, writer, POST) == "laptop"
        await pod.program.stop()
        await pod.envoy.has_closed("laptop")
        assert await ask(reader, writer, POST) == "original"
    writer.close()


async def test_a_laptop_that_falls_silent_between_requests(pod: RelayedPod) -> None:
    """Envoy closes a connection that is idle for 0.25 s; at a request on a new one the relay notices."""
    await pod.program.start()
    pod.permit()
    reader, writer = await pod.connect()
    for _ in range(2):
        assert await ask(reader, writer, POST) == "laptop"
        with pod.silent():
            await pod.envoy.has_closed("laptop")
            assert await ask(reader, writer, POST) == "original"
    writer.close()


async def test_a_key_that_is_withdrawn_between_requests(pod: RelayedPod) -> None:
    await pod.program.start()
    reader, writer = await pod.connect()
    for _ in range(3):
        pod.permit()
        assert await ask(reader, writer, POST) == "laptop"
        pod.permit("0" * 64)
        await pod.envoy.has_closed("laptop")
        assert await ask(reader, writer, POST) == "original"
    writer.close()


def begins(ended: asyncio.Event) -> Callable[[End, Any, Any], Any]:
    """An answer of which only the beginning comes, until the program ends."""

    async def answer(_end: End, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nbegin")
        await ended.wait()

    return answer


async def beginning(pod: RelayedPod) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that has the beginning of an answer."""
    reader, writer = await pod.connect()
    writer.write(GET)
    assert length(await reader.readuntil(b"\r\n\r\n")) == 1000
    assert await reader.readexactly(5) == b"begin"
    return reader, writer


@pytest.mark.parametrize("how", ["ends", "silent", "withdrawn"])
async def test_a_laptop_that_goes_away_in_the_middle_of_an_answer(pod: RelayedPod, how: str) -> None:
    """The client sees that it is no whole one: promptly, or for a silent laptop after 4 s."""
    ended = asyncio.Event()
    pod.program.answer_by(begins(ended))
    await pod.program.start()
    pod.permit()
    reader, writer = await beginning(pod)
    began = time.monotonic()
    if how == "ends":
        ended.set()
    elif how == "silent":
        pod.fall_silent()
    else:
        pod.permit("0" * 64)
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    took = time.monotonic() - began
    assert 3 < took < 6 if how == "silent" else took < 1
    writer.close()
    ended.set()


async def test_a_claim_that_ends_in_the_middle_of_requests(pod: RelayedPod) -> None:
    """All of them are answered: those that were on their way by the laptop, later ones by the original."""

    async def slowly(end: End, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            end.heard.append(await reader.readuntil(b"\r\n\r\n"))
            await ended.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nlaptop")

    ended = asyncio.Event()
    pod.program.answer_by(slowly)
    await pod.program.start()
    pod.permit()
    asked = [asyncio.create_task(pod.ask(GET)) for _ in range(20)]
    await until(lambda: len(pod.program.heard) == 20)
    pod.relay.send(RelayRemoved(RELAY))
    assert await sixty(pod, GET, kept=False) == {"original": 60}
    ended.set()
    assert Counter(await asyncio.gather(*asked)) == {"laptop": 20}


async def test_a_laptop_that_falls_silent_while_a_body_is_sent(pod: RelayedPod) -> None:
    """What is under way is given up after 4 s without an acknowledgement."""
    pod.program.answer_by(reads)
    await pod.program.start()
    pod.permit()
    reader, writer = await pod.connect()
    writer.write(b"POST / HTTP/1.1\r\nHost: b\r\nA: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
    await until(lambda: pod.program.heard)
    pod.fall_silent()
    began = time.monotonic()
    writer.write(b"8000\r\n" + bytes(0x8000) + b"\r\n")
    async with asyncio.timeout(10):
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 503 ")
    assert 3.5 < time.monotonic() - began < 6
    writer.close()


async def reads(end: End, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Never answers."""
    end.heard.append(await reader.readuntil(b"\r\n\r\n"))
    await reader.read()


async def echo(_end: End, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Once the client has ended."""
    writer.write(b"hello")
    writer.write(await reader.read())
    await writer.drain()


async def ends_first(end: End, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """And goes on reading."""
    writer.write(b"bye")
    writer.write_eof()
    end.heard.append(await reader.read())


async def test_bytes_of_any_protocol_end_one_way_at_a_time(pod: RelayedPod) -> None:
    """By Envoy's tcp_proxy: a half-close is one at both ends."""
    await pod.serve(flow=True)
    pod.permit()
    pod.program.answer_by(echo)
    await pod.program.start()
    async with asyncio.timeout(20):
        reader, writer = await pod.connect()
        assert await reader.readexactly(5) == b"hello"
        writer.write(BODY * 10)
        writer.write_eof()
        assert await reader.read() == BODY * 10
        writer.close()
        pod.program.answer_by(ends_first)
        reader, writer = await pod.connect()
        assert await reader.read() == b"bye"
        writer.write(BODY)
        writer.write_eof()
        await until(lambda: pod.program.heard)
        writer.close()
    assert pod.program.heard == [BODY]


async def resets(_end: End, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """After a few bytes."""
    await reader.readexactly(3)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def test_a_reset_of_the_program_ends_the_clients_connection(pod: RelayedPod) -> None:
    await pod.serve(flow=True)
    pod.permit()
    pod.program.answer_by(resets)
    await pod.program.start()
    async with asyncio.timeout(20):
        reader, writer = await pod.connect()
        writer.write(b"one")
        with suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()


async def test_control_may_be_away_and_a_new_one_sends_all_anew(pod: RelayedPod) -> None:
    await pod.program.start()
    pod.permit()
    pod.relay.control.close()
    assert await sixty(pod, GET, kept=False) == {"laptop": 60}
    pod.relay.control = pod.relay.connect()
    assert await pod.ask(GET) == "laptop"
    pod.relay.send()
    assert await pod.ask(GET) == "original"


async def test_it_ends_with_sigterm(pod: RelayedPod) -> None:
    ended = asyncio.Event()
    pod.program.answer_by(begins(ended))
    await pod.program.start()
    pod.permit()
    reader, writer = await beginning(pod)
    assert pod.relay.stop() == 0
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    assert pod.relay.output[-1].endswith("stopped\n")
    writer.close()
    ended.set()
