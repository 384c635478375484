"""What the agent's life cycle asks for is carried out here: nft, sockets, Envoy and the stream to the manager."""

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from meshdev.errors import ClusterError, FirewallError, ProtocolError
from meshdev.sidecar.agent.actions import (
    Action,
    Actions,
    AllocateListeners,
    Announce,
    ClaimPorts,
    CountOlder,
    FindListening,
    KillEnvoy,
    Log,
    ReadStats,
    SetDraining,
    SetProbes,
    SetRedirects,
)
from meshdev.sidecar.agent.control import Control
from meshdev.sidecar.agent.envoy import Envoy
from meshdev.sidecar.agent.envoy_watch import Watching
from meshdev.sidecar.agent.firewall import PodFirewall
from meshdev.sidecar.agent.lifecycle import Lifecycle, Phase
from meshdev.sidecar.agent.listener_ports import ListenerPorts
from meshdev.sidecar.agent.passthrough import Passthrough
from meshdev.sidecar.agent.return_paths import ReturnPaths
from meshdev.sidecar.agent.settings import Settings
from meshdev.sidecar.agent.sockets import Sockets
from meshdev.sidecar.agent.trust import AgentIdentity
from meshdev.wire.access import Watch
from meshdev.wire.agent import FromAgent, ManagerOrder

log = logging.getLogger(__name__)

COUNT_SECONDS: Final = 1.0
_RESTART_SECONDS: Final = 0.1
_LONGEST_RESTART_SECONDS: Final = 5.0


