"""One intercept between the manager and this machine: its relays, the programs they lead to, what pods report."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from ipaddress import IPv4Address
from typing import Final

from meshdev.config import gateway_of
from meshdev.errors import FirewallError, InterceptError, MeshdevError, TunnelError
from meshdev.intercept import spec as specs
from meshdev.intercept.spec import Port, Spec
from meshdev.session.laptop import Laptop
from meshdev.session.local import LocalPorts, Target
from meshdev.session.way import Acceptor, acceptor
from meshdev.tunnel.pool import Pool
from meshdev.wire.helper.requests import RelayTarget
from meshdev.wire.intercepts import Relay, Relays, Report
from meshdev.wire.session_intercepts import LocalPort

log = logging.getLogger(__name__)

#: The manager answers an intercept in milliseconds; a carrier that is just being dialled again takes longer.
RELAYS_SECONDS: Final = 10.0
#: Envoys take a withdrawal in milliseconds. Pods that are lost at this very moment are not waited for longer.
GONE_SECONDS: Final = 5.0

_LOOPBACK: Final = IPv4Address("127.0.0.1")


class Leading:
    """Which relays lead to which programs of this machine, for all intercepts of one session."""

    def __init__(self, laptop: Laptop) -> None:
        self._laptop = laptop
        self._targets: dict[str, tuple[RelayTarget, ...]] = {}
        self._lock = asyncio.Lock()

    async def set(self, id_: str, targets: tuple[RelayTarget, ...]) -> None:
        """All of one intercept; none: it is over. Raises FirewallError, RouteError, LaptopError."""
        async with self._lock:
            if self._targets.get(id_, ()) == targets:
                return
            self._targets[id_] = targets
            if not targets:
                del self._targets[id_]
            await self._laptop.routing.relayed()
            await self._laptop.helper.set_relays(each for some in self._targets.values() for each in some)


class SessionClaim:
    """The session's :class:`meshdev.modes.link.Claim`. Made by :func:`claimed`."""

    def __init__(self, spec: Spec, pool: Pool, laptop: Laptop, leading: Leading, trial: Acceptor) -> None:
        self._spec = spec
        self._pool = pool
        self._laptop = laptop
        self._leading = leading
        self._trial: Acceptor | None = trial
        self._relays: Relays | None = None
        self._answered: asyncio.Future[Relays] = asyncio.get_running_loop().create_future()
        self._looked: dict[Port, Target | None] = {}
        self._all_looked = asyncio.Event()
        self._dirty = asyncio.Event()
        self._there: set[str] = set()
        self._nobody = asyncio.Event()
        self._nobody.set()

    async def ready(self) -> None:
        """Relays are there, and a connection that they bring comes in here."""
        try:
            async with asyncio.timeout(RELAYS_SECONDS):
                relays = await self._answered
                await self._all_looked.wait()
        except TimeoutError:
            raise TunnelError(f"the manager did not answer within {RELAYS_SECONDS:.0f} seconds") from None
        if relays.error is not None:
            raise InterceptError(f"the manager refuses the intercept: {relays.error.reason}")
        await self._try_the_way_in(relays)
        await self._lead()
        self._tell()

    async def proven(self) -> None:
        """A program that does not listen is refused from now on."""
        self._trial = None
        await self._lead()

    @property
    def up(self) -> int:
        """As the manager was told."""
        return sum(target is not None for target in self._looked.values())

    @property
    def local(self) -> tuple[LocalPort, ...]:
        """Every port of the spec."""
        return tuple(
            LocalPort(port.local, port.transport, self._looked.get(port) is not None) for port in self._spec.ports
        )

    def heard(self, message: Relays | Report) -> None:
        """What the manager says of this intercept; after a lost carrier, and from a new manager, once more."""
        if isinstance(message, Report):
            (self._there.discard if message.state == "gone" else self._there.add)(message.pod)
            (self._nobody.clear if self._there else self._nobody.set)()
        elif message.relays or message.error:
            self._relays = message
            if not self._answered.done():
                self._answered.set_result(message)
            self._dirty.set()

    def looked(self, port: Port, target: Target | None) -> None:
        """What listens at the port of this machine now."""
        before = self._looked.get(port)
        self._looked[port] = target
        if len(self._looked) == len(self._spec.ports):
            self._all_looked.set()
        if before is not None and target is None:
            self._tell()  # the route first: what is refused meanwhile falls back
        self._dirty.set()

    async def follow(self) -> None:
        """Lead to where programs listen, whenever that has changed; the manager is told afterwards."""
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            if self._relays is None or self._relays.error is not None or not self._all_looked.is_set():
                continue
            try:
                await self._lead()
            except MeshdevError as error:
                log.warning("relays of %s: %s", self._spec.workload, error.message)
            self._tell()

    async def gone(self) -> None:
        """Return when every pod that knew of it has let go, or cannot be asked."""
        if self._pool.connected():
            try:
                async with asyncio.timeout(GONE_SECONDS):
                    await self._nobody.wait()
            except TimeoutError:
                log.warning("%s: no word from %s", self._spec.workload, ", ".join(sorted(self._there)))

    def _tell(self) -> None:
        for port, target in self._looked.items():
            self._pool.claims.local(self._spec.id, port.remote, port.transport, target is not None)

    async def _lead(self) -> None:
        ports = {(port.remote, port.transport): port for port in self._spec.ports}
        relays = self._relays.relays if self._relays is not None else ()
        led = ((each, ports.get((each.remote, each.protocol))) for each in relays)
        await self._leading.set(self._spec.id, tuple(self._target(each, port) for each, port in led if port))

    def _target(self, relay: Relay, port: Port) -> RelayTarget:
        target = self._looked.get(port)
        if target is None:
            # Nobody listens. As long as pods still have to prove the way, somebody answers them.
            trial = self._trial if relay.protocol == "tcp" else None
            target = trial.target if trial is not None else Target(_LOOPBACK, port.local)
        return RelayTarget(relay.relay, relay.protocol, target.address, target.port)

    async def _try_the_way_in(self, relays: Relays) -> None:
        """A packet as a relay brings it, handed to this machine's kernel."""
        relay = next((each.relay for each in relays.relays if each.protocol == "tcp"), None)
        welcome = self._pool.welcome
        gateway = gateway_of(welcome.address) if welcome is not None else None
        if relay is None or self._trial is None or welcome is None or gateway is None:
            return
        target = self._trial.target
        await self._leading.set(self._spec.id, (RelayTarget(relay, "tcp", target.address, target.port),))
        queue = self._laptop.device.queues[0]
        if not await self._trial.lets_in(queue, gateway, welcome.address, relay):
            raise FirewallError(
                f"a packet filter of this machine drops what comes in from {self._laptop.device.name}: "
                "requests of the cluster could not reach the local program",
                hint=f"let it in, for instance: nft insert rule inet filter input iifname {self._laptop.device.name} "
                "accept; what filters: nft list ruleset, iptables-save, ufw status, firewall-cmd --list-all",
            )


