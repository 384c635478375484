"""Attesting an agent through the API server: TLS over a port-forward, to the certificate that the agent's log names.

The rights to both are what proves that somebody may speak for a pod (docs/security.md). RBAC: ``get`` on pods/log, and
what :mod:`meshdev.kube.portforward` needs. What answers may be hostile: time and size are bounded.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

from meshdev.errors import ClusterError, PeerClosed, ProtocolError
from meshdev.identity.edges import claim_proof, manager_proof
from meshdev.identity.engine import TlsEngine
from meshdev.identity.fingerprints import fingerprint
from meshdev.kube.client import KubeApi
from meshdev.kube.portforward import PortForward
from meshdev.wire import attestation
from meshdev.wire.attestation import (
    MAX_LINE,
    VERSION,
    AgentAnnouncement,
    AgentLogReader,
    AttestRefusal,
    AttestRequest,
    FromAttestedAgent,
    FromSession,
    IssuedCapability,
    ManagerOffer,
    ManagerVerdict,
)
from meshdev.wire.jsonlines import LineSplitter
from meshdev.wire.objects import MAX_CERTIFICATE

#: Time for the announcement, which an agent writes as soon as it runs, and then for the exchange; in seconds.
LOG_SECONDS: Final = 10.0
EXCHANGE_SECONDS: Final = 4.5
#: Bytes of a log that are read: the announcement is repeated each 64 KiB and first in a log that was not rotated.
MAX_LOG: Final = 16 << 20
#: Bytes that are read of whoever answers: a handshake of ours has 1.5 KiB, and lines are short.
MAX_RECEIVED: Final = 64 << 10
_READ: Final = 64 << 10

T = TypeVar("T")

#: Forwards a port of a pod: namespace, pod, port.
Forward = Callable[[str, str, int], Awaitable[PortForward]]


class ManagerCertificates(NamedTuple):
    """What an agent is to know: the manager's certificate, and what the manager issued for its key (both DER)."""

    manager: bytes
    issued: bytes


#: Gets an agent's signing request (DER) and the proof for a claim, once it has issued a capability: the manager issues
#: its certificate first, without which the agent does not get to it.
Introduce = Callable[[bytes, str], Awaitable[ManagerCertificates]]


@dataclass(frozen=True)
class AgentAddress:
    """Where an agent is asked: a *port* of the 127.0.0.1 of a pod, and which certificate it must have.

    Without a *fingerprint* whoever answers in that pod is taken for its agent.
    """

    namespace: str
    pod: str
    uid: str
    port: int
    fingerprint: str | None = None


@dataclass(frozen=True)
class Attested:
    """An agent that has issued a capability. *request* and *proof* are what a claim shows the manager.

    *accepted*: it takes the manager; if not, *reason* says why.
    """

    request: bytes
    fingerprint: str
    proof: str
    accepted: bool
    reason: str = ""


async def announced(api: KubeApi, namespace: str, pod: str, container: str) -> AgentAnnouncement:
    """Where the agent in a container that runs listens, and with which certificate: what its log says.

    Raises ClusterError (also in time, where the log says nothing), ProtocolError where it is of another version,
    ForbiddenError, UnreachableError and CredentialError.
    """
    return await _within(LOG_SECONDS, "its log does not name its port", _announced(api, namespace, pod, container))


async def attest(forward: Forward, agent: AgentAddress, introduce: Introduce) -> Attested:
    """Have the agent issue a capability, and hand over the manager's certificate and its own.

    Raises ClusterError (also in time, where nothing answers), ProtocolError where something else answers, or with
    another key than the expected one, ForbiddenError, UnreachableError, CredentialError, the kinds of TunnelError, and
    what *introduce* raises.
    """
    return await _within(EXCHANGE_SECONDS, f"port {agent.port} does not answer", _attested(forward, agent, introduce))


