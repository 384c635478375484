"""gRPC for sidecars: ADS for Envoy, a stream of JSON for the agent; both bring the token of their agent.

Without one nothing is answered. What unauthenticated peers send is bounded: message sizes, time for the
first message, messages a second, sidecars that nobody claims.
"""

import asyncio
import contextlib
import hashlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Final

import grpc
from envoy.service.discovery.v3 import discovery_pb2

from meshdev.errors import ProtocolError
from meshdev.manager.control.budget import Refused
from meshdev.manager.control.core import MAX_WAITING, Core
from meshdev.manager.control.xds import MAX_NAME, MAX_NAMES, DiscoveryAnswer
from meshdev.manager.outbox import Outbox
from meshdev.manager.rate import TokenBucket
from meshdev.sidecar.envoy.protos import ORDER
from meshdev.wire import agent
from meshdev.wire.agent import AgentHello, Listen, State
from meshdev.wire.objects import for_people

log = logging.getLogger(__name__)

#: Time for the first message, in seconds.
FIRST_SECONDS: Final = 5.0
#: Streams at once, two for each sidecar.
MAX_STREAMS: Final = 4096
#: Of them those of keys that no session claims: any text is such a key. Two for each sidecar that waits.
MAX_UNCLAIMED_STREAMS: Final = 2 * MAX_WAITING + 64
#: Connections at once; one takes 20 KiB. One without HTTP/2, or without a stream, is closed after the other times.
MAX_CONNECTIONS: Final = 4096
HANDSHAKE_SECONDS: Final = 5.0
IDLE_SECONDS: Final = 10.0
#: Bytes of one message to us: the first request of an Envoy lists all its extensions (60 KiB).
MAX_RECEIVED: Final = agent.MAX_MESSAGE
#: The same of a sidecar that no session claims, and entries of it. Any text is the token of one, and MAX_WAITING states
#: of the size that a claimed one may have (2.3 MB each once read) do not fit into the container's memory.
MAX_UNCLAIMED: Final = 256 << 10
MAX_UNCLAIMED_INTERCEPTS: Final = 1024
MAX_UNCLAIMED_ENTRIES: Final = 256
#: Messages that one stream may bring in a second, and then at once: what is more is read later.
_PER_SECOND: Final = 50.0
_BURST: Final = 200.0
#: What an agent of an earlier version logs.
FORMER: Final = (
    "this sidecar is of an earlier version of meshdev than the manager, and exits within a minute: the next intercept"
    " brings a new one (one in a template is removed by `meshdev leave`)"
)
_MIN_TOKEN: Final = 16
_MAX_TOKEN: Final = 512

OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_RECEIVED),
    ("grpc.max_metadata_size", 16 << 10),
    ("grpc.max_concurrent_streams", 16),
    # A pod that vanished is noticed; one that asks often is not thrown out.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.so_reuseport", 0),
    ("grpc.max_allowed_incoming_connections", MAX_CONNECTIONS),
    ("grpc.server_handshake_timeout_ms", int(HANDSHAKE_SECONDS * 1000)),
    ("grpc.max_connection_idle_ms", int(IDLE_SECONDS * 1000)),
)
_ADS: Final = "envoy.service.discovery.v3.AggregatedDiscoveryService"

Context = Any  # grpc.aio has no types


async def serve(core: Core, address: str) -> tuple[Any, int]:
    """A server that runs, and its port. The caller stops it."""
    server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=MAX_STREAMS)
    gate = _Gate(core)
    envoys = grpc.stream_stream_rpc_method_handler(
        _Envoys(core, gate).stream, _parse_request, discovery_pb2.DiscoveryResponse.SerializeToString
    )
    agents = grpc.stream_stream_rpc_method_handler(_Agents(core, gate).session)
    former_agents = grpc.stream_stream_rpc_method_handler(_refuse_former)
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(_ADS, {"StreamAggregatedResources": envoys}),
            grpc.method_handlers_generic_handler(agent.SERVICE, {"Session": agents}),
            grpc.method_handlers_generic_handler(agent.FORMER_SERVICE, {"Session": former_agents}),
        )
    )
    port = server.add_insecure_port(address)
    await server.start()
    return server, port


async def _refuse_former(_: AsyncIterator[bytes], context: Context) -> None:
    """An agent that hears nothing of the manager but this exits by itself, within a minute."""
    await _authenticated(context)
    await context.abort(grpc.StatusCode.FAILED_PRECONDITION, FORMER)


