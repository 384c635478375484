"""The control container's real gRPC server on loopback, and sidecars that do what the test makes them do."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Protocol

import grpc
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.service.discovery.v3 import ads_pb2_grpc, discovery_pb2
from google.protobuf import json_format

from meshdev.manager.control.core import Core
from meshdev.manager.control.service import serve
from meshdev.manager.control.tunnel_client import TunnelClient
from meshdev.sidecar.envoy.protos import CLUSTERS, ENDPOINTS, LISTENERS, ORDER, ROUTES
from meshdev.wire import agent
from meshdev.wire.agent import AgentHello, Listen, PodPort, ProbeRelays, Redirect, State, Want
from meshdev.wire.manager import ToTunnel
from tests.loops import DEADLINE_SECONDS
from tests.waiting import until

#: What the tokens of the agents of one workload, and of another one, begin with: each pod's goes on with its name.
TOKEN, OTHER_TOKEN = "t" * 32, "u" * 32
_NAMES = ("b-1", "b-2", "evil", "flood", *(f"h-{each}" for each in range(6)))
PORT = PodPort(8080)
LISTENER_PORT = 15801
FOLDER = "/tmp/meshdev-x"


@dataclass
class Control:
    core: Core
    port: int


@asynccontextmanager
async def control(folder: Path) -> AsyncIterator[Control]:
    """As ``python3 -m meshdev.manager.control`` puts it together."""
    loop = asyncio.get_running_loop()

    def send(key: str, message: ToTunnel) -> None:
        client.send_latest(key, message)

    core = Core(send, loop.call_later, loop.time)
    client = TunnelClient(folder / "tunnel.sock", core.tunnel_connected, core.on_tunnel_message, core.snapshot)
    server, port = await serve(core, "127.0.0.1:0")
    task = asyncio.create_task(client.run())
    try:
        await until(lambda: core._synced_at is not None)
        yield Control(core, port)
    finally:
        task.cancel()
        await asyncio.wait([task])
        await server.stop(0)


@dataclass
class Agent:
    """An agent's stream; ``want``, ``redirect`` and ``tries`` are the last that were told."""

    call: Any
    want: Want | None = None
    redirect: Redirect | None = None
    tries: ProbeRelays | None = None
    log: list[str] = field(default_factory=list)
    _state: State = field(default_factory=State)
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)
    """A call of gRPC takes one message at a time."""

    async def say(self, message: AgentHello | Listen | State | bytes) -> None:
        """States say that the passthrough worker has applied all so far."""
        if isinstance(message, State):
            self._state = message = replace(message, applied=self.redirect.number if self.redirect else 0)
        async with self._one_at_a_time:
            await self.call.write(message if isinstance(message, bytes) else agent.encode(message))

    async def follow(self) -> None:
        while (data := await self.call.read()) is not grpc.aio.EOF:
            message = agent.decode_from_control(data)
            match message:
                case Want():
                    self.want = message
                case Redirect():
                    self.redirect = message
                    await self.say(self._state)
                case ProbeRelays():
                    self.tries = message
            self.log.append(type(message).__name__)

    def wants(self) -> list[str]:
        return [str(each.port) for each in self.want.ports] if self.want else []

    def redirects(self) -> list[str]:
        return [str(port) for port in self.redirect.ports] if self.redirect else []


@dataclass
class Envoy:
    """An Envoy's stream: it takes what it is told, unless *refuses* occurs in it, and asks for what is named there."""

    call: Any
    uid: str
    has: dict[str, dict[str, Any]] = field(default_factory=lambda: {kind: {} for kind in ORDER})
    asked: dict[str, list[str]] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    refuses: str = ""
    _told: bool = False

    async def follow(self) -> None:
        await self._ask(CLUSTERS)
        await self._ask(LISTENERS)
        while (answer := await self.call.read()) is not grpc.aio.EOF:
            await self._take(answer)

    async def _take(self, answer: Any) -> None:
        kind = answer.type_url
        found = {}
        for one in answer.resources:
            message = MESSAGES[kind].FromString(one.value)
            found[NAMED_BY[kind](message)] = message
        text = " ".join(json_format.MessageToJson(message, indent=None) for message in found.values())
        self.log.append(kind.rpartition(".")[2])
        if self.refuses and self.refuses in text:
            await self._ask(kind, answer, f"Proto constraint validation failed: {self.refuses}")
            return
        self.has[kind] = found if kind in {CLUSTERS, LISTENERS} else {**self.has[kind], **found}
        await self._ask(kind, answer)
        if kind == CLUSTERS:
            wanted = sorted(name for name, one in found.items() if one.type == cluster_pb2.Cluster.EDS)
            await self._want(ENDPOINTS, wanted)
        if kind == LISTENERS:
            wanted = sorted(name.replace("listener", "routes", 1) for name in found)
            await self._want(ROUTES, wanted)

    async def _want(self, kind: str, wanted: list[str]) -> None:
        if wanted != self.asked.get(kind, []):
            self.asked[kind] = wanted
            self.has[kind] = {name: one for name, one in self.has[kind].items() if name in wanted}
            await self._ask(kind)

    async def _ask(self, kind: str, answer: Any = None, error: str | None = None) -> None:
        request = discovery_pb2.DiscoveryRequest(type_url=kind, resource_names=self.asked.get(kind, []))
        if not self._told:
            request.node.id, self._told = self.uid, True
        self._nonces[kind] = answer.nonce if answer is not None else self._nonces.get(kind, "")
        request.response_nonce = self._nonces[kind]
        if error is not None:
            request.error_detail.message = error
        await self.call.write(request)

    def __post_init__(self) -> None:
        self._nonces: dict[str, str] = {}

    def routes(self) -> str:
        """All routes as text."""
        found = self.has[ROUTES].values()
        return " ".join(json_format.MessageToJson(one, indent=None) for one in found)

    def listens(self) -> list[str]:
        return sorted(self.has[LISTENERS])


