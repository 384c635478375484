"""The control container's side of an agent's and its Envoy's streams, as a test wants it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Address
from typing import Any

import grpc

from meshdev.config import CONTROL_PORT
from meshdev.manager.control.decided import DecidedClaims, decisions
from meshdev.sidecar.envoy import names
from meshdev.sidecar.envoy.claims import LiveClaim, PodView, Served, wanted
from meshdev.sidecar.envoy.resources import resources
from meshdev.wire import agent
from meshdev.wire.access import AccessRecord, AccessRecords, Watch
from meshdev.wire.agent import (
    AgentHello,
    Consents,
    DecidedClaim,
    Listen,
    PodPort,
    ProbeRelays,
    Redirect,
    State,
    Want,
    Wanted,
)
from tests.netns.cluster import MANAGER, POD, Namespace
from tests.sidecar.ads import Ads
from tests.sidecar.certificates import Certificates
from tests.waiting import until


def _where(listen: Listen, port: PodPort) -> int | str:
    return names.socket(listen.folder, port) if port.transport == "tcp" else listen.ports[port]


class Manager:
    """The control container's side of both streams, for one agent."""

    def __init__(self, place: Namespace, certificates: Certificates) -> None:
        self.certificates = certificates
        self.ads = Ads(certificates.control())
        self.hello: AgentHello | None = None
        self.state = State()
        self.consents: tuple[str, ...] = ()
        self.records: list[AccessRecord] = []
        self.dropped = 0
        self.peers: list[bytes] = []
        """By stream of an agent, its certificate."""
        self._place = place
        self._claims: tuple[LiveClaim, ...] = ()
        self._wanted: tuple[Wanted, ...] = ()
        self._listen: Listen | None = None
        self._served: dict[PodPort, Served] = {}
        self.folder = ""
        """Of the agent's sockets."""
        self._decided: tuple[DecidedClaim, ...] = ()
        self._number = 0
        self._outgoing: asyncio.Queue[agent.FromControl] | None = None
        self._server: Any = None
        self._told = asyncio.Condition()
        self._one_at_a_time = asyncio.Lock()

    async def start(self) -> None:
        handler = grpc.stream_stream_rpc_method_handler(self._session)
        self._server = grpc.aio.server()
        self.ads.register(self._server)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(agent.SERVICE, {"Session": handler}),)
        )
        with self._place.inside():
            self._server.add_secure_port(f"{MANAGER}:{CONTROL_PORT}", self.certificates.control())
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(0)

    @property
    def connected(self) -> bool:
        return self._outgoing is not None

    async def claim(self, *claims: LiveClaim, reset_older: bool = False) -> None:
        """As sessions declare and withdraw: the redirect follows what Envoy has taken."""
        self._claims = claims
        ids = frozenset(each.spec.id for each in claims) if reset_older else frozenset()
        self._wanted = wanted(claims, self.hello.probes if self.hello else (), ids)
        await self._tell()

    async def tries(self, *relays: int, address: IPv4Address = MANAGER) -> None:
        """Have these relays probed."""
        async with self._one_at_a_time:
            assert self._outgoing is not None
            self._outgoing.put_nowait(ProbeRelays(relays, address))

    async def watch(self, watch: Watch) -> None:
        """Say that somebody watches."""
        async with self._one_at_a_time:
            assert self._outgoing is not None
            self._outgoing.put_nowait(watch)

    async def until(self, condition: Callable[[State], object], seconds: float = 10.0) -> State:
        """The first state of which *condition* holds; where anything is redirected, with all claims applied."""

        def holds() -> object:
            return condition(self.state) and (not self.state.redirected or self.state.applied == self._number)

        async with asyncio.timeout(seconds), self._told:
            await self._told.wait_for(holds)
        return self.state

    def _redirect(self, ports: set[PodPort], claims: tuple[DecidedClaim, ...]) -> Redirect:
        self._number += 1
        return Redirect(tuple(sorted(ports)), claims, self._number)

    async def _tell(self) -> None:
        async with self._one_at_a_time:
            if self._outgoing is not None:
                await self._tell_all(self._outgoing)

    async def _tell_all(self, outgoing: asyncio.Queue[agent.FromControl]) -> None:
        outgoing.put_nowait(Want(self._wanted))
        ports = {each.port for each in self._wanted}

        def ended() -> bool:
            """An agent that was about to leave may not have read it; its next session is told by itself."""
            return self._outgoing is not outgoing

        await until(lambda: ended() or not ports or (self._listen is not None and self._listen.ports.keys() >= ports))
        await until(lambda: ended() or self.ads.connected)
        if ended():
            return
        assert self.hello is not None
        for each in self._wanted:
            assert self._listen is not None
            self._served[each.port] = Served(each, _where(self._listen, each.port))
        pod = PodView(POD, tuple(self._served.values()), self.hello.probes)
        claims = {claim.spec.id: claim for claim in self._claims}
        decided = DecidedClaims()
        decided.acknowledge(frozenset().union(*(decisions(id_, claim, ports) for id_, claim in claims.items())))
        on = tuple(decided.on(claims).values())
        if on != self._decided:  # those that are over are off before Envoy loses their routes
            kept = tuple(each for each in self._decided if each in on)
            outgoing.put_nowait(self._redirect(ports & set(self.state.redirected), kept))
        await self.ads.serve(resources(pod, MANAGER, self._claims))
        self._decided = on
        outgoing.put_nowait(self._redirect(ports, on))

    async def _session(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        self.peers.append(ssl.PEM_cert_to_DER_cert(context.auth_context()["x509_pem_cert"][0].decode()))
        reader = asyncio.ensure_future(self._read(requests))
        self._outgoing = asyncio.Queue()
        self.ads.forget()  # it may have another Envoy, which rejects listeners in another folder
        telling = asyncio.ensure_future(self._tell_when_there())
        try:
            while True:
                yield agent.encode(await self._outgoing.get())
        finally:
            self._outgoing = None
            self._listen = None
            reader.cancel()
            telling.cancel()

    async def _tell_when_there(self) -> None:
        await until(lambda: self.hello is not None)
        await self._tell()

    async def _read(self, requests: AsyncIterator[bytes]) -> None:
        async for data in requests:
            message = agent.decode_from_agent(data)
            async with self._told:
                match message:
                    case AgentHello():
                        self.hello = message
                    case Consents():
                        self.consents = message.proofs
                    case Listen():
                        if message.folder != self.folder:  # another process, or one that begins anew
                            self._served, self.folder = {}, message.folder
                        self._listen = message
                    case State():
                        self.state = message
                    case AccessRecords():
                        self.records += message.records
                        self.dropped += message.dropped
                self._told.notify_all()