class _Gate:
    """Who may come in."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._streams: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def admitted(self, context: Context) -> AsyncIterator[tuple[str, IPv4Address]]:
        """The key and address of whoever brings a token, as long as the block; ends the call of whoever does not."""
        key, address = await _authenticated(context)
        claimed = self._core.claimed()
        if (
            key not in claimed
            and sum(self._streams[one] for one in self._streams.keys() - claimed) >= MAX_UNCLAIMED_STREAMS
        ):
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the manager takes no more sidecars")
        self._streams[key] += 1
        try:
            yield key, address
        finally:
            self._streams[key] -= 1
            if not self._streams[key]:
                del self._streams[key]


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


class _Envoys:
    def __init__(self, core: Core, gate: _Gate) -> None:
        self._core = core
        self._gate = gate

    async def stream(self, requests: AsyncIterator[_DiscoveryRequest], context: Context) -> None:
        """One Envoy, from its first request to the end of its stream."""
        async with self._gate.admitted(context) as (key, address):
            first = await _first(requests, context)
            uid, has_resources, outgoing = first.node, first.has_resources, Outbox[Any]()
            paced = _paced(requests, first)
            del first

            def send(answers: list[DiscoveryAnswer]) -> None:
                for answer in answers:
                    outgoing.put(answer.kind, answer)

            try:
                pod, stream = self._core.envoy_connected(key, uid, address, send, has_resources=has_resources)
            except Refused as refused:
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(refused))
            try:
                async with _written(outgoing, context, _response):
                    async for request in paced:
                        self._core.envoy_requested(key, stream, request.kind, len(request.names))
                        send(stream.on_request(request.kind, request.names, request.nonce, request.error))
                        if request.error is not None:
                            log.warning("the Envoy of pod %s refuses: %s", uid, request.error[:500])
                        self._core.envoy_progressed(key, pod)
            except Refused as refused:
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(refused))
            finally:
                self._core.envoy_disconnected(key, uid, address, pod, stream)


class _Agents:
    def __init__(self, core: Core, gate: _Gate) -> None:
        self._core = core
        self._gate = gate
        self._current: dict[tuple[str, str], object] = {}

    async def session(self, requests: AsyncIterator[bytes], context: Context) -> None:
        """One agent, from its hello to the end of its stream."""
        async with self._gate.admitted(context) as (key, _):
            try:
                await self._follow(key, requests, context)
            except ProtocolError as error:
                log.warning("an agent at %s is ended: %s", context.peer(), error.message)
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.message)

    def _read(self, key: str, data: bytes) -> AgentHello | Listen | State:
        claimed = key in self._core.claimed()
        if not claimed and len(data) > MAX_UNCLAIMED:
            raise ProtocolError(f"a message of a sidecar that no session claims has {len(data):,} bytes")
        message = agent.decode_from_agent(data)
        if not claimed and _is_large(message):
            raise ProtocolError("a message of a sidecar that no session claims has too many entries")
        return message

    async def _follow(self, key: str, requests: AsyncIterator[bytes], context: Context) -> None:
        hello = self._read(key, await _first(requests, context))
        if not isinstance(hello, AgentHello):
            raise ProtocolError("the first message is not hello")
        outgoing = Outbox[Any]()
        try:
            pod = self._core.agent_connected(key, hello, lambda message: outgoing.put(type(message).__name__, message))
        except Refused as refused:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(refused))
        uid, who = hello.uid, f"{hello.namespace}/{hello.pod}"
        del hello  # the pod keeps the newest; one stream of many does not
        mine = self._current[key, uid] = object()
        log.info("the agent of pod %s is there", who)
        try:
            async with _written(outgoing, context, agent.encode):
                async for data in _paced(requests):
                    message = self._read(key, data)
                    del data  # as long as nothing follows
                    if isinstance(message, AgentHello):
                        raise ProtocolError("a second hello")
                    if self._current.get((key, uid)) is not mine:
                        break  # the same pod's newer stream counts
                    self._core.agent_reported(key, uid, pod, message)
                    del message
        except Refused as refused:
            log.warning("the agent of pod %s is ended: %s", who, refused)
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(refused))
        finally:
            if self._current.get((key, uid)) is mine:
                del self._current[key, uid]
                log.info("the agent of pod %s is gone", who)
                self._core.agent_disconnected(key, uid, pod)


def _is_large(message: AgentHello | Listen | State) -> bool:
    match message:
        case Listen(ports):
            return len(ports) > MAX_UNCLAIMED_ENTRIES
        case State():
            lists = (message.redirected, message.held_back, message.older, message.flows, message.return_paths)
            most = max(map(len, lists))
            return most > MAX_UNCLAIMED_ENTRIES or len(message.intercepts) > MAX_UNCLAIMED_INTERCEPTS
    return False


async def _authenticated(context: Context) -> tuple[str, IPv4Address]:
    """The key and address of whoever brings a token; ends the call of whoever does not."""
    tokens = [value for name, value in context.invocation_metadata() or () if name == agent.METADATA_KEY]
    address = _address(context.peer())
    if len(tokens) != 1 or not isinstance(tokens[0], str) or not _MIN_TOKEN <= len(tokens[0]) <= _MAX_TOKEN:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "this needs the token of an agent")
    if address is None:
        await context.abort(grpc.StatusCode.PERMISSION_DENIED, "this needs an IPv4 address")
    return hashlib.sha256(tokens[0].encode()).hexdigest(), address  # type: ignore[return-value] # abort raises


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


async def _paced(requests: AsyncIterator[Any], *first: Any) -> AsyncIterator[Any]:  # noqa: ANN401 -- protobuf has no types
    """*first*, then what comes, no faster than it may: gRPC's flow control holds the sender then."""
    clock = asyncio.get_running_loop().time
    rate = TokenBucket(_PER_SECOND, _BURST, clock())
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


async def _write(outgoing: Outbox[Any], context: Context, form: Callable[[Any], Any]) -> None:
    """Until None is its turn."""
    while (message := await outgoing.get()) is not None:
        await context.write(form(message))


@contextlib.asynccontextmanager
async def _written(outgoing: Outbox[Any], context: Context, form: Callable[[Any], Any]) -> AsyncIterator[None]:
    """What comes into *outgoing* is written as long as the block.

    A write that is under way ends by itself: cancelled, it would still be gRPC's, which then takes no status any more
    (GRPC_CALL_ERROR_TOO_MANY_OPERATIONS), and the peer would never learn that its stream has ended.
    """
    task = asyncio.ensure_future(_write(outgoing, context, form))
    try:
        yield
    finally:
        outgoing.clear()
        outgoing.put(None, None)
        with contextlib.suppress(grpc.RpcError, grpc.aio.BaseError):
            await task
