"""gRPC for sidecars: ADS and access logs for Envoy, a stream of JSON for the agent; all by TLS, with certificates of
the agent's key.

Only who has a certificate of this manager's completes a handshake: a session has vouched for its key. What these send
is bounded all the same (message sizes, time for the first message, messages a second): whoever is in a pod is that pod.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Final

import grpc
from envoy.service.accesslog.v3 import als_pb2
from envoy.service.discovery.v3 import discovery_pb2

from meshdev.errors import ProtocolError
from meshdev.manager.control import access_logs, processing_time
from meshdev.manager.control.budget import Refused
from meshdev.manager.control.core import Core
from meshdev.manager.control.peers import peer_key
from meshdev.manager.control.places import MAX_OF_KEY, Place, PlaceLost, Places
from meshdev.manager.control.pods import Pod
from meshdev.manager.control.processing_time import ProcessingTime
from meshdev.manager.control.watches import MAX_PODS, Watches
from meshdev.manager.control.xds import MAX_NAME, MAX_NAMES, DiscoveryAnswer
from meshdev.manager.outbox import Outbox
from meshdev.rate import TokenBucket
from meshdev.sidecar.envoy.protos import ORDER
from meshdev.wire import agent
from meshdev.wire.access import AccessRecords
from meshdev.wire.agent import AgentHello, Consents, FromAgent, FromControl
from meshdev.wire.objects import for_people

log = logging.getLogger(__name__)

#: Time for the first message, in seconds.
FIRST_SECONDS: Final = 5.0
#: Streams and connections at once, two for each sidecar; and of those that are watched two of each kind of log, and two
#: more connections (one for each worker of Envoy). A connection takes 65 KiB with TLS.
MAX_STREAMS: Final = 2560 + 4 * MAX_PODS
MAX_CONNECTIONS: Final = 2560 + 2 * MAX_PODS
#: A write under way has so long to end when its stream does: a peer that reads nothing would hold its place.
WRITE_SECONDS: Final = 2.0
#: One without TLS and HTTP/2, or without a stream, is closed after these times.
HANDSHAKE_SECONDS: Final = 3.0
IDLE_SECONDS: Final = 10.0
#: Bytes of one message to us: the first request of an Envoy lists all its extensions (60 KiB).
MAX_RECEIVED: Final = agent.MAX_MESSAGE
#: Messages that one stream may bring in a second, and then at once: what is more is read later. An agent that is
#: watched brings 50 with records (wire/access.py).
_PER_SECOND: Final = 100.0
_BURST: Final = 200.0
#: The same of access logs: an entry that is too many is counted (watches.py), which costs less than keeping it.
_LOGS_PER_SECOND: Final = 200.0
#: Streams of logs of one key at once: one of each kind for each worker of an Envoy, and as many of the one before it.
_LOGS_OF_KEY: Final = 8
#: Without a log for so long, in seconds, such a stream is ended: Envoy makes another when it has one.
_LOG_SECONDS: Final = 15.0

OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_RECEIVED),
    ("grpc.max_metadata_size", 16 << 10),
    # Of one connection. A sidecar has one.
    ("grpc.max_concurrent_streams", 4),
    # A pod that vanished is noticed; one that asks often is not thrown out.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # the former counts only where the kernel answers nothing
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.so_reuseport", 0),
    ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
    ("grpc.server_handshake_timeout_ms", int(HANDSHAKE_SECONDS * 1000)),
    ("grpc.max_connection_idle_ms", int(IDLE_SECONDS * 1000)),
)
_ALS: Final = "envoy.service.accesslog.v3.AccessLogService"
_ADS: Final = "envoy.service.discovery.v3.AggregatedDiscoveryService"

Context = Any  # grpc.aio has no types


async def serve(core: Core, watches: Watches, address: str, credentials: grpc.ServerCredentials) -> tuple[Any, int]:
    """A server that runs, and its port. The caller stops it."""
    server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=MAX_STREAMS)
    places = Places(MAX_STREAMS // 2, core.named)
    envoys = grpc.stream_stream_rpc_method_handler(
        _EnvoyStreams(core, places).stream, _parse_request, discovery_pb2.DiscoveryResponse.SerializeToString
    )
    clock = asyncio.get_running_loop().time
    busy = ProcessingTime(clock, time.thread_time, processing_time.SHARE_OF_POD, processing_time.SHARE_OF_ALL)
    agents = grpc.stream_stream_rpc_method_handler(_AgentStreams(core, places, watches, busy).session)
    logs = grpc.stream_unary_rpc_method_handler(
        _LogStreams(core, places, watches, busy).stream, None, als_pb2.StreamAccessLogsResponse.SerializeToString
    )
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(_ADS, {"StreamAggregatedResources": envoys}),
            grpc.method_handlers_generic_handler(_ALS, {"StreamAccessLogs": logs}),
            grpc.method_handlers_generic_handler(agent.SERVICE, {"Session": agents}),
        )
    )
    port = server.add_secure_port(address, credentials)
    await server.start()
    return server, port


async def _admit(core: Core, context: Context) -> tuple[str, IPv4Address]:
    """The key and address of a peer that a session vouches for; ends the call of one for which none does any more."""
    key, address = peer_key(context.auth_context()), _address(context.peer())
    if key is None or key not in core.named():
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "no session of this manager vouches for this key")
    if address is None:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "this needs an IPv4 address")
    return key, address  # type: ignore[return-value] # abort raises


@contextlib.asynccontextmanager
async def _placed(
    places: Places, kind: str, key: str, context: Context, most: int = MAX_OF_KEY
) -> AsyncIterator[Place]:
    """A place as long as the block; ends the call where there is none, or none any more."""
    try:
        async with places.take(kind, key, most) as place:
            yield place
    except PlaceLost as lost:
        await context.abort(grpc.StatusCode.ABORTED, str(lost))
    except _TakesNothing:
        raise asyncio.CancelledError from None


@dataclass(frozen=True)
class _DiscoveryRequest:
    """What counts of a DiscoveryRequest. All else is not kept: an Envoy's first one is long."""

    node: str
    kind: str
    names: frozenset[str]
    nonce: str
    error: str | None
    has_resources: bool


