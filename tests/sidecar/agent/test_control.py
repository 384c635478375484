"""The agent's stream to the manager: mutual TLS, dialled when there is a manager, again and again, and anew."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import grpc
import pytest

from meshdev.identity.edges import manager_proof
from meshdev.sidecar.agent.control import Control, wanted_again
from meshdev.sidecar.agent.own_key import make_key
from meshdev.sidecar.agent.records import MAX_MESSAGES
from meshdev.sidecar.agent.settings import Settings
from meshdev.sidecar.agent.trust import AgentIdentity, new_identity
from meshdev.wire import agent
from meshdev.wire.access import AccessRecords, Watch
from meshdev.wire.agent import (
    AgentHello,
    Consents,
    FromAgent,
    FromControl,
    IssuedCertificate,
    PodPort,
    State,
    Want,
    Wanted,
)
from meshdev.wire.attestation import ManagerOffer
from meshdev.wire.modes import MESH
from tests.sidecar.certificates import Certificates
from tests.waiting import until

WANT = Want((Wanted(PodPort(8080), "http", MESH),))


class Manager:
    """Control's end: what it heard on each stream, and what it says on them."""

    def __init__(self, certificates: Certificates) -> None:
        self.certificates = certificates
        self.streams: list[list[FromAgent]] = []
        self.peers: list[bytes] = []
        self.port = 0
        self.denies = False
        """Every stream: no session has named the agent."""
        self._queues: list[asyncio.Queue[FromControl | None]] = []
        self._server: Any = None

    async def start(self) -> None:
        handler = grpc.stream_stream_rpc_method_handler(self._session)
        self._server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
        handlers = grpc.method_handlers_generic_handler(agent.SERVICE, {"Session": handler})
        self._server.add_generic_rpc_handlers((handlers,))
        self.port = self._server.add_secure_port(f"127.0.0.1:{self.port}", self.certificates.control())
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(0)

    def say(self, message: FromControl | None) -> None:
        """On the newest stream; None ends it."""
        self._queues[-1].put_nowait(message)

    def heard(self, kind: type[FromAgent]) -> FromAgent | None:
        """The last of that kind on the newest stream."""
        newest = self.streams[-1] if self.streams else []
        return next((each for each in reversed(newest) if isinstance(each, kind)), None)

    @property
    def recorded(self) -> list[AccessRecords]:
        """On the newest stream."""
        return [each for each in self.streams[-1] if isinstance(each, AccessRecords)]

    async def _session(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        if self.denies:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "nobody vouches for this key")
        self.peers.append(ssl.PEM_cert_to_DER_cert(context.auth_context()["x509_pem_cert"][0].decode()))
        self.streams.append([])
        queue: asyncio.Queue[FromControl | None] = asyncio.Queue()
        self._queues.append(queue)
        reading = asyncio.ensure_future(self._read(requests, self.streams[-1]))
        try:
            while (message := await queue.get()) is not None:
                yield agent.encode(message)
        finally:
            reading.cancel()

    @staticmethod
    async def _read(requests: AsyncIterator[bytes], heard: list[FromAgent]) -> None:
        async for data in requests:
            heard += [agent.decode_from_agent(data)]


def attest(identity: AgentIdentity, certificates: Certificates) -> None:
    """As a session does once the manager knows the agent."""
    capability = identity.capabilities.issue()
    issued = certificates.issue(identity.key.request)
    offer = ManagerOffer(certificates.authority, manager_proof(capability, certificates.authority), issued)
    assert identity.consider(offer, capability).accepted


class Agent:
    """What control is for, without the rest of an agent."""

    def __init__(self, port: int, *, watched: bool = False) -> None:
        self.watched: list[Watch] = []
        self.identity = new_identity(make_key())
        self.settings = Settings("b-1", "uid", "default", IPv4Address("127.0.0.1"), "127.0.0.1", port)
        self.heard: list[FromControl] = []
        self.lost = 0
        self.state = State()
        self.control = Control(
            self.settings,
            self.identity,
            on_message=self.heard.append,
            on_lost=self._on_lost,
            states=lambda: [self.state],
            on_watch=self.watched.append if watched else None,
        )

    def _on_lost(self) -> None:
        self.lost += 1

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.ensure_future(self.control.run())
        try:
            yield
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.wait([task])


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[Manager]:
    made = Manager(Certificates(tmp_path / "manager"))
    await made.start()
    yield made
    await made.stop()


