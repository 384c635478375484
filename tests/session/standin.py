"""What a session has besides its intercepts, as far as they use it: a pool, a laptop, looks at local ports."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import Any, cast

from meshdev.config import PROTOCOL
from meshdev.errors import MeshdevError
from meshdev.intercept.spec import Spec
from meshdev.isolation.network import THIS_NETWORK
from meshdev.session.claim import Claimant, SessionClaim
from meshdev.session.laptop import Laptop
from meshdev.session.local import Changed, LocalPorts, LocalTarget
from meshdev.tunnel.claims import ClaimMessage, Claims
from meshdev.tunnel.pool import Pool
from meshdev.wire.control import Welcome
from meshdev.wire.helper.requests import RelayTarget
from meshdev.wire.intercepts import Intercept, Local, Relay, Relays, Report, Withdraw
from meshdev.wire.ports import Transport
from meshdev.wire.session_intercepts import LocalPort
from tests.intercept.values import mesh

LOCALHOST = IPv4Address("127.0.0.1")
HERE = LocalTarget(LOCALHOST, 8080)
RELAY = Relay(8080, "tcp", 20001)


class StandIn:
    """What the session has: a pool, a laptop, the looks at local ports. The order of everything is written down."""

    def __init__(self) -> None:
        self.story: list[str] = []
        self.led: dict[int, int] = {}
        self.refuse: MeshdevError | None = None
        self.filtered = False
        self.tunnel = True
        self.claims = Claims()
        self.claims.use(self.said)
        self.welcome: Welcome | None = Welcome(
            PROTOCOL, IPv4Address("198.18.0.2"), 1500, 0, (), (), "manager-1", "default", IPv4Address("10.244.0.2")
        )
        self.watched: dict[tuple[int, Transport], Changed] = {}
        self.reports: list[Report] = []
        self.device = SimpleNamespace(queues=[None], name="tun0")
        self.network = self.programs = THIS_NETWORK
        self.routing = SimpleNamespace(use_relays=self._nothing)
        self.helper = SimpleNamespace(set_relays=self._set_relays)
        self.local: tuple[LocalPort, ...] = ()
        self.claimant = Claimant(cast("Pool", self), cast("Laptop", self), cast("LocalPorts", self))

    def connected(self) -> bool:
        return self.tunnel

    async def _nothing(self) -> None:
        await asyncio.sleep(0)

    async def _set_relays(self, relays: Any) -> None:
        wanted: list[RelayTarget] = list(relays)
        await asyncio.sleep(0)
        if self.refuse is not None:
            raise self.refuse
        self.led = {each.relay: each.port for each in wanted}
        self.story.append(" ".join(f"{each.relay}→{each.port}" for each in wanted) or "nothing is led")

    def said(self, message: ClaimMessage) -> None:
        match message:
            case Intercept():
                self.story.append("declared")
            case Withdraw():
                self.story.append("withdrawn")
            case Local(remote=remote, up=up):
                self.story.append(f"{remote} is {'up' if up else 'down'}")

    def watch(self, port: int, transport: Transport, changed: Changed) -> Callable[[], None]:
        self.watched[port, transport] = changed
        return lambda: cast("None", self.watched.pop((port, transport), None))

    def tell(self, message: Relays | Report) -> None:
        self.claims.on_message(message)

    def _local_changed(self, local: tuple[LocalPort, ...]) -> None:
        self.local = local

    def looked(self, target: LocalTarget | None, port: int = 8080, transport: Transport = "tcp") -> None:
        self.watched[port, transport](target)

    @asynccontextmanager
    async def claim(self, spec: Spec | None = None) -> AsyncIterator[SessionClaim]:
        async with self.claimant.claim(
            spec or mesh(), reset_older=False, on_report=self.reports.append, on_local=self._local_changed
        ) as made:
            yield made

    async def hold(self, work: Callable[[SessionClaim], Awaitable[None]]) -> None:
        """Errors as an intercept raises them (modes/holding.py)."""
        try:
            async with self.claim() as claim:
                await work(claim)
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def comes_up(self, claim: SessionClaim, target: LocalTarget | None = HERE, *relays: Relay) -> None:
        ready = asyncio.ensure_future(claim.ready())
        self.tell(Relays(mesh().id, relays or (RELAY,)))
        self.looked(target)
        await ready
        self.story.clear()