def _parse_request(data: bytes) -> _DiscoveryRequest:
    request = discovery_pb2.DiscoveryRequest.FromString(data)
    names = request.resource_names[: MAX_NAMES + 1]
    return _DiscoveryRequest(
        node=for_people(request.node.id, 63),
        kind=next((kind for kind in ORDER if kind == request.type_url), ""),
        names=frozenset(name for name in names if len(name) <= MAX_NAME and name.isascii()),
        nonce=request.response_nonce[:63],
        error=for_people(request.error_detail.message) if request.HasField("error_detail") else None,
        has_resources=bool(request.version_info),
    )


class _EnvoyStreams:
    def __init__(self, core: Core, places: Places) -> None:
        self._core = core
        self._places = places

    async def stream(self, requests: AsyncIterator[_DiscoveryRequest], context: Context) -> None:
        """One Envoy, from its first request to the end of its stream."""
        key, _ = await _admit(self._core, context)
        async with _placed(self._places, "envoy", key, context) as place:
            await self._follow(key, place, requests, context)

    async def _follow(
        self, key: str, place: Place, requests: AsyncIterator[_DiscoveryRequest], context: Context
    ) -> None:
        first = await _first(requests, context)
        uid, has_resources, outgoing = first.node, first.has_resources, Outbox[Any]()
        paced = _paced(requests, first)
        del first
        self._places.begin(place)

        def send(answers: list[DiscoveryAnswer]) -> None:
            for answer in answers:
                outgoing.put(answer.kind, answer)

        try:
            pod, stream = self._core.envoy_connected(key, uid, send, has_resources=has_resources)
        except Refused as refused:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(refused))
        try:
            async with _written(outgoing, context, _response, place):
                async for request in paced:
                    self._core.envoy_requested(key, stream, request.kind, len(request.names))
                    send(stream.on_request(request.kind, request.names, request.nonce, request.error))
                    if request.error is not None:
                        log.warning("the Envoy of pod %s refuses: %s", uid, request.error[:500])
                    self._core.envoy_progressed(key, pod)
        except Refused as refused:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(refused))
        finally:
            self._core.envoy_disconnected(key, uid, pod, stream)


