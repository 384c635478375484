"""An access log service in a few lines: it keeps what Envoys send."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from envoy.service.accesslog.v3 import als_pb2, als_pb2_grpc


class AccessLogs(als_pb2_grpc.AccessLogServiceServicer):  # type: ignore[misc] # grpc has no types
    """``requests`` and ``connections`` are entries in the order in which they came."""

    def __init__(self) -> None:
        self.streams = 0
        self.messages = 0
        self.requests: list[Any] = []
        self.connections: list[Any] = []

    async def StreamAccessLogs(self, messages: AsyncIterator[Any], _context: Any) -> Any:  # noqa: N802 -- gRPC's name
        self.streams += 1
        async for message in messages:
            self.messages += 1
            self.requests += message.http_logs.log_entry
            self.connections += message.tcp_logs.log_entry
        return als_pb2.StreamAccessLogsResponse()
