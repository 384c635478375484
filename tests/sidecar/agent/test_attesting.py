"""The agent's end of attestation, over real connections: what is issued, kept, refused, and who is kept out."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, closing

import pytest

from meshdev.errors import ClusterError, MeshdevError, ProtocolError
from meshdev.identity.fingerprints import fingerprint
from meshdev.kube.attestation import Attested
from meshdev.sidecar.agent import attesting, trust
from meshdev.sidecar.agent.attesting import MAX_CONNECTIONS, AttestationListener
from meshdev.sidecar.agent.own_key import make_key
from meshdev.sidecar.agent.trust import new_identity
from meshdev.wire import attestation
from meshdev.wire.attestation import AttestRequest, FromSession, ManagerOffer
from tests.sidecar.agent.attesting_session import attested, connect, tls
from tests.sidecar.certificates import FIRST, SECOND, Certificates
from tests.waiting import until

UID = "uid-b-1"


class Agent:
    def __init__(self) -> None:
        self.identity = new_identity(make_key())
        self.listener = AttestationListener(UID, self.identity)
        self.port = self.listener.announcement.port

    async def attest(self, manager: Certificates = FIRST, uid: str = UID, expected: str | None = None) -> Attested:
        return await attested(self.port, uid, manager.authority, expected, issue=manager.issue)

    @property
    def proofs(self) -> tuple[str, ...]:
        return self.identity.capabilities.proofs.value

    @property
    def manager(self) -> bytes | None:
        return self.identity.trust.certificate.value

    async def answer(self, *messages: FromSession | bytes) -> bytes:
        """Everything that comes back until the agent closes."""
        async with tls(self.port) as (reader, writer):
            for each in messages:
                writer.write(each if isinstance(each, bytes) else attestation.encode(each))
            return await asyncio.wait_for(reader.read(), 5)


@pytest.fixture
async def agent() -> AsyncIterator[Agent]:
    made = Agent()
    async with made.listener.serving():
        yield made


async def test_it_proves_its_key_and_takes_the_manager(agent: Agent) -> None:
    announced = agent.listener.announcement.fingerprint
    found = await agent.attest(expected=announced)
    assert found == Attested(agent.identity.key.request, announced, found.proof, accepted=True)
    assert announced == fingerprint(agent.identity.key.certificate)
    assert agent.proofs == (found.proof,)
    assert agent.manager == FIRST.authority
    secrets = agent.identity.issued.secrets.value
    assert secrets is not None
    assert (secrets.authority, secrets.private_key) == (FIRST.authority, agent.identity.key.private_pem)


async def test_each_session_has_a_capability_of_its_own(agent: Agent) -> None:
    first, second = await agent.attest(), await agent.attest()
    assert first.proof != second.proof
    assert agent.proofs == (first.proof, second.proof)


async def test_two_agents_have_different_keys(agent: Agent) -> None:
    other = Agent()
    async with other.listener.serving():
        assert other.listener.announcement.fingerprint != agent.listener.announcement.fingerprint
        with pytest.raises(ProtocolError, match="has another key"):
            await other.attest(expected=agent.listener.announcement.fingerprint)
    assert other.proofs == ()


async def test_whoever_asks_for_another_pod_gets_nothing(agent: Agent) -> None:
    with pytest.raises(ClusterError, match="this is not the pod that was asked for"):
        await agent.attest(uid="uid-b-2")
    assert (agent.proofs, agent.manager) == ((), None)


async def test_another_version_of_the_protocol_is_refused_in_words(agent: Agent) -> None:
    assert b"attested by version 2 of the protocol, not 3" in await agent.answer(AttestRequest(3, UID))


async def test_a_manager_that_is_not_taken_leaves_no_capability(agent: Agent) -> None:
    kept = await agent.attest()
    agent.identity.trust.lost = False
    refused = await agent.attest(SECOND)
    assert (refused.accepted, refused.reason) == (False, "another manager serves this sidecar, and is not lost")
    await until(lambda: agent.proofs == (kept.proof,))
    agent.identity.trust.lost = True
    assert (await agent.attest(SECOND)).accepted
    assert agent.manager == SECOND.authority


async def test_a_proof_of_another_connection_is_none(agent: Agent) -> None:
    await agent.attest()
    answer = await agent.answer(AttestRequest(2, UID), ManagerOffer(SECOND.authority, agent.proofs[0], b"x"))
    assert b'"accepted":false' in answer
    await until(lambda: len(agent.proofs) == 1)
    assert agent.manager == FIRST.authority


async def test_whoever_leaves_in_the_middle_leaves_no_capability(agent: Agent) -> None:
    async with tls(agent.port) as (reader, writer):
        writer.write(attestation.encode(AttestRequest(2, UID)))
        await reader.readline()
        assert len(agent.proofs) == 1
    await until(lambda: agent.proofs == (), seconds=attesting.ATTEST_SECONDS / 2)


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"meshdev-agent/1 token\n",
        attestation.encode(ManagerOffer(FIRST.authority, "0" * 64, b"x")),
        b"x" * 100_000,
        b"[" * 5_000 + b"\n",
        b'{"attest": {"version": 2}}\n',
        b"\xff\xfe\n",
    ],
)
async def test_whoever_says_something_else_gets_no_answer(agent: Agent, said: bytes) -> None:
    assert await agent.answer(said) == b""
    assert (agent.proofs, agent.manager) == ((), None)
    assert (await agent.attest()).accepted


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100_000, b"\x16\x03\x01\x40\x00" + b"x" * 40_000])
async def test_what_is_no_tls_ends_the_connection(agent: Agent, said: bytes) -> None:
    with closing(connect(agent.port)) as sock, contextlib.suppress(ConnectionError):
        sock.sendall(said)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(5):
            while await loop.sock_recv(sock, 1 << 16):
                pass  # an alert
    assert (await agent.attest()).accepted


async def test_connections_that_say_nothing_keep_nobody_out(agent: Agent) -> None:
    with ExitStack() as stack:
        for _ in range(3 * MAX_CONNECTIONS):
            stack.enter_context(connect(agent.port))
        assert (await agent.attest()).accepted


async def test_handshakes_that_are_done_and_say_nothing_keep_nobody_out(agent: Agent) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(MAX_CONNECTIONS + 2):
            await stack.enter_async_context(tls(agent.port))
        assert (await agent.attest()).accepted


async def test_one_that_is_slow_is_ended(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attesting, "ATTEST_SECONDS", 0.2)
    async with tls(agent.port) as (reader, writer):
        ending = asyncio.ensure_future(reader.read())
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            for byte in attestation.encode(AttestRequest(2, UID)):
                writer.write(bytes([byte]))
                await asyncio.wait([ending], timeout=0.05)
                if ending.done():
                    break
        with contextlib.suppress(ConnectionError):
            assert await ending == b""
        assert time.monotonic() - began < 1.5


async def test_capabilities_lapse_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "CAPABILITY_SECONDS", 0.1)
    agent = Agent()
    async with agent.listener.serving():
        found = await agent.attest()
        known = agent.identity.capabilities.proofs
        await asyncio.wait_for(known.until(lambda proofs: proofs == ()), 5)
        assert found.accepted


async def test_a_hundred_at_once_are_all_served(agent: Agent) -> None:
    """As many as may be connected; a session has eight under way."""
    slots = asyncio.Semaphore(MAX_CONNECTIONS // 2)

    async def one() -> Attested:
        async with slots:
            return await agent.attest()

    found = await asyncio.gather(*(one() for _ in range(100)))
    assert all(each.accepted for each in found)
    assert set(agent.proofs) == {each.proof for each in found}


async def test_nobody_listens_afterwards() -> None:
    agent = Agent()
    async with agent.listener.serving():
        await agent.attest()
    with pytest.raises((MeshdevError, ConnectionRefusedError)):
        await agent.attest()