async def test_nothing_is_dialled_before_a_session_has_named_the_manager(manager: Manager) -> None:
    seen = Agent(manager.port)
    async with seen.running():
        await asyncio.sleep(0.01)
        assert manager.streams == []
        attest(seen.identity, manager.certificates)
        await until(lambda: manager.heard(State))
        secrets = seen.identity.issued.secrets.value
        assert secrets is not None
        assert manager.peers == [secrets.certificate]


async def test_it_says_who_it_is_and_whom_it_consented_to_and_takes_its_next_certificate(manager: Manager) -> None:
    seen = Agent(manager.port)
    async with seen.running():
        attest(seen.identity, manager.certificates)
        await until(lambda: manager.heard(State))
        hello, consents, state = manager.streams[0]
        assert hello == AgentHello("b-1", "uid", "default", IPv4Address("127.0.0.1"), ())
        assert consents == Consents(seen.identity.capabilities.proofs.value)
        assert state == State()
        issued = manager.certificates.issue(seen.identity.key.request)
        manager.say(IssuedCertificate(issued, manager.certificates.authority))
        manager.say(WANT)
        await until(lambda: seen.heard)
        secrets = seen.identity.issued.secrets.value
        assert secrets is not None
        assert (secrets.certificate, secrets.authority) == (issued, manager.certificates.authority)
        assert seen.heard == [WANT]
        assert len(manager.streams[0]) == 3, "what has not changed is not repeated"
        manager.say(None)
        await until(lambda: len(manager.peers) == 2)
        assert manager.peers[1] == issued, "the next stream has it, too"


async def test_each_consent_is_announced(manager: Manager) -> None:
    seen = Agent(manager.port)
    async with seen.running():
        attest(seen.identity, manager.certificates)
        for _ in range(3):
            await until(lambda: manager.heard(Consents) == Consents(seen.identity.capabilities.proofs.value))
            seen.identity.capabilities.issue()
        seen.identity.capabilities.withdraw(seen.identity.capabilities.proofs.value[0])
        await until(lambda: manager.heard(Consents) == Consents(seen.identity.capabilities.proofs.value))
        assert len(manager.streams) == 1


@pytest.mark.parametrize("late", [0.005, 0.05, 0.3])
async def test_a_manager_that_learns_of_it_late_is_asked_again_soon(manager: Manager, late: float) -> None:
    """As one that has just begun anew. gRPC by itself asks again 100 ms later at the earliest."""
    took: list[float] = []
    while len(took) < 3:  # a busy machine may hold one of them up
        seen = Agent(manager.port)
        manager.denies = True
        async with seen.running():
            attest(seen.identity, manager.certificates)
            began = time.monotonic()
            asyncio.get_running_loop().call_later(late, setattr, manager, "denies", False)
            await until(lambda: len(manager.streams) > len(took) and manager.heard(State))
            took.append(time.monotonic() - began)
    assert late < min(took) < late + max(0.08, 1.5 * late)


async def test_a_stream_that_ended_is_made_again(manager: Manager) -> None:
    seen = Agent(manager.port)
    async with seen.running():
        attest(seen.identity, manager.certificates)
        for number in range(1, 4):
            await until(lambda: len(manager.streams) == number and manager.heard(State))  # noqa: B023 -- awaited here
            assert seen.identity.trust.lost
            manager.say(WANT)
            await until(lambda: len(seen.heard) == number)  # noqa: B023 -- awaited here
            assert not seen.identity.trust.lost
            manager.say(None)
            await until(lambda: seen.lost == number)  # noqa: B023 -- awaited here


async def test_a_connection_that_was_cut_without_a_word_is_given_up_in_five_seconds(manager: Manager) -> None:
    cut = asyncio.Event()
    forwarding: set[asyncio.Task[None]] = set()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            while (data := await reader.read(1 << 16)) and not cut.is_set():
                writer.write(data)
            await asyncio.Event().wait()  # neither FIN nor RST

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_there = await asyncio.open_connection("127.0.0.1", manager.port)
        for one, other in ((reader, to_there), (there, writer)):
            forwarding.add(asyncio.ensure_future(forward(one, other)))

    async with await asyncio.start_server(accepted, "127.0.0.1") as between:
        seen = Agent(between.sockets[0].getsockname()[1])
        async with seen.running():
            attest(seen.identity, manager.certificates)
            await until(lambda: manager.heard(State))
            manager.say(WANT)
            await until(lambda: seen.heard)
            cut.set()
            began = time.monotonic()
            await until(lambda: seen.lost)
            assert 2 < time.monotonic() - began < 6
        for task in forwarding:
            task.cancel()
        await asyncio.wait(forwarding)


