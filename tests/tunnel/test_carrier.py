"""One carrier: what the manager's first answer means, and an observer's question."""

import asyncio
from ipaddress import IPv4Address

import pytest

from meshdev.config import OLDEST_PROTOCOL, PROTOCOL
from meshdev.errors import PeerClosed, ProtocolError, RefusedError, TunnelError, VersionError
from meshdev.manager.tunnel import server
from meshdev.pump.loop import Loop
from meshdev.tunnel import carrier as carrier_module
from meshdev.tunnel.carrier import Carrier, observe, packet_thread
from meshdev.wire.control import Close, Hello, Sessions, Welcome, encode
from meshdev.wire.frames import OPTIONAL, PACKET, PING, frame
from tests.manager.standin import HELLO, Manager, Visitor, hello
from tests.pump.ends import packet
from tests.tunnel.standin import Address, Laptop, dial, scripted

pytestmark = pytest.mark.usefixtures("nothing_left")

WELCOME = Welcome(1, IPv4Address("198.18.0.2"), 1450, 7, (), (), "pod", "default", IPv4Address("10.0.0.1"))


async def greet(laptop: Laptop, address: Address, words: Hello = HELLO) -> Welcome | Sessions:
    """One carrier from dialling to the answer, and its end."""
    loop = Loop()
    with packet_thread(loop):
        carrier = Carrier(loop, await dial(address), laptop.device.queues[0])
        try:
            answer = await carrier.greet(words)
            assert carrier.state().up
        finally:
            carrier.end(PeerClosed("done"))
            await asyncio.wait_for(asyncio.shield(carrier.ended), 5)
        assert not carrier.state().up
    return answer


async def test_another_version_is_an_error_that_says_the_way_out(
    manager: Manager, laptop: Laptop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PROTOCOL", PROTOCOL + 2)
    monkeypatch.setattr(server, "OLDEST_PROTOCOL", PROTOCOL + 1)
    with Visitor(manager) as ann:
        ann.say(hello("ann", newest=9)).welcome()
        with pytest.raises(
            VersionError, match=f"protocol {PROTOCOL + 1} to {PROTOCOL + 2}, you speak {OLDEST_PROTOCOL} to {PROTOCOL}"
        ) as caught:
            await greet(laptop, manager.address)
    assert caught.value.sessions == 1
    assert caught.value.hint == "meshdev connect --upgrade replaces the manager (1 sessions are on it)"


async def test_what_the_manager_refuses(manager: Manager, laptop: Laptop, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RefusedError, match="none of the address ranges"):
        await greet(laptop, manager.address, hello("ann", pools=()))
    monkeypatch.setattr(server, "MAX_SESSIONS", 0)
    with pytest.raises(RefusedError, match="0 sessions use the manager already"):
        await greet(laptop, manager.address)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"\xff" * 40, "claims"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "claims"),
        (frame(99, b"{}"), "unknown kind 99"),
        (frame(PACKET, packet(1)), "before the session was agreed"),
        (encode(Sessions(())), "out of turn"),
        (encode(WELCOME).replace(b'"version":1', b'"version":9'), "chose protocol 9"),
        (encode(WELCOME).replace(b'"mtu":1450', b'"mtu":"no"'), "mtu"),
    ],
)
async def test_a_first_answer_that_cannot_be(laptop: Laptop, answer: bytes, words: str) -> None:
    async with scripted([answer]) as address:
        with pytest.raises(ProtocolError, match=words):
            await greet(laptop, address)


async def test_optional_frames_and_heartbeats_may_come_before_welcome(laptop: Laptop) -> None:
    async with scripted([frame(OPTIONAL, b"") + frame(PING, b"12345678") + encode(WELCOME)]) as address:
        assert await greet(laptop, address) == WELCOME


async def test_an_end_in_place_of_an_answer(laptop: Laptop) -> None:
    async with scripted([b""], hang_up=True) as address:
        with pytest.raises(PeerClosed, match="closed by the other end"):
            await greet(laptop, address)


async def test_no_answer(laptop: Laptop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(carrier_module, "WELCOME_SECONDS", 0.1)
    async with scripted([b""]) as address:
        with pytest.raises(TunnelError, match="did not answer"):
            await greet(laptop, address)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (encode(Close("draining", "the manager pod is being stopped")), "the manager pod is being stopped"),
        (encode(WELCOME), "out of turn"),
    ],
)
async def test_frames_after_welcome_may_end_the_carrier(laptop: Laptop, words: bytes, reason: str) -> None:
    loop = Loop()
    async with scripted([encode(WELCOME) + words]) as address:
        with packet_thread(loop):
            carrier = Carrier(loop, await dial(address), laptop.device.queues[0])
            assert await carrier.greet(HELLO) == WELCOME
            error = await asyncio.wait_for(carrier.ended, 5)
    assert reason in error.message


async def test_an_observer_is_told_who_is_there(manager: Manager) -> None:
    with Visitor(manager) as ann:
        ann.say(hello("ann")).welcome()
        seen = await observe(await dial(manager.address), hello("observer", observer=True))
    assert [info.holder for info in seen.sessions] == ["ann"]


@pytest.mark.parametrize("answer", [encode(WELCOME), b"\xff" * 9, encode(Close("full", "no"))])
async def test_an_observer_takes_nothing_else(answer: bytes) -> None:
    async with scripted([answer]) as address:
        with pytest.raises((ProtocolError, RefusedError)):
            await observe(await dial(address), hello("observer", observer=True))


async def test_an_observer_may_be_cancelled() -> None:
    async with scripted([b""]) as address:
        task = asyncio.ensure_future(observe(await dial(address), hello("observer", observer=True)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
