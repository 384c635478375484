"""One intercept between the manager and this machine: its relays, the programs they lead to, what pods report."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address
from typing import Final

from meshdev.config import gateway_of
from meshdev.errors import FirewallError, InterceptError, MeshdevError, ProtocolError, TunnelError
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
#: After the helper could not lead a relay.
LEAD_AGAIN_SECONDS: Final = 1.0

_LOOPBACK: Final = IPv4Address("127.0.0.1")


class Leading:
    """Which relays lead to which programs of this machine, for all intercepts of one session."""

    def __init__(self, laptop: Laptop) -> None:
        self._laptop = laptop
        self._targets: dict[str, tuple[RelayTarget, ...]] = {}
        self._known = True  # that the helper has these
        self._lock = asyncio.Lock()

    async def set(self, id_: str, targets: tuple[RelayTarget, ...]) -> None:
        """All of one intercept; none: it is over. Raises FirewallError, RouteError, LaptopError."""
        async with self._lock:
            if self._known and self._targets.get(id_, ()) == targets:
                return
            self._known = False
            self._targets[id_] = targets
            if not targets:
                del self._targets[id_]
            await self._laptop.routing.relayed()
            await self._laptop.helper.set_relays(each for some in self._targets.values() for each in some)
            self._known = True


class Claimant:
    """What the claims of one session share."""

    def __init__(self, pool: Pool, laptop: Laptop, ports: LocalPorts) -> None:
        self.pool = pool
        self.laptop = laptop
        self.ports = ports
        self.leading = Leading(laptop)

    @asynccontextmanager
    async def claim(
        self,
        spec: Spec,
        *,
        reset_older: bool,
        reported: Callable[[Report], None],
        looked: Callable[[tuple[LocalPort, ...]], None],
    ) -> AsyncIterator["SessionClaim"]:
        """See :meth:`meshdev.modes.link.Link.claim`."""
        claims = self.pool.claims
        async with acceptor() as trial, asyncio.TaskGroup() as group:
            claim = SessionClaim(spec, self, trial, reported, looked)
            claims.listen(spec.id, claim.heard)
            try:
                claims.declare(spec.id, specs.encode(spec), reset_older=reset_older)
                following = group.create_task(claim.follow())
                with ExitStack() as watches:
                    watches.callback(following.cancel)
                    for port in spec.ports:
                        watches.callback(self.ports.watch(port.local, port.transport, partial(claim.looked, port)))
                    yield claim
            finally:
                claims.withdraw(spec.id)
                try:
                    await claim.gone()
                finally:
                    claims.ignore(spec.id)
                    await self.leading.set(spec.id, ())


class SessionClaim:
    """The session's :class:`meshdev.modes.link.Claim`. Made by :meth:`Claimant.claim`."""

    def __init__(
        self,
        spec: Spec,
        claimant: Claimant,
        trial: Acceptor,
        reported: Callable[[Report], None],
        looked: Callable[[tuple[LocalPort, ...]], None],
    ) -> None:
        self._spec = spec
        self._pool = claimant.pool
        self._laptop = claimant.laptop
        self._leading = claimant.leading
        self._trial: Acceptor | None = trial
        self._reported = reported
        self._tell_local = looked
        self._relays: Relays | None = None
        self._pod: str | None = None
        self._answered = asyncio.Event()
        self._looked: dict[Port, Target | None] = {}
        self._all_looked = asyncio.Event()
        self._dirty = asyncio.Event()
        self._tried = False
        self._there: dict[str, Report] = {}
        self._nobody = asyncio.Event()
        self._nobody.set()

    async def ready(self) -> None:
        """Relays are there, and a connection that they bring comes in here."""
        try:
            async with asyncio.timeout(RELAYS_SECONDS):
                await self._answered.wait()
                await self._all_looked.wait()
        except TimeoutError:
            raise TunnelError(f"the manager did not answer within {RELAYS_SECONDS:.0f} seconds") from None
        await self._try_the_way_in(self._taken())
        self._tried = True
        await self._lead()

    async def proven(self) -> None:
        """A program that does not listen is refused from now on."""
        self._trial = None
        await self._lead()

    def agents(self, keys: Collection[str]) -> None:
        """The pods that it reaches."""
        self._pool.claims.agents(self._spec.id, keys)

    def exclude(self, pods: tuple[str, ...]) -> None:
        """Leave these pods out of it."""
        self._pool.claims.exclude(self._spec.id, pods)

    def heard(self, message: Relays | Report) -> None:
        """What the manager says of this intercept; after a lost carrier, and from a new manager, once more."""
        if isinstance(message, Report):
            self._there.pop(message.pod, None)
            if message.state != "gone":
                self._there[message.pod] = message
            (self._nobody.clear if self._there else self._nobody.set)()
            self._reported(message)
        elif message.relays or message.error:
            self._meet(message)
            self._relays = message
            self._answered.set()
            self._dirty.set()

    def _meet(self, message: Relays) -> None:
        """A manager that made relays anew: which pods have the route, and which are gone since, only it can say."""
        welcome = self._pool.welcome
        pod = welcome.pod if welcome is not None else None
        if self._relays is not None and (self._pod, self._relays.relays) != (pod, message.relays):
            former, self._there = self._there, {}
            self._nobody.set()
            for each in former.values():  # what was counted stays counted
                self._reported(replace(each, state="joined", text="", up=0, return_path="untried"))
        self._pod = pod

    def looked(self, port: Port, target: Target | None) -> None:
        """What listens at the port of this machine now."""
        before = self._looked.get(port)
        self._looked[port] = target
        if len(self._looked) == len(self._spec.ports):
            self._all_looked.set()
        if before is not None and target is None:
            self._tell(port, up=False)  # the route first: what is refused meanwhile falls back
        up = {each for each, found in self._looked.items() if found is not None}
        self._tell_local(tuple(LocalPort(each.local, each.transport, each in up) for each in self._spec.ports))
        self._dirty.set()

    async def follow(self) -> None:
        """Lead to where programs listen, whenever that has changed; the manager is told afterwards.

        Raises InterceptError when a manager does not take the intercept any more.
        """
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            if not self._tried:
                continue  # nothing may lead elsewhere while the way is tried
            try:
                self._taken()
                await self._lead()
            except InterceptError:
                raise
            except MeshdevError as error:
                log.warning("relays of %s: %s", self._spec.workload, error.message)
                await asyncio.sleep(LEAD_AGAIN_SECONDS)
                self._dirty.set()

    async def gone(self) -> None:
        """Return when every pod that knew of it has let go, or cannot be asked."""
        if self._pool.connected():
            try:
                # Not asyncio.timeout: see modes/holding.py, whoever leaves was cancelled.
                await asyncio.wait_for(self._nobody.wait(), GONE_SECONDS)
            except TimeoutError:
                log.warning("%s: no word from %s", self._spec.workload, ", ".join(sorted(self._there)))

    def _taken(self) -> Relays:
        relays = self._relays or Relays(self._spec.id)
        if relays.error is not None:
            # What this meshdev says and a manager cannot read was added since.
            older = relays.error.code == ProtocolError.code
            raise InterceptError(
                f"the manager refuses the intercept: {relays.error.reason}",
                hint="it may be older than this meshdev: meshdev disconnect, then meshdev connect --upgrade"
                if older
                else None,
            )
        return relays

    def _tell(self, port: Port, *, up: bool) -> None:
        self._pool.claims.local(self._spec.id, port.remote, port.transport, up)

    async def _lead(self) -> None:
        """Lead every relay to its program, then tell the manager which are up."""
        ports = {(port.remote, port.transport): port for port in self._spec.ports}
        looked = dict(self._looked)
        led = ((each, ports.get((each.remote, each.protocol))) for each in self._taken().relays)
        await self._leading.set(self._spec.id, tuple(self._target(each, port) for each, port in led if port))
        for port, target in looked.items():
            if self._looked[port] == target:  # what has changed meanwhile is led to next
                self._tell(port, up=target is not None)

    def _target(self, relay: Relay, port: Port) -> RelayTarget:
        target = self._looked.get(port)
        if target is None:
            # Nobody listens. As long as pods still have to prove the way, somebody answers them.
            trial = self._trial if relay.protocol == "tcp" else None
            target = trial.target if trial is not None else Target(_LOOPBACK, port.local)
        address = target.address
        if address.is_unspecified and self._pool.welcome is not None:
            address = self._pool.welcome.address
        return RelayTarget(relay.relay, relay.protocol, address, target.port)

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
