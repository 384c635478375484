"""A management server in a few lines: one goal for whoever comes, told by the manager's own state machine."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import grpc
from envoy.service.accesslog.v3 import als_pb2_grpc
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

from meshdev.manager.control.xds import AdsStream, DiscoveryAnswer
from meshdev.sidecar.envoy import protos
from meshdev.sidecar.envoy.resources import Resources
from tests.sidecar.access_logs import AccessLogs


class Ads(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):  # type: ignore[misc] # grpc has no types
    """Serves what :meth:`serve` was given last; that returns when Envoy has taken all of it."""

    def __init__(self, credentials: Any, place: Callable[[], AbstractContextManager[None]] = nullcontext) -> None:
        self._place = place
        self.port = 0
        self.logs = AccessLogs()
        self.peers: list[bytes] = []
        """By stream, the certificate of its Envoy."""
        self.first_versions: list[str] = []
        """By stream, what its Envoy said that it has already."""
        self._goal: protos.Packed | None = None
        self._streams: dict[AdsStream, asyncio.Queue[DiscoveryAnswer]] = {}
        self._news = asyncio.Condition()
        self._server: Any = None
        self._credentials = credentials

    def register(self, server: Any) -> None:
        """Serve there."""
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(self, server)
        als_pb2_grpc.add_AccessLogServiceServicer_to_server(self.logs, server)

    async def start(self) -> None:
        self._server = grpc.aio.server()
        self.register(self._server)
        with self._place():
            self.port = self._server.add_secure_port(f"127.0.0.1:{self.port}", self._credentials)
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(0)

    async def serve(self, resources: Resources) -> None:
        """Raises AssertionError with Envoy's words when it refuses."""
        self._goal = protos.packed(resources)
        for stream, answers in self._streams.items():
            for answer in stream.aim(self._goal):
                answers.put_nowait(answer)
        async with asyncio.timeout(20), self._news:
            await self._news.wait_for(lambda: all(each.settled or each.refused for each in self._streams))
        refused = [each.refused for each in self._streams if each.refused]
        assert refused == [], refused

    def forget(self) -> None:
        """Serve nothing to whoever comes, until the next :meth:`serve`."""
        self._goal = None

    @property
    def connected(self) -> bool:
        return bool(self._streams)

    async def StreamAggregatedResources(  # noqa: N802 -- gRPC's name
        self, requests: AsyncIterator[Any], context: Any
    ) -> AsyncIterator[Any]:
        self.peers += [ssl.PEM_cert_to_DER_cert(each.decode()) for each in context.auth_context()["x509_pem_cert"]]
        stream = AdsStream()
        answers = self._streams[stream] = asyncio.Queue()
        if self._goal is not None:
            stream.aim(self._goal)
        reader = asyncio.ensure_future(self._read(stream, requests))
        try:
            while True:
                answer = await answers.get()
                yield discovery_pb2.DiscoveryResponse(
                    version_info=answer.version,
                    resources=answer.resources,
                    type_url=answer.kind,
                    nonce=answer.nonce,
                )
        finally:
            reader.cancel()
            self._streams.pop(stream, None)

    async def _read(self, stream: AdsStream, requests: AsyncIterator[Any]) -> None:
        first = True
        async for request in requests:
            if first:
                self.first_versions.append(request.version_info)
                first = False
            error = request.error_detail.message if request.HasField("error_detail") else None
            heard = stream.on_request(
                request.type_url, frozenset(request.resource_names), request.response_nonce, error
            )
            for answer in heard:
                self._streams[stream].put_nowait(answer)
            async with self._news:
                self._news.notify_all()