class _LogStreams:
    def __init__(self, core: Core, places: Places, watches: Watches, busy: ProcessingTime) -> None:
        self._core = core
        self._places = places
        self._watches = watches
        self._busy = busy

    async def stream(self, messages: AsyncIterator[bytes], context: Context) -> Any:  # noqa: ANN401 -- protobuf
        """What one worker of an Envoy logs, as long as somebody watches its pod."""
        key, _ = await _admit(self._core, context)
        async with _placed(self._places, "logs", key, context, _LOGS_OF_KEY):
            await self._follow(key, _paced(messages, per_second=_LOGS_PER_SECOND))
        return als_pb2.StreamAccessLogsResponse()

    async def _follow(self, key: str, paced: AsyncIterator[bytes]) -> None:
        wanted = self._watches.is_watched(key)
        with contextlib.suppress(TimeoutError, StopAsyncIteration):
            while wanted:
                async with asyncio.timeout(_LOG_SECONDS):
                    data = await anext(paced)
                with self._busy.of(key):
                    wanted = self._watches.logged(key, access_logs.parse(data))
                del data  # as long as it waits
                await asyncio.sleep(self._busy.wait(key))  # gRPC's flow control holds the sender then


class _AgentStreams:
    def __init__(self, core: Core, places: Places, watches: Watches, busy: ProcessingTime) -> None:
        self._core = core
        self._places = places
        self._watches = watches
        self._busy = busy
        clock, spent = asyncio.get_running_loop().time, time.thread_time
        self._reading = ProcessingTime(clock, spent, processing_time.READING_OF_POD, processing_time.READING_OF_ALL)
        self._current: dict[tuple[str, str], object] = {}

    async def session(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """One agent, from its hello to the end of its stream."""
        key, address = await _admit(self._core, context)
        try:
            async with _placed(self._places, "agent", key, context) as place:
                await self._follow(key, address, place, requests, context)
        except ProtocolError as error:
            log.warning("an agent at %s is ended: %s", context.peer(), error.message)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)

    async def _follow(
        self, key: str, address: IPv4Address, place: Place, requests: AsyncIterator[bytes], context: Context
    ) -> None:
        hello = agent.decode_from_agent(await _first(requests, context))
        if not isinstance(hello, AgentHello):
            raise ProtocolError("the first message is not hello")
        self._places.begin(place)
        outgoing = Outbox[Any]()

        def send(message: FromControl) -> None:
            outgoing.put(type(message).__name__, message)

        try:
            pod = self._core.agent_connected(key, address, hello, send)
        except Refused as refused:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(refused))
        uid, who = hello.uid, f"{hello.namespace}/{hello.pod}"
        watched = self._watches.agent(key, send) if hello.records else contextlib.nullcontext()
        del hello  # the pod keeps the newest; one stream of many does not
        mine = self._current[key, uid] = object()
        log.info("the agent of pod %s is there", who)
        try:
            async with _written(outgoing, context, agent.encode, place):
                with watched:
                    async for data in _paced(requests):
                        with self._reading.of(key):
                            message = agent.decode_from_agent(data)
                        del data  # as long as nothing follows
                        if isinstance(message, AgentHello):
                            raise ProtocolError("a second hello")
                        if self._current.get((key, uid)) is not mine:
                            break  # the same pod's newer stream counts
                        if isinstance(message, AccessRecords):
                            self._recorded(key, message)
                        else:
                            self._reported(key, uid, pod, message)
                        del message
                        await asyncio.sleep(self._reading.wait(key))
        except Refused as refused:
            log.warning("the agent of pod %s is ended: %s", who, refused)
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(refused))
        finally:
            if self._current.get((key, uid)) is mine:
                del self._current[key, uid]
                log.info("the agent of pod %s is gone", who)
                self._core.agent_disconnected(key, uid, pod)

    def _reported(self, key: str, uid: str, pod: Pod, message: FromAgent) -> None:
        """Raises Refused."""
        self._core.agent_reported(key, uid, pod, message)
        if isinstance(message, Consents):
            self._watches.refresh()

    def _recorded(self, key: str, records: AccessRecords) -> None:
        """Where that took too long already they are only counted: the agent's states come on the same stream."""
        if self._busy.wait(key):
            records = AccessRecords((), records.dropped + len(records.records))
        with self._busy.of(key):
            self._watches.recorded(key, records)