async def _within(seconds: float, what: str, work: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await work
    except TimeoutError:
        raise ClusterError(f"{what} within {seconds:g} seconds") from None


async def _announced(api: KubeApi, namespace: str, pod: str, container: str) -> AgentAnnouncement:
    """All announcements of a container's log are of one process: the first one counts."""
    reader, read = AgentLogReader(), 0
    async with aclosing(api.follow_log(namespace, pod, container, LOG_SECONDS)) as pieces:
        async for piece in pieces:
            if (found := reader.feed(piece)) is not None:
                return found
            read += len(piece)
            if read > MAX_LOG:
                raise ClusterError(f"its log does not name its port in {MAX_LOG >> 20} MiB")
    raise ClusterError("its log has ended and does not name its port")


async def _attested(forward: Forward, agent: AgentAddress, introduce: Introduce) -> Attested:
    dialled = await forward(agent.namespace, agent.pod, agent.port)
    try:
        return await _exchanged(_AgentConnection(dialled), agent, introduce)
    except OSError as error:
        raise ClusterError(f"the port-forward to port {agent.port} broke: {error}") from error
    finally:
        dialled.transport.close()


async def _exchanged(channel: "_AgentConnection", agent: AgentAddress, introduce: Introduce) -> Attested:
    found = fingerprint(await channel.handshake())
    if agent.fingerprint not in (None, found):
        raise ProtocolError(
            f"what answers on port {agent.port} has another key than the one that the agent's log names"
        )
    answer = await channel.ask(AttestRequest(VERSION, agent.uid), IssuedCapability)
    capability = bytes.fromhex(answer.capability)
    proof = claim_proof(capability)
    manager, issued = await introduce(answer.request, proof)
    verdict = await channel.ask(ManagerOffer(manager, manager_proof(capability, manager), issued), ManagerVerdict)
    return Attested(answer.request, found, proof, verdict.accepted, verdict.reason)


def _context() -> ssl.SSLContext:
    """No authority vouches for an agent: its key is compared by fingerprint, which the handshake proves it has."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class _AgentConnection:
    """TLS and its lines over a port-forward. Pings are not answered: nobody asks twice in EXCHANGE_SECONDS."""

    def __init__(self, dialled: PortForward) -> None:
        self._dialled = dialled
        self._engine = TlsEngine(_context(), server_side=False)
        self._splitter = LineSplitter(MAX_LINE)
        self._lines: list[bytes] = []
        self._buffer = memoryview(bytearray(_READ))
        self._received = 0

    async def handshake(self) -> bytes:
        """The certificate (DER) of whoever answers. Raises ProtocolError, PortForwardError, OSError."""
        while not self._engine.established:
            await self._receive()
        certificate = self._engine.peer_certificate
        if not certificate or len(certificate) > MAX_CERTIFICATE:
            raise ProtocolError("what answers on the agent's port has no certificate of an agent")
        return certificate

    async def ask(self, question: FromSession, expected: type[T]) -> T:
        """The answer to *question*. Raises ClusterError where it is a refusal; else as :meth:`handshake`."""
        self._engine.send(attestation.encode(question))
        while not self._lines:
            await self._receive()
        answer: FromAttestedAgent = attestation.decode_from_agent(self._lines.pop(0))
        if isinstance(answer, AttestRefusal):
            raise ClusterError(f"the sidecar's agent refuses: {answer.error}")
        if not isinstance(answer, expected):
            raise ProtocolError("the agent answers something else than it was asked")
        return answer

    async def _receive(self) -> None:
        """What comes next, at most one read. All is sent first: the end of the handshake along with a question."""
        await self._flush()
        try:
            size = self._dialled.transport.recv_into(self._buffer)
        except BlockingIOError:
            await _ready(self._dialled, writing=False)
            return
        data, ended = bytearray(), not size
        try:
            for part in self._dialled.framing.unwrap(self._buffer[:size]):
                data += part
        except PeerClosed:  # what came before may be enough
            ended = True
        self._received += len(data)
        self._decrypt(bytes(data))
        if (ended or self._engine.ended) and not self._lines:
            raise ProtocolError("what answers on the agent's port is not the agent: it ended too early")

    def _decrypt(self, data: bytes) -> None:
        if self._received > MAX_RECEIVED:
            raise ProtocolError("what answers on the agent's port is not the agent: it sends too much")
        try:
            self._lines += self._splitter.feed(self._engine.receive(data))
        except ProtocolError as error:
            raise ProtocolError(f"what answers on the agent's port is not the agent: {error.message}") from None

    async def _flush(self) -> None:
        """Send what TLS has to send."""
        data, framing = self._engine.outgoing(), self._dialled.framing
        if not data:
            return
        buffer = bytearray(framing.headroom) + data
        left = memoryview(bytes(framing.wrap(buffer, framing.headroom, len(buffer))))
        while left:
            try:
                left = left[self._dialled.transport.send(left) :]
            except BlockingIOError:
                await _ready(self._dialled, writing=True)


async def _ready(dialled: PortForward, *, writing: bool) -> None:
    loop, descriptor = asyncio.get_running_loop(), dialled.transport.fileno()
    ready = asyncio.Event()
    (loop.add_writer if writing else loop.add_reader)(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        (loop.remove_writer if writing else loop.remove_reader)(descriptor)
