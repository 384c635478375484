"""Secret discovery (SDS) for our Envoy: its private key, certificate and trust anchor, over a unix socket.

The key goes from this process's memory into Envoy's, never into a file. Nothing is answered before there is something
to answer; Envoy then waits with what needs it (sidecar.envoy.tls). Protocol: state of the world, one stream for each
secret (https://www.envoyproxy.io/docs/envoy/latest/configuration/security/secret).
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from meshdev.errors import ClusterError, ProtocolError
from meshdev.identity.tls import pem
from meshdev.sidecar.envoy import sds
from meshdev.sidecar.envoy.tls import AUTHORITY, IDENTITY

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Secrets:
    """What Envoy shows and trusts: its key (PEM), its certificate and the manager's (DER)."""

    private_key: bytes = field(repr=False)
    certificate: bytes
    authority: bytes


class SecretServer:
    """Answers with what :meth:`set` was given last."""

    def __init__(self) -> None:
        self._resources: dict[str, bytes] = {}
        self._version = 0
        self._streams: set[_Stream] = set()

    def set(self, secrets: Secrets) -> None:
        """Push them to Envoy, now and to whichever comes later. What is the same is not pushed again."""
        resources = _resources(secrets)
        if resources == self._resources:
            return
        self._resources = resources
        self._version += 1
        for stream in self._streams:
            stream.news.set()

    @property
    def subscribed(self) -> frozenset[str]:
        """The names that Envoy has asked for, on streams that are open."""
        return frozenset[str]().union(*(stream.names for stream in self._streams))

    @asynccontextmanager
    async def serving(self, path: Path) -> AsyncIterator[None]:
        """Serve on a unix socket at *path*, whose folder nobody else may enter. Raises ClusterError."""
        server = grpc.aio.server()
        handler = grpc.stream_stream_rpc_method_handler(self._serve)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(sds.SERVICE, {sds.METHOD: handler}),))
        try:
            _listen(server, path)
            await server.start()
        except (OSError, RuntimeError) as error:  # gRPC raises the latter
            raise ClusterError(f"Envoy's secrets cannot be served on {path}: {error}") from error
        try:
            yield
        finally:
            await server.stop(None)

    async def _serve(self, requests: AsyncIterator[bytes], _context: object) -> AsyncIterator[bytes]:
        """One stream of an Envoy."""
        stream = _Stream()
        self._streams.add(stream)
        reading = asyncio.ensure_future(stream.read(requests))
        try:
            while not stream.ended:
                stream.news.clear()
                if (answer := stream.answer(self._version, self._resources)) is not None:
                    yield answer
                await stream.news.wait()
        finally:
            reading.cancel()
            self._streams.discard(stream)


def _listen(server: Any, path: Path) -> None:  # noqa: ANN401 -- grpc has no types
    server.add_insecure_port(f"unix:{path}")
    path.chmod(0o600)


class _Stream:
    """What an Envoy asks for on one stream, and has been sent."""

    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.ended = False
        self.names: frozenset[str] = frozenset()
        self._sent: tuple[int, frozenset[str]] = (0, frozenset())

    async def read(self, requests: AsyncIterator[bytes]) -> None:
        try:
            async for data in requests:
                self._take(sds.decode_request(data))
        except ProtocolError as error:
            log.error("%s", error.message)  # noqa: TRY400 -- the sentence says it
        self.ended = True
        self.news.set()

    def _take(self, request: sds.SecretRequest) -> None:
        self.names = request.names
        if request.refused:
            # Without its words, which may quote what it refuses, and without the name: it refuses the one that came
            # last, whichever of them is bad.
            log.error("Envoy refused its key and certificates")
        self.news.set()

    def answer(self, version: int, resources: dict[str, bytes]) -> bytes | None:
        """What is to be sent now; an acknowledgement repeats the names, and is not answered."""
        now = (version, self.names & resources.keys())
        if not now[1] or now == self._sent:
            return None
        self._sent = now
        return sds.encode_answer(str(version), [resources[name] for name in sorted(now[1])])


def _resources(secrets: Secrets) -> dict[str, bytes]:
    return {
        IDENTITY: sds.tls_certificate(IDENTITY, pem(secrets.certificate).encode(), secrets.private_key),
        AUTHORITY: sds.validation_context(AUTHORITY, pem(secrets.authority).encode()),
    }