def _address(peer: str) -> IPv4Address | None:
    """The address in ``ipv4:10.244.0.7:41234``."""
    kind, _, rest = peer.partition(":")
    try:
        return IPv4Address(rest.rpartition(":")[0]) if kind == "ipv4" else None
    except ValueError:
        return None


async def _first(requests: AsyncIterator[Any], context: Context) -> Any:  # noqa: ANN401 -- protobuf or bytes
    try:
        async with asyncio.timeout(FIRST_SECONDS):
            return await anext(requests)
    except (TimeoutError, StopAsyncIteration):
        await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, f"no message within {FIRST_SECONDS:.0f} seconds")


async def _paced(
    requests: AsyncIterator[Any],
    *first: Any,  # noqa: ANN401 -- protobuf has no types
    per_second: float = _PER_SECOND,
) -> AsyncIterator[Any]:
    """*first*, then what comes, no faster than it may: gRPC's flow control holds the sender then."""
    clock = asyncio.get_running_loop().time
    rate = TokenBucket(per_second, _BURST, clock())
    for each in first:
        yield each
        del each
    first = ()
    async for request in requests:
        if seconds := rate.delay(clock()):
            await asyncio.sleep(seconds)
        yield request
        del request  # nothing of it is kept while the next is awaited


def _response(answer: DiscoveryAnswer) -> Any:  # noqa: ANN401 -- protobuf has no types
    return discovery_pb2.DiscoveryResponse(
        version_info=answer.version, resources=answer.resources, type_url=answer.kind, nonce=answer.nonce
    )


class _TakesNothing(Exception):  # noqa: N818 -- an answer, not a fault
    """The peer reads nothing, and cannot be sent a status either: gRPC keeps the call until its connection ends."""


async def _write(outgoing: Outbox[Any], context: Context, form: Callable[[Any], Any]) -> None:
    """Until None is its turn."""
    while (message := await outgoing.get()) is not None:
        await context.write(form(message))


@contextlib.asynccontextmanager
async def _written(
    outgoing: Outbox[Any], context: Context, form: Callable[[Any], Any], place: Place
) -> AsyncIterator[None]:
    """What comes into *outgoing* is written as long as the block.

    A write that is under way ends by itself: cancelled, it would still be gRPC's, which then takes no status any more
    (GRPC_CALL_ERROR_TOO_MANY_OPERATIONS), and the peer would never learn that its stream has ended. It has
    WRITE_SECONDS for that. Raises _TakesNothing.
    """
    task = asyncio.ensure_future(_write(outgoing, context, form))
    task.add_done_callback(lambda done: done.cancelled() or done.exception())  # of no interest where nobody waits
    try:
        yield
    finally:
        outgoing.clear()
        outgoing.put(None, None)
        await asyncio.wait([task], timeout=WRITE_SECONDS)
        if not task.done():
            place.writes = task
            raise _TakesNothing
        with contextlib.suppress(grpc.RpcError, grpc.aio.BaseError):
            task.result()
