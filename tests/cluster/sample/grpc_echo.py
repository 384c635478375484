"""A gRPC echo without generated code: messages are bytes as they are.

`/sample.Echo/Unary` answers the message, `/sample.Echo/Stream` each message of a bidirectional stream,
`/sample.Echo/Request` the call's metadata as JSON. The service's name is in the initial metadata (`name`).
"""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

SERVICE = "sample.Echo"
_THREADS = 64


class GrpcServer:
    """Serves on PORT until drained."""

    def __init__(self, port: int, name: str) -> None:
        import grpc  # noqa: PLC0415 (only this service needs it)

        self._server = grpc.server(ThreadPoolExecutor(_THREADS))
        handlers = {
            "Unary": grpc.unary_unary_rpc_method_handler(_named(_unary, name)),
            "Stream": grpc.stream_stream_rpc_method_handler(_named(_stream, name)),
            "Request": grpc.unary_unary_rpc_method_handler(_named(_describe, name)),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        self._server.add_insecure_port(f"[::]:{port}")
        self._server.start()

    def drain(self, seconds: float) -> None:
        """Refuse new calls; running ones may take so long."""
        self._stopped = self._server.stop(seconds)

    def wait(self) -> None:
        """Until it is drained."""
        self._stopped.wait()


def _named(behaviour: Any, name: str) -> Any:
    def call(request: Any, context: Any) -> Any:
        context.send_initial_metadata((("name", name),))
        return behaviour(request, context)

    return call


def _unary(request: bytes, _: Any) -> bytes:
    return request


def _stream(requests: Iterator[bytes], _: Any) -> Iterator[bytes]:
    yield from requests


def _describe(_: bytes, context: Any) -> bytes:
    return json.dumps([[str(key), str(value)] for key, value in context.invocation_metadata()]).encode()