class Agent:
    """Intercepts in one pod. :meth:`run` returns when they are no longer needed."""

    def __init__(
        self,
        settings: Settings,
        identity: AgentIdentity,
        firewall: PodFirewall,
        sockets: Sockets,
        passthrough: Passthrough,
        envoy: str,
    ) -> None:
        """All of them, and *passthrough* at work, stay their owner's: connections outlive what redirected them."""
        self._identity = identity
        self._firewall = firewall
        self._sockets = sockets
        self._passthrough = passthrough
        self._envoy = Envoy(settings, envoy, firewall.hold)
        self._watching = Watching(self._envoy, time.monotonic)
        self._control = Control(
            settings,
            identity,
            on_message=self._on_message,
            on_lost=self._on_lost,
            states=self._states,
            on_watch=self._on_watch,
        )
        passthrough.on_records = self._control.record
        self._return_paths = ReturnPaths(identity.issued.secrets, self._control.announce)
        self._listener_ports = ListenerPorts()
        self._lifecycle = Lifecycle(time.monotonic(), settings.probes, looks=firewall.looks)
        self._requests: asyncio.Queue[ReadStats | SetDraining] = asyncio.Queue()
        self._ended = asyncio.Event()

    def terminate(self) -> None:
        """The pod is going to end: serve until the app stops listening."""
        self._on(self._lifecycle.on_terminate)

    async def run(self) -> None:
        """Until nobody needs it; nothing is redirected and nothing claimed when this returns."""
        try:
            async with self._identity.issued.server.serving(self._envoy.secrets_path):
                await self._run_parts()
        finally:
            self._envoy.close()

    async def _run_parts(self) -> None:
        parts = (
            self._control.run(),
            self._await_attestation(),
            self._keep_envoy(),
            self._ask_envoy(),
            self._return_paths.run(),
            self._watching.run(),
            self._report_applied(),
            self._every(lambda: COUNT_SECONDS, self._count),
            self._every(lambda: self._lifecycle.tick_seconds, self._lifecycle.on_tick),
        )
        tasks = [asyncio.ensure_future(part) for part in parts]
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            done, _ = await asyncio.wait([ended, *tasks], return_when=asyncio.FIRST_COMPLETED)
            if ended not in done:
                self._on(self._lifecycle.on_failure)
                while not self._ended.is_set():  # the part that is missing may be what would tick
                    await asyncio.sleep(self._lifecycle.tick_seconds)
                    self._on(self._lifecycle.on_tick)
            for task in done - {ended}:
                task.result()
        finally:
            for task in (ended, *tasks):
                task.cancel()
            await asyncio.wait([ended, *tasks])
            await self._envoy.end()

    def _on(self, event: Callable[[float], Actions]) -> None:
        """Have something happen now."""
        self._perform(event(time.monotonic()))

    # -- actions ---------------------------------------------------------------------------------------------------

    def _perform(self, actions: Actions) -> None:
        for action in actions:
            self._perform_one(action)
        if self._lifecycle.phase is Phase.ENDED:
            self._ended.set()

    def _perform_one(self, action: Action) -> None:
        match action:
            case AllocateListeners():
                self._allocate(action)
            case SetProbes():
                self._return_paths.probe(action.relays)
            case FindListening():
                found, failing = self._sockets.listening(), self._passthrough.failing
                self._perform(self._lifecycle.on_listening(found, time.monotonic(), failing=failing))
            case ClaimPorts() | SetRedirects():
                self._set(action)
            case CountOlder():
                self._count_older(action)
            case ReadStats() | SetDraining():
                self._requests.put_nowait(action)
            case KillEnvoy():
                self._envoy.kill()
            case Announce():
                self._control.announce()
            case Log():
                log.log(logging.ERROR if action.error else logging.INFO, "%s", action.text)

    def _allocate(self, action: AllocateListeners) -> None:
        try:
            tcp = self._passthrough.listener_ports(action.ports)
            udp = self._listener_ports.of(port for port in action.ports if port.transport == "udp")
        except ClusterError as error:
            log.error("%s", error.message)  # noqa: TRY400 -- the sentence says it
        else:
            self._perform(self._lifecycle.on_listeners({**tcp, **udp}, self._envoy.folder))

    def _set(self, action: ClaimPorts | SetRedirects) -> None:
        try:
            if isinstance(action, ClaimPorts):
                self._passthrough.set_ports(action.ports, action.number)
                return
            self._firewall.redirect(action.ports)
        except (FirewallError, ProtocolError) as error:
            log.error("%s", error.message)  # noqa: TRY400 -- the sentence says it
        self._perform(self._lifecycle.on_redirected(frozenset(self._firewall.redirected)))

    def _count_older(self, action: CountOlder) -> None:
        if action.close and (closed := self._sockets.close_older(action.close)):
            log.info("%d older connections were closed", closed)
        self._perform(self._lifecycle.on_older(self._sockets.older(action.ports)))

    async def _ask_envoy(self) -> None:
        """What takes Envoy a while, one thing after the other."""
        while True:
            action = await self._requests.get()
            if isinstance(action, ReadStats):
                self._perform(await self._read_stats())
            else:
                self._perform(await self._drain(action))

    async def _read_stats(self) -> Actions:
        try:
            stats = await self._envoy.stats()
        except ClusterError as error:
            log.info("%s", error.message)
            return self._lifecycle.on_stats_failed(time.monotonic())
        return self._lifecycle.on_stats(stats, time.monotonic())

    async def _drain(self, action: SetDraining) -> Actions:
        try:
            await self._envoy.drain(on=action.on)
        except ClusterError as error:
            log.info("%s", error.message)
            return self._lifecycle.on_draining(action.on, failed=True)
        return self._lifecycle.on_draining(action.on)

    # -- events ----------------------------------------------------------------------------------------------------

    async def _await_attestation(self) -> None:
        await self._identity.attested()
        self._perform(self._lifecycle.on_attested())
        await asyncio.Event().wait()  # a part that ends is a failure

    def _on_watch(self, watch: Watch) -> None:
        self._passthrough.watch(watch)
        self._watching.watch(on=watch.on)

    def _on_message(self, message: ManagerOrder) -> None:
        self._perform(self._lifecycle.on_message(message, time.monotonic()))

    def _on_lost(self) -> None:
        log.warning("the stream to the manager is lost")
        self._on(self._lifecycle.on_lost)

    def _states(self) -> list[FromAgent]:
        return self._lifecycle.states(self._return_paths.found, time.monotonic())

    async def _report_applied(self) -> None:
        """The manager waits for it: at once."""
        while True:
            await self._passthrough.applied_more()
            self._on(partial(self._lifecycle.on_applied, self._passthrough.applied))

    def _count(self, now: float) -> Actions:
        passed = self._lifecycle.on_passthrough(self._passthrough.counts.totals, now)
        return [*self._lifecycle.on_count(), *passed]

    async def _every(self, seconds: Callable[[], float], event: Callable[[float], Actions]) -> None:
        while True:
            await asyncio.sleep(seconds())
            self._on(event)

    def _on_envoy_started(self) -> None:
        self._watching.envoy_started()
        self._on(self._lifecycle.on_envoy_started)

    async def _keep_envoy(self) -> None:
        """One that cannot be started is tried again, unless it is the first: then this sidecar is of no use."""
        pause, first = _RESTART_SECONDS, True
        while True:
            started = time.monotonic()
            try:
                await self._envoy.run(
                    started=self._on_envoy_started,
                    ended=lambda: self._on(self._lifecycle.on_envoy_ended),
                )
            except ClusterError as error:
                if first:
                    raise
                log.error("%s", error.message)  # noqa: TRY400 -- the sentence says it
            first = False
            if time.monotonic() - started > 2 * _LONGEST_RESTART_SECONDS:
                pause = _RESTART_SECONDS
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_RESTART_SECONDS)
