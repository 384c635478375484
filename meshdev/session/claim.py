"""One intercept between the manager and this machine: relays, the programs they are forwarded to, reports of pods."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
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
from meshdev.session.local import LocalPorts, LocalTarget
from meshdev.session.return_path import Acceptor, accepting
from meshdev.tunnel.pool import Pool
from meshdev.wire.helper.requests import RelayTarget
from meshdev.wire.intercepts import AttestedAgent, Relay, Relays, Report
from meshdev.wire.session_intercepts import LocalPort

log = logging.getLogger(__name__)

#: The manager answers an intercept in milliseconds; a carrier that is just being dialled again takes longer.
RELAYS_SECONDS: Final = 10.0
#: Envoys take a withdrawal in milliseconds. Pods that are lost at this very moment are not waited for longer.
GONE_SECONDS: Final = 5.0
#: After the helper could not forward a relay.
FORWARD_RETRY_SECONDS: Final = 1.0

_LOOPBACK: Final = IPv4Address("127.0.0.1")


class Claimant:
    """What the claims of one session share; above all which relays are forwarded to which programs of this machine."""

    def __init__(self, pool: Pool, laptop: Laptop, ports: LocalPorts) -> None:
        self.pool = pool
        self.laptop = laptop
        self._ports = ports
        self._targets: dict[str, tuple[RelayTarget, ...]] = {}
        self._known = True  # that the helper has these
        self._lock = asyncio.Lock()

    async def forward(self, id_: str, targets: tuple[RelayTarget, ...]) -> None:
        """All relays of one intercept; none: it is over. Raises FirewallError, RouteError, LaptopError."""
        async with self._lock:
            if self._known and self._targets.get(id_, ()) == targets:
                return
            self._known = False
            self._targets[id_] = targets
            if not targets:
                del self._targets[id_]
            await self.laptop.routing.use_relays()
            await self.laptop.helper.set_relays(each for some in self._targets.values() for each in some)
            self._known = True

    @asynccontextmanager
    async def claim(
        self,
        spec: Spec,
        *,
        reset_older: bool,
        on_report: Callable[[Report], None],
        on_local: Callable[[tuple[LocalPort, ...]], None],
    ) -> AsyncIterator["SessionClaim"]:
        """See :meth:`meshdev.modes.link.Link.claim`."""
        claims = self.pool.claims
        async with accepting(self.laptop.network) as acceptor, asyncio.TaskGroup() as group:
            claim = SessionClaim(spec, self, acceptor, on_report, on_local)
            claims.listen(spec.id, claim.on_message)
            try:
                claims.declare(spec.id, specs.encode(spec), reset_older=reset_older)
                following = group.create_task(claim.follow())
                with ExitStack() as watches:
                    watches.callback(following.cancel)
                    for port in spec.ports:
                        on_target = partial(claim.on_target, port)
                        watches.callback(self._ports.watch(port.local, port.transport, on_target))
                    yield claim
            finally:
                claims.withdraw(spec.id)
                try:
                    await claim.gone()
                finally:
                    claims.ignore(spec.id)
                    await self.forward(spec.id, ())


class SessionClaim:
    """The session's :class:`meshdev.modes.link.Claim`. Made by :meth:`Claimant.claim`."""

    def __init__(
        self,
        spec: Spec,
        claimant: Claimant,
        acceptor: Acceptor,
        on_report: Callable[[Report], None],
        on_local: Callable[[tuple[LocalPort, ...]], None],
    ) -> None:
        self._spec = spec
        self._pool = claimant.pool
        self._laptop = claimant.laptop
        self._claimant = claimant
        self._acceptor: Acceptor | None = acceptor
        """None once the return path has been probed."""
        self._on_report = on_report
        self._on_local = on_local
        self._relays: Relays | None = None
        """The manager's last answer."""
        self._manager_pod: str | None = None
        """Who gave it."""
        self._answered = asyncio.Event()
        self._targets: dict[Port, LocalTarget | None] = {}
        self._all_known = asyncio.Event()
        self._outdated = asyncio.Event()
        self._probed = False
        self._reports: dict[str, Report] = {}
        self._no_reports = asyncio.Event()
        self._no_reports.set()

    async def ready(self) -> None:
        """There are relays, and this machine lets in a connection that they bring."""
        try:
            async with asyncio.timeout(RELAYS_SECONDS):
                await self._answered.wait()
                await self._all_known.wait()
        except TimeoutError:
            raise TunnelError(f"the manager did not answer within {RELAYS_SECONDS:.0f} seconds") from None
        await self._probe_packet_filters(self._accepted())
        self._probed = True
        await self._forward()

    async def proven(self) -> None:
        """A program that does not listen is refused from now on."""
        self._acceptor = None
        await self._forward()

    def agents(self, agents: Iterable[AttestedAgent]) -> None:
        """The pods that it reaches."""
        self._pool.claims.agents(self._spec.id, agents)

    async def issued(self, request: bytes) -> bytes:
        """The certificate (DER) of an agent that it names, as soon as the manager has issued it."""
        return await self._pool.claims.issued(self._spec.id, request)

    def exclude(self, pods: tuple[str, ...]) -> None:
        """Leave these pods out of it."""
        self._pool.claims.exclude(self._spec.id, pods)

    def on_message(self, message: Relays | Report) -> None:
        """A message of the manager; after a lost carrier, and from a new manager, all of them come again."""
        if isinstance(message, Report):
            self._reports.pop(message.pod, None)
            if message.state != "gone":
                self._reports[message.pod] = message
            (self._no_reports.clear if self._reports else self._no_reports.set)()
            self._on_report(message)
        elif message.relays or message.error:
            self._forget_former_manager(message)
            self._relays = message
            self._answered.set()
            self._outdated.set()

    def _forget_former_manager(self, message: Relays) -> None:
        """Only a manager that made relays anew can report which pods have the route, and which are gone since."""
        pod = self._pool.welcome.pod if self._pool.welcome is not None else None
        if self._relays is not None and (self._manager_pod, self._relays.relays) != (pod, message.relays):
            former, self._reports = self._reports, {}
            self._no_reports.set()
            for each in former.values():  # what was counted stays counted
                self._on_report(replace(each, state="joined", text="", up=0, return_path="untried"))
        self._manager_pod = pod

    def on_target(self, port: Port, target: LocalTarget | None) -> None:
        """What listens at the port of this machine now."""
        before = self._targets.get(port)
        self._targets[port] = target
        if len(self._targets) == len(self._spec.ports):
            self._all_known.set()
        if before is not None and target is None:
            self._announce(port, up=False)  # the route first: what is refused meanwhile falls back
        up = {each for each, found in self._targets.items() if found is not None}
        self._on_local(tuple(LocalPort(each.local, each.transport, each in up) for each in self._spec.ports))
        self._outdated.set()

    async def follow(self) -> None:
        """Forward to where programs listen, whenever that has changed; the manager is notified afterwards.

        Raises InterceptError when a manager does not take the intercept any more.
        """
        while True:
            await self._outdated.wait()
            self._outdated.clear()
            if not self._probed:
                continue  # nothing may be forwarded elsewhere while the packet filters are probed
            try:
                self._accepted()
                await self._forward()
            except InterceptError:
                raise
            except MeshdevError as error:
                log.warning("relays of %s: %s", self._spec.workload, error.message)
                await asyncio.sleep(FORWARD_RETRY_SECONDS)
                self._outdated.set()

    async def gone(self) -> None:
        """Return when every pod that knew of it has let go, or cannot be asked."""
        if self._pool.connected():
            try:
                # Not asyncio.timeout: see modes/holding.py, whoever leaves was cancelled.
                await asyncio.wait_for(self._no_reports.wait(), GONE_SECONDS)
            except TimeoutError:
                log.warning("%s: no report from %s", self._spec.workload, ", ".join(sorted(self._reports)))

    def _accepted(self) -> Relays:
        """The manager's answer. Raises InterceptError where it refuses."""
        relays = self._relays or Relays(self._spec.id)
        if relays.error is not None:
            hint = "it may be older than this meshdev: meshdev disconnect, then meshdev connect --upgrade"
            raise InterceptError(
                f"the manager refuses the intercept: {relays.error.reason}",
                # What a manager cannot read was added to the protocol since.
                hint=hint if relays.error.code == ProtocolError.code else None,
            )
        return relays

    def _announce(self, port: Port, *, up: bool) -> None:
        self._pool.claims.local(self._spec.id, port.remote, port.transport, up)

    async def _forward(self) -> None:
        """Forward every relay to its program, then announce which are up."""
        ports = {(port.remote, port.transport): port for port in self._spec.ports}
        targets = dict(self._targets)
        relays = ((each, ports.get((each.remote, each.protocol))) for each in self._accepted().relays)
        await self._claimant.forward(self._spec.id, tuple(self._target(each, port) for each, port in relays if port))
        for port, target in targets.items():
            if self._targets[port] == target:  # what has changed meanwhile is forwarded to next
                self._announce(port, up=target is not None)

    def _target(self, relay: Relay, port: Port) -> RelayTarget:
        target = self._targets.get(port)
        if target is None:
            # Nobody listens. As long as pods still have to probe the return path, somebody answers them.
            acceptor = self._acceptor if relay.protocol == "tcp" else None
            target = acceptor.target if acceptor is not None else LocalTarget(_LOOPBACK, port.local)
        address = target.address
        if address.is_unspecified and self._pool.welcome is not None:
            address = self._pool.welcome.address
        return RelayTarget(relay.relay, relay.protocol, address, target.port)

    async def _probe_packet_filters(self, relays: Relays) -> None:
        """Hand this machine's kernel a packet as a relay brings it. Raises FirewallError where it is dropped."""
        relay = next((each.relay for each in relays.relays if each.protocol == "tcp"), None)
        welcome, acceptor = self._pool.welcome, self._acceptor
        gateway = gateway_of(welcome.address) if welcome is not None else None
        if relay is None or acceptor is None or welcome is None or gateway is None:
            return
        target, device = acceptor.target, self._laptop.device
        await self._claimant.forward(self._spec.id, (RelayTarget(relay, "tcp", target.address, target.port),))
        if not await acceptor.passes(device.queues[0], gateway, welcome.address, relay):
            raise FirewallError(
                f"a packet filter of this machine drops what comes in from {device.name}: "
                "requests of the cluster could not reach the local program",
                hint=f"let it in, for instance: nft insert rule inet filter input iifname {device.name} "
                "accept; what filters: nft list ruleset, iptables-save, ufw status, firewall-cmd --list-all",
            )
