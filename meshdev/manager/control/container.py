"""The container *control* as a whole: its core with the sockets of the other containers and the server for sidecars."""

import asyncio
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from meshdev.identity.authority import Authority
from meshdev.manager.control import exports, metrics
from meshdev.manager.control.core import Core
from meshdev.manager.control.credentials import server_credentials
from meshdev.manager.control.relay_client import RELAY_SOCKET, RelayClient
from meshdev.manager.control.service import serve
from meshdev.manager.control.tunnel_client import TUNNEL_SOCKET, TunnelClient
from meshdev.manager.control.watches import WaitingRecords, Watches
from meshdev.telemetry.endpoint import OtlpEndpoints
from meshdev.telemetry.signals import SignalState
from meshdev.wire.intercepts import Agents
from meshdev.wire.manager import Claimed, ManagerAddress, Synced, ToTunnel, Withdrawn
from meshdev.wire.relay import ToRelay
from meshdev.wire.watching import WatchClaim

log = logging.getLogger("meshdev.manager.control")


@dataclass(frozen=True)
class ControlSettings:
    """Where control finds the others, and keeps its key (a folder that it alone enters)."""

    trust_domain: str
    address: str
    authority: Path = Path("/run/control/authority")
    tunnel: Path = TUNNEL_SOCKET
    relay: Path = RELAY_SOCKET
    certificate_lifetime: timedelta = timedelta(hours=1)
    metrics: tuple[str, int] | None = None
    """Where its metrics are served."""
    trace_all: bool = False
    """Whether the requests of every claim get a trace context."""
    exports: OtlpEndpoints = exports.NOWHERE
    """Where spans and logs of every claim are sent."""


class ControlContainer:
    """One process of it. ``authority`` and ``core`` are there at once, ``port`` when :attr:`serving` is set."""

    def __init__(self, settings: ControlSettings) -> None:
        """Raises ManagerError where its key cannot be kept."""
        loop = asyncio.get_running_loop()
        self._settings = settings
        self.authority = Authority.open(settings.authority, settings.trust_domain, _now())

        def to_tunnel(key: str, message: ToTunnel) -> None:
            self._tunnel.send_latest(key, message)

        def to_relay(key: str, message: ToRelay) -> None:
            self._relay.send_latest(key, message)

        self.core = Core(
            self.authority,
            to_tunnel,
            to_relay,
            loop.call_later,
            loop.time,
            _now,
            settings.certificate_lifetime,
            trace_all=settings.trace_all,
        )
        self._tunnel = TunnelClient(
            settings.tunnel, self._on_tunnel_connected, self._on_tunnel_message, self.core.for_tunnel
        )

        def send_records(queue: WaitingRecords) -> None:
            self._tunnel.send_latest(queue.name, queue)

        self.watches = Watches(self.core, send_records, loop.call_later, loop.time)
        self.exports = exports.opened(settings.exports)
        if (sending := self.exports) is not None:
            self.watches.watch_all(lambda held, record: sending.request(exports.request(held, record)), sending.missed)
        self._relay = RelayClient(settings.relay, self.authority, _now, self.core.for_relay)
        self.port = 0
        self.serving = asyncio.Event()

    async def run(self) -> None:
        """Serve until cancelled."""
        try:
            await self._run()
        finally:
            if self.exports is not None:
                await self.exports.close()

    async def _run(self) -> None:
        synced = asyncio.Event()
        self.core.on_synced = synced.set
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tunnel.run())
            group.create_task(self._relay.run())
            if self._settings.metrics is not None:
                group.create_task(metrics.serve(self.core, self._settings.metrics, self._signals))
            # Before all claims are known, sidecars that reconnect would be refused: no session would vouch for them.
            await synced.wait()
            await self._serve()

    def _on_tunnel_connected(self) -> None:
        self.core.tunnel_connected()
        self.watches.tunnel_connected()

    def _on_tunnel_message(self, message: ManagerAddress | Claimed | Agents | Withdrawn | WatchClaim | Synced) -> None:
        if isinstance(message, WatchClaim):
            self.watches.on_watch(message)
        else:
            self.core.on_tunnel_message(message)
        if isinstance(message, Agents):
            self.watches.refresh()

    def _signals(self) -> tuple[SignalState, ...]:
        return self.exports.states if self.exports is not None else ()

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        credentials = server_credentials(self.authority, _now())
        server, self.port = await serve(self.core, self.watches, self._settings.address, credentials)
        log.info("sidecars are served at port %d", self.port)
        self.serving.set()
        try:
            await loop.create_future()
        finally:
            await server.stop(0)


def _now() -> datetime:
    return datetime.now(UTC)