MESSAGES: dict[str, Any] = {
    CLUSTERS: cluster_pb2.Cluster,
    ENDPOINTS: endpoint_pb2.ClusterLoadAssignment,
    LISTENERS: listener_pb2.Listener,
    ROUTES: route_pb2.RouteConfiguration,
}
#: What such a message is called by.
NAMED_BY: dict[str, Callable[[Any], str]] = {
    kind: (lambda it: it.cluster_name) if kind == ENDPOINTS else (lambda it: it.name) for kind in ORDER
}


def token_of(name: str, token: str = TOKEN) -> str:
    """The token of that pod's agent."""
    return f"{token}-{name}"


def key_of(name: str, token: str = TOKEN) -> str:
    """What it is known by."""
    return hashlib.sha256(token_of(name, token).encode()).hexdigest()


KEYS, OTHER_KEYS = (tuple(key_of(name, token) for name in _NAMES) for token in (TOKEN, OTHER_TOKEN))


def hello(name: str = "b-1", address: str = "10.244.0.7") -> AgentHello:
    return AgentHello(name, f"uid-{name}", "default", IPv4Address(address))


@asynccontextmanager
async def agent_of(
    control: Control, token: str = TOKEN, name: str = "b-1", address: str = "10.244.0.7"
) -> AsyncIterator[Agent]:
    """An agent that has said hello."""
    async with channel(control) as line:
        made = Agent(line.stream_stream(agent.METHOD)(metadata=metadata(token_of(name, token))))
        await made.say(hello(name, address))
        async with beside(made.follow()):
            yield made


@asynccontextmanager
async def envoy_of(control: Control, token: str = TOKEN, name: str = "b-1") -> AsyncIterator[Envoy]:
    """An Envoy that has asked for everything."""
    async with channel(control) as line:
        call = ads_pb2_grpc.AggregatedDiscoveryServiceStub(line).StreamAggregatedResources(
            metadata=metadata(token_of(name, token))
        )
        made = Envoy(call, f"uid-{name}")
        async with beside(made.follow()):
            yield made


@dataclass
class Sidecar:
    agent: Agent
    envoy: Envoy

    async def listen(self) -> None:
        await self.agent.say(Listen({PORT: LISTENER_PORT}, FOLDER))
        await self.state()

    async def state(self, *redirected: PodPort, **more: Any) -> None:
        await self.agent.say(State(redirected, **more))


@asynccontextmanager
async def sidecar(control: Control, token: str = TOKEN, name: str = "b-1") -> AsyncIterator[Sidecar]:
    """Both of them."""
    async with agent_of(control, token, name) as one, envoy_of(control, token, name) as other:
        yield Sidecar(one, other)


@asynccontextmanager
async def joined(control: Control, token: str = TOKEN, name: str = "b-1") -> AsyncIterator[Sidecar]:
    """A sidecar that has redirected :data:`PORT`."""
    async with sidecar(control, token, name) as made:
        await until(lambda: made.agent.wants() == ["8080"])
        await made.listen()
        await until(lambda: made.agent.redirects() == ["8080"])
        await made.state(PORT)
        yield made


def metadata(token: str | None) -> list[tuple[str, str]]:
    return [] if token is None else [(agent.METADATA_KEY, token)]


class Place(Protocol):
    """Where control is served on loopback."""

    port: int


@asynccontextmanager
async def channel(control: Place) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{control.port}", options=[("grpc.use_local_subchannel_pool", 1)]
    ) as made:
        yield made


@asynccontextmanager
async def beside(work: Any) -> AsyncIterator[None]:
    """*work* runs beside the block; that the stream ended, or was ended by us, is no failure."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=DEADLINE_SECONDS)
        ended = (grpc.RpcError, asyncio.InvalidStateError)  # the second: written to after it ended
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, ended):
            raise error