async def test_another_manager_is_dialled_when_the_first_is_lost(manager: Manager, tmp_path: Path) -> None:
    seen = Agent(manager.port)
    async with seen.running():
        attest(seen.identity, manager.certificates)
        await until(lambda: manager.heard(State))
        manager.say(WANT)
        await until(lambda: seen.heard)
        await manager.stop()
        await until(lambda: seen.lost)
        second = Manager(Certificates(tmp_path / "second"))
        second.port = manager.port
        await second.start()
        try:
            await asyncio.sleep(0.01)
            assert second.streams == [], "its certificate is not the manager's"
            attest(seen.identity, second.certificates)
            await until(lambda: second.heard(State))
        finally:
            await second.stop()


@pytest.mark.parametrize("bad", ["key", "authority", "bytes"])
async def test_a_certificate_that_cannot_be_used_ends_the_stream(
    manager: Manager, bad: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Agent(manager.port)
    authority = manager.certificates.authority
    issued: dict[str, Callable[[], IssuedCertificate]] = {
        "key": lambda: IssuedCertificate(manager.certificates.issue(make_key().request), authority),
        "authority": lambda: IssuedCertificate(
            manager.certificates.issue(seen.identity.key.request), Certificates(tmp_path / "other").authority
        ),
        "bytes": lambda: IssuedCertificate(b"nothing", authority),
    }
    async with seen.running():
        attest(seen.identity, manager.certificates)
        await until(lambda: manager.heard(State))
        secrets = seen.identity.issued.secrets.value
        manager.say(issued[bad]())
        await until(lambda: len(manager.streams) == 2)
        assert seen.identity.issued.secrets.value is secrets is not None
        assert "the manager broke the protocol" in caplog.text


async def test_what_was_seen_is_sent_on_streams_whose_manager_has_asked(manager: Manager) -> None:
    seen = Agent(manager.port, watched=True)
    one, two = AccessRecords((), 1), AccessRecords((), 2)
    async with seen.running():
        attest(seen.identity, manager.certificates)
        await until(lambda: manager.heard(State))
        hello = manager.streams[0][0]
        assert isinstance(hello, AgentHello)
        assert hello.records
        seen.control.record(one)
        manager.say(Watch(on=True, all=True))
        await until(lambda: seen.watched)
        assert (seen.watched, seen.heard) == ([Watch(on=True, all=True)], [])
        for _ in range(3):
            seen.control.record(two)
        await until(lambda: manager.streams[0].count(two) == 3)
        assert one not in manager.streams[0], "it came before anybody asked"
        manager.say(None)
        await until(lambda: len(manager.streams) == 2 and manager.heard(State))
        seen.control.record(two)
        seen.state = State(applied=1)
        seen.control.announce()
        await until(lambda: manager.heard(State) == State(applied=1))
        assert manager.heard(AccessRecords) is None, "another manager may not know what this is"


async def test_a_slow_manager_loses_records_and_learns_how_many(manager: Manager) -> None:
    seen = Agent(manager.port, watched=True)
    async with seen.running():
        attest(seen.identity, manager.certificates)
        await until(lambda: manager.heard(State))
        manager.say(Watch(on=True))
        await until(lambda: seen.watched)
        for _ in range(2 * MAX_MESSAGES):  # at once, while nothing can be written
            seen.control.record(AccessRecords((), 1))
        await until(lambda: sum(each.dropped for each in manager.recorded) == 2 * MAX_MESSAGES)
        assert len(manager.recorded) == MAX_MESSAGES


async def test_an_agent_that_cannot_be_watched_does_not_say_so(manager: Manager) -> None:
    seen = Agent(manager.port)
    async with seen.running():
        attest(seen.identity, manager.certificates)
        await until(lambda: manager.heard(State))
        manager.say(Watch(on=True))
        manager.say(WANT)
        await until(lambda: seen.heard)
        hello = manager.streams[0][0]
        assert isinstance(hello, AgentHello)
        assert not hello.records
        assert len(manager.streams) == 1


async def test_what_waits_for_an_intercept_consents_and_has_its_certificate(manager: Manager) -> None:
    seen = Agent(manager.port)
    waiting = asyncio.ensure_future(wanted_again(seen.settings, seen.identity, asyncio.Event()))
    attest(seen.identity, manager.certificates)
    await until(lambda: manager.heard(Consents))
    issued = manager.certificates.issue(seen.identity.key.request)
    manager.say(IssuedCertificate(issued, manager.certificates.authority))
    manager.say(Want(()))
    secrets = seen.identity.issued.secrets
    await until(lambda: secrets.value is not None and secrets.value.certificate == issued)
    assert not waiting.done()
    manager.say(WANT)
    await asyncio.wait_for(waiting, 10)
