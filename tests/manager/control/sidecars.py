"""The control container's real gRPC server on loopback, and sidecars that do what the test makes them do."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
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

from meshdev.identity.authority import Authority
from meshdev.identity.tls import pem
from meshdev.manager.control.container import ControlContainer, ControlSettings
from meshdev.manager.control.core import Core
from meshdev.sidecar.envoy.protos import CLUSTERS, ENDPOINTS, LISTENERS, ORDER, ROUTES
from meshdev.sidecar.envoy.tls import CONTROL_NAME
from meshdev.wire import agent
from meshdev.wire.access import Watch
from meshdev.wire.agent import (
    AgentHello,
    FromAgent,
    IssuedCertificate,
    Listen,
    PodPort,
    ProbeRelays,
    Redirect,
    State,
    Want,
)
from tests.loops import DEADLINE_SECONDS
from tests.manager.control.identities import OURS, Identity, identity
from tests.manager.control.relay_container import RelayContainer, relay_container
from tests.waiting import until

PORT = PodPort(8080)
LISTENER_PORT = 15801
FOLDER = "/tmp/meshdev-x"


@dataclass
class Control:
    """The process with a relay beside it."""

    process: ControlContainer
    relay: RelayContainer

    @property
    def core(self) -> Core:
        return self.process.core

    @property
    def port(self) -> int:
        return self.process.port

    @property
    def authority(self) -> Authority:
        return self.process.authority


@asynccontextmanager
async def control(
    folder: Path, relay: RelayContainer | None = None, lifetime: timedelta = timedelta(hours=1)
) -> AsyncIterator[Control]:
    """As ``python3 -m meshdev.manager.control`` puts it together. A second one has the *relay* of the first."""
    path = folder / "relay.sock"
    settings = ControlSettings(
        "manager-uid", "127.0.0.1:0", folder / "authority", folder / "tunnel.sock", path, lifetime
    )
    async with contextlib.AsyncExitStack() as undo:
        beside_it = relay if relay is not None else await undo.enter_async_context(relay_container(path))
        process = ControlContainer(settings)
        task = asyncio.create_task(process.run())
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await process.serving.wait()
            await until(lambda: beside_it.identity is not None)
            yield Control(process, beside_it)
        finally:
            task.cancel()
            await asyncio.wait([task])


@dataclass
class Agent:
    """An agent's stream; ``want``, ``redirect``, ``tries``, ``issued`` and ``watch`` are the last that were told."""

    call: Any
    want: Want | None = None
    redirect: Redirect | None = None
    tries: ProbeRelays | None = None
    issued: IssuedCertificate | None = None
    watch: Watch | None = None
    log: list[str] = field(default_factory=list)
    _state: State = field(default_factory=State)
    _one_at_a_time: asyncio.Lock = field(default_factory=asyncio.Lock)
    """A call of gRPC takes one message at a time."""

    async def say(self, message: FromAgent | bytes) -> None:
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
                case IssuedCertificate():
                    self.issued = message
                case Watch():
                    self.watch = message
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


def hello(name: str = "b-1", address: str = "127.0.0.1") -> AgentHello:
    return AgentHello(name, f"uid-{name}", "default", IPv4Address(address), records=True)


def issued(control: "Place", who: Identity) -> bytes:
    """A certificate as control issues it for that key."""
    path, now = f"ns/default/deployment/b/pod/uid-{who.name}", datetime.now(UTC)
    return control.authority.issue_workload(who.request, path, now=now, lifetime=timedelta(minutes=5))


@asynccontextmanager
async def agent_of(
    control: Control,
    workload: str = OURS,
    name: str = "b-1",
    address: str = "127.0.0.1",
    *,
    certificate: bytes | None = None,
    consents: bool = True,
) -> AsyncIterator[Agent]:
    """An agent that has said hello, and what it consents to, once a session names it; it got its *certificate* then."""
    who = identity(name, workload)
    await until(lambda: who.key in control.core.named())
    async with channel(control, who, certificate) as line:
        made = Agent(line.stream_stream(agent.METHOD)(wait_for_ready=True))
        await made.say(hello(name, address))
        if consents:
            await made.say(who.consents)
        async with beside(made.follow()):
            yield made


@asynccontextmanager
async def envoy_of(
    control: Control,
    workload: str = OURS,
    name: str = "b-1",
    *,
    certificate: bytes | None = None,
) -> AsyncIterator[Envoy]:
    """An Envoy that has asked for everything, with the certificate that its agent got."""
    who = identity(name, workload)
    await until(lambda: who.key in control.core.named())
    async with channel(control, who, certificate) as line:
        call = ads_pb2_grpc.AggregatedDiscoveryServiceStub(line).StreamAggregatedResources(wait_for_ready=True)
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
async def sidecar(control: Control, workload: str = OURS, name: str = "b-1", **more: Any) -> AsyncIterator[Sidecar]:
    """Both of them."""
    async with agent_of(control, workload, name, **more) as one, envoy_of(control, workload, name) as other:
        yield Sidecar(one, other)


@asynccontextmanager
async def joined(control: Control, workload: str = OURS, name: str = "b-1") -> AsyncIterator[Sidecar]:
    """A sidecar that has redirected :data:`PORT`."""
    async with sidecar(control, workload, name) as made:
        await until(lambda: made.agent.wants() == ["8080"])
        await made.listen()
        await until(lambda: made.agent.redirects() == ["8080"])
        await made.state(PORT)
        yield made


class Place(Protocol):
    """Where control is served on loopback."""

    @property
    def port(self) -> int: ...

    @property
    def authority(self) -> Authority: ...


_OPTIONS = (
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.ssl_target_name_override", CONTROL_NAME),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 100),
)


@asynccontextmanager
async def channel(control: Place, who: Identity | None, certificate: bytes | None = None) -> AsyncIterator[Any]:
    """With what control issues for *who*, another *certificate* of its key, or none."""
    shown = pem(certificate or issued(control, who)).encode() if who else None
    credentials = grpc.ssl_channel_credentials(
        pem(control.authority.certificate).encode(), who.pair.private_pem if who else None, shown
    )
    async with secured(control, credentials) as made:
        yield made


def secured(control: Place, credentials: grpc.ChannelCredentials) -> Any:
    """A channel to control, to be entered."""
    return grpc.aio.secure_channel(f"127.0.0.1:{control.port}", credentials, options=_OPTIONS)


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
