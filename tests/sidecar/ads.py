"""A management server in a few lines: one snapshot for whoever comes, and what Envoy says to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2

from meshdev.sidecar.envoy import protos
from meshdev.sidecar.envoy.resources import Resources
from meshdev.wire.agent import METADATA_KEY


class Ads(ads_pb2_grpc.AggregatedDiscoveryServiceServicer):  # type: ignore[misc] # grpc has no types
    """Serves what :meth:`serve` was given last; that returns when Envoy has taken all of it."""

    def __init__(self) -> None:
        self.port = 0
        self.tokens: list[str] = []
        self._packed: protos.Packed = {kind: {} for kind in protos.ORDER}
        self._streams: set[_Stream] = set()
        self._server: Any = None

    def register(self, server: Any) -> None:
        """Serve there."""
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(self, server)

    async def start(self) -> None:
        self._server = grpc.aio.server()
        self.register(self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(0)

    async def serve(self, resources: Resources) -> None:
        """Raises AssertionError with Envoy's words when it refuses."""
        self._packed = protos.packed(resources)
        for stream in self._streams:
            stream.push()
        await asyncio.gather(*(stream.settled() for stream in self._streams))

    @property
    def connected(self) -> bool:
        return bool(self._streams)

    async def StreamAggregatedResources(  # noqa: N802 -- gRPC's name
        self, requests: AsyncIterator[Any], context: Any
    ) -> AsyncIterator[Any]:
        metadata = dict(context.invocation_metadata())
        self.tokens.append(metadata.get(METADATA_KEY, ""))
        stream = _Stream(self)
        self._streams.add(stream)
        reader = asyncio.ensure_future(stream.read(requests))
        try:
            while True:
                yield await stream.answers.get()
        finally:
            reader.cancel()
            self._streams.discard(stream)

    def resources(self, kind: str, names: frozenset[str]) -> list[Any]:
        found = self._packed[kind]
        return [found[name] for name in sorted(found) if not names or name in names]


class _Stream:
    def __init__(self, ads: Ads) -> None:
        self.answers: asyncio.Queue[Any] = asyncio.Queue()
        self._ads = ads
        self._asked: dict[str, frozenset[str]] = {}
        self._sent: dict[str, object] = {}
        self._open: dict[str, str] = {}
        self._nonce = 0
        self._news = asyncio.Condition()
        self._refused = ""

    async def read(self, requests: AsyncIterator[Any]) -> None:
        async for request in requests:
            kind = request.type_url
            async with self._news:
                if self._open.get(kind) == request.response_nonce:
                    self._open.pop(kind, None)
                    if request.HasField("error_detail"):
                        self._refused = request.error_detail.message
                self._news.notify_all()
            names = frozenset(request.resource_names)
            if self._asked.get(kind) != names:
                self._asked[kind] = names
                self._push(kind)

    def push(self) -> None:
        for kind in protos.ORDER:
            if kind in self._asked:
                self._push(kind)

    def _push(self, kind: str) -> None:
        found = self._ads.resources(kind, self._asked[kind])
        wildcard = kind in {protos.CLUSTERS, protos.LISTENERS}
        if self._sent.get(kind) == (found, self._asked[kind]) or not (found or wildcard):
            return
        self._sent[kind] = (found, self._asked[kind])
        self._nonce += 1
        self._open[kind] = str(self._nonce)
        self.answers.put_nowait(
            discovery_pb2.DiscoveryResponse(
                version_info=str(self._nonce), resources=found, type_url=kind, nonce=str(self._nonce)
            )
        )

    async def settled(self) -> None:
        """Everything is acknowledged, and what is named was asked for and answered."""

        def wanted() -> set[str]:
            return {name for kind in (protos.ENDPOINTS, protos.ROUTES) for name in self._ads._packed[kind]}

        def complete() -> bool:
            if self._refused:
                return True
            asked = set().union(*self._asked.values())
            return not self._open and wanted() <= asked

        async with asyncio.timeout(20), self._news:
            await self._news.wait_for(complete)
        assert not self._refused, self._refused