@asynccontextmanager
async def claimed(
    spec: Spec,
    key: str,
    *,
    reset_older: bool,
    pool: Pool,
    laptop: Laptop,
    leading: Leading,
    ports: LocalPorts,
    subscribe: Callable[[str, Callable[[Relays | Report], None] | None], None],
    heard: Callable[[Report], None],
) -> AsyncIterator[SessionClaim]:
    """Claimed inside; withdrawn, and let go by every pod that can be asked, when the context is left."""
    async with acceptor() as trial, asyncio.TaskGroup() as group:
        claim = SessionClaim(spec, pool, laptop, leading, trial)

        def hear(message: Relays | Report) -> None:
            claim.heard(message)
            if isinstance(message, Report):
                heard(message)

        with ExitStack() as watches:
            subscribe(spec.id, hear)
            watches.callback(subscribe, spec.id, None)
            try:
                pool.claims.declare(spec.id, specs.encode(spec), key, reset_older=reset_older)
                following = group.create_task(claim.follow())
                stops = [ports.watch(port.local, port.transport, partial(claim.looked, port)) for port in spec.ports]
                try:
                    yield claim
                finally:
                    for stop in stops:
                        stop()
                    following.cancel()
            finally:
                pool.claims.withdraw(spec.id)
                await claim.gone()
                await leading.set(spec.id, ())
