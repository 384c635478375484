"""The agent's end of attestation: a TLS server on 127.0.0.1, with a key that only this process has.

Who can connect to 127.0.0.1 in a pod is in that pod, or may open port-forwards to it; both may speak for it
(docs/security.md). The certificate's fingerprint is announced in the log, so a session knows whom it speaks to.
"""

import asyncio
import contextlib
import logging
import random
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Final

from meshdev.errors import ClusterError, MeshdevError, ProtocolError
from meshdev.identity.edges import claim_proof
from meshdev.identity.engine import TlsEngine
from meshdev.identity.fingerprints import fingerprint
from meshdev.identity.tls import load_identity
from meshdev.sidecar.agent.trust import AgentIdentity
from meshdev.wire import attestation
from meshdev.wire.attestation import (
    CHOSEN_PORTS,
    MAX_LINE,
    VERSION,
    AgentAnnouncement,
    AttestRefusal,
    AttestRequest,
    FromAttestedAgent,
    FromSession,
    IssuedCapability,
    ManagerOffer,
)
from meshdev.wire.jsonlines import LineSplitter

log = logging.getLogger(__name__)

#: Connections at once; one more ends the oldest, so that whoever holds them all keeps nobody out.
MAX_CONNECTIONS: Final = 16
#: Time for a whole attestation, in seconds.
ATTEST_SECONDS: Final = 5.0
_READ: Final = 16 << 10


class AttestationListener:
    """Listens as soon as it is made; :meth:`serving` answers."""

    def __init__(self, uid: str, identity: AgentIdentity, assigned: int = 0) -> None:
        """For the pod with that *uid*, on the *assigned* port or on another where it is taken, or 0.

        Raises ClusterError where no port is free.
        """
        self._uid = uid
        self._identity = identity
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.num_tickets = 0
        load_identity(self._context, identity.key.private_pem, [identity.key.certificate])
        self._sock = _listening(assigned)
        self.announcement: Final = AgentAnnouncement(self._sock.getsockname()[1], fingerprint(identity.key.certificate))
        self._open: dict[asyncio.Task[None], None] = {}

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Answered inside, and capabilities lapse; nobody listens afterwards."""
        server = await asyncio.start_server(self._accepted, sock=self._sock, limit=_READ)
        lapsing = asyncio.ensure_future(self._lapse())
        try:
            yield
        finally:
            lapsing.cancel()
            server.close()
            for task in self._open:
                task.cancel()

    async def _lapse(self) -> None:
        while True:
            seconds = self._identity.capabilities.lapse()
            await asyncio.sleep(seconds)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- asyncio calls it in a task of its own
        while len(self._open) >= MAX_CONNECTIONS:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.cancel()
        self._open[task] = None
        try:
            async with asyncio.timeout(ATTEST_SECONDS):
                await self._attest(_SessionConnection(reader, writer, self._context))
        except (OSError, MeshdevError, asyncio.CancelledError):
            pass  # TimeoutError is an OSError; whoever breaks the protocol gets no answer
        finally:
            self._open.pop(task, None)
            writer.close()

    async def _attest(self, channel: "_SessionConnection") -> None:
        request = await channel.receive()
        if not isinstance(request, AttestRequest):
            raise ProtocolError("a session did not begin with attest")
        if refusal := self._refusal(request):
            await channel.send(AttestRefusal(refusal))
            return
        capability = self._identity.capabilities.issue()
        kept = False
        try:
            await channel.send(IssuedCapability(capability.hex(), self._identity.key.request))
            offer = await channel.receive()
            if isinstance(offer, ManagerOffer):
                verdict = self._identity.consider(offer, capability)
                kept = verdict.accepted
                await channel.send(verdict)
        finally:
            if not kept:
                self._identity.capabilities.withdraw(claim_proof(capability))

    def _refusal(self, request: AttestRequest) -> str:
        if request.version != VERSION:
            return f"this sidecar is attested by version {VERSION} of the protocol, not {request.version}"
        return "this is not the pod that was asked for" if request.uid != self._uid else ""


class _SessionConnection:
    """Messages of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext) -> None:
        self._reader, self._writer = reader, writer
        self._engine = TlsEngine(context, server_side=True)
        self._splitter = LineSplitter(MAX_LINE)
        self._lines: list[bytes] = []

    async def receive(self) -> FromSession:
        """The next message. Raises ProtocolError, also at the end, and OSError."""
        while not self._lines:
            data = b"" if self._engine.ended else await self._reader.read(_READ)
            if not data:
                raise ProtocolError("a session ended too early")
            try:
                self._lines += self._splitter.feed(self._engine.receive(data))
            finally:  # what TLS has to say, or why it failed
                self._writer.write(self._engine.outgoing())
            await self._writer.drain()
        return attestation.decode_from_session(self._lines.pop(0))

    async def send(self, message: FromAttestedAgent) -> None:
        """Send *message*. Raises OSError."""
        self._engine.send(attestation.encode(message))
        self._writer.write(self._engine.outgoing())
        await self._writer.drain()


def _listening(assigned: int) -> socket.socket:
    """On the first that is free: *assigned*, one of :data:`CHOSEN_PORTS`, one of the kernel's choice."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    trouble: OSError | None = None
    for port in (*([assigned] if assigned else []), *random.sample(CHOSEN_PORTS, len(CHOSEN_PORTS)), 0):
        try:
            sock.bind(("127.0.0.1", port))
            sock.listen(MAX_CONNECTIONS)
        except OSError as error:
            trouble = error
        else:
            return sock
    sock.close()
    raise ClusterError(f"no port of 127.0.0.1 can be listened on: {trouble}")
