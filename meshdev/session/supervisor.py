"""One connection from its first step to its last undo.

Nested contexts hold what must be undone (helper, device, tunnel), task groups what runs. Whatever ends the connection
(the user, a signal, the helper's end, an error) is an exception of one task; leaving the contexts undoes everything,
DNS first, while the forwarder still answers.
"""

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

from meshdev.config import METRICS_PATH, OLDEST_PROTOCOL, PROTOCOL
from meshdev.errors import Cancelled, MeshdevError, VersionError, first_of_group
from meshdev.kube.leases import current_holder
from meshdev.published import Published
from meshdev.session import exports, socks
from meshdev.session.api import Exchange, StreamRequest, serving
from meshdev.session.cluster import Cluster, opened_cluster
from meshdev.session.exports import Exports, exporting, flushed
from meshdev.session.intercepts import NotConnected, SessionIntercepts, intercepting
from meshdev.session.laptop import Laptop, opened_laptop
from meshdev.session.names import Names
from meshdev.session.progress import Progress
from meshdev.session.state import SessionState
from meshdev.ssh.jump import Jump
from meshdev.tunnel.carrier import CarrierConnection
from meshdev.tunnel.pool import Pool
from meshdev.wire.control import Hello, Welcome
from meshdev.wire.session_api import (
    Answer,
    ConnectionState,
    ConnectOptions,
    DisconnectRequest,
    Question,
    Status,
    StatusRequest,
)
from meshdev.wire.session_dashboard import DashboardRequest
from meshdev.wire.session_inspect import InspectRequest
from meshdev.wire.session_intercepts import LeaveRequest

log = logging.getLogger(__name__)

#: How often what exists is looked at for a state that differs; one that somebody asks for is looked at then, too.
LOOK_SECONDS: Final = 0.5


class Supervisor:
    """Runs one connection. Made for one :meth:`run`."""

    def __init__(
        self, options: ConnectOptions, progress: Progress, helper: socket.socket, jump: Jump | None = None
    ) -> None:
        self._options = options
        self._progress = progress
        self._helper_socket = helper
        self._jump = jump
        self._stop = asyncio.Event()
        self._outcome: MeshdevError | None = None
        self.broken: MeshdevError | None = None
        """After :meth:`run`: why a connection that stood has ended, None where that was asked for."""
        self.state = Published(_first_state(options))
        self._exports: Exports | None = None
        self._socks: socket.socket | None = None
        self._cancelled = False
        self._parts: list[Callable[[SessionState], SessionState]] = []
        """What of the connection exists so far: each adds what it knows to a state."""
        self._intercepts: NotConnected | SessionIntercepts = NotConnected()

    def stop(self) -> None:
        """Undo everything and end; from a signal handler too."""
        self._stop.set()

    async def run(self, api: Path) -> int:
        """Connect, stay, undo. The exit code: 0 after a connection that was ended on purpose.

        Raises LaptopError, and does nothing, where nobody could reach it at *api*, or its metrics, or where it cannot
        send spans.
        """
        with socks.listening(self._options.socks) as self._socks:
            self._parts.append(partial(socks.show, socks.address(self._socks)))
            return await self._run(api)

    async def _run(self, api: Path) -> int:
        async with self._exporting(), self._metrics(), serving(api, self._answer, self._stream):
            connected = False
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._until_stopped())
                    caller = group.create_task(self._while_the_caller_waits())
                    async with self._connection():
                        connected = True
                        attended = self._options.attended
                        if not attended:
                            caller.cancel()
                        self._enter("connected")
                        await self._progress.done(self.status(), last=not attended)
                        await asyncio.Event().wait()
            except* MeshdevError as errors:
                self._outcome = self._outcome or first_of_group(errors)
            except* Exception as errors:  # the outermost edge: whoever waits gets it, the log has all
                log.exception("the session broke")
                sentence = f"internal error: {first_of_group(errors)!r}"
                self._outcome = self._outcome or MeshdevError(sentence, hint=f"its log: {api.parent}/session.log")
            error = self._outcome or Cancelled("disconnected")
            log.info("ended: %s", error.message)
            self._enter("disconnected")
            await self._progress.failed(error)
        self.broken = error if connected and not isinstance(error, Cancelled) else None
        return 0 if connected and isinstance(error, Cancelled) else error.exit_code

    @asynccontextmanager
    async def _exporting(self) -> AsyncIterator[None]:
        """Spans and logs are sent inside, where that was asked for. Raises LaptopError where they cannot be."""
        async with exporting(self._options) as self._exports:
            if self._exports is not None:
                self._parts.append(partial(exports.show, self._exports))
            yield

    @asynccontextmanager
    async def _metrics(self) -> AsyncIterator[None]:
        """They are served inside, where that was asked for. Raises LaptopError where the port is taken."""
        port = self._options.metrics_port
        if port is None:
            yield
            return
        from meshdev.session import metrics  # noqa: PLC0415 -- 80 ms and 4 MB that hardly a session needs

        async with metrics.serving(port, self._publish):
            yield

    # -- what ends it ----------------------------------------------------------------------------------------------

    async def _until_stopped(self) -> None:
        await self._stop.wait()
        self._end(Cancelled("disconnected"))

    async def _while_the_caller_waits(self) -> None:
        await self._progress.gone()
        self._end(Cancelled("the command that connects has ended"))

    def _end(self, error: MeshdevError) -> None:
        self._outcome = self._outcome or error
        raise error

    # -- the connection --------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[None]:
        """Connected inside; everything is undone when it is left."""
        async with self._opened() as (cluster, laptop):
            pool = Pool(
                laptop.device.queues,
                partial(self._dial, cluster, laptop),
                self._hello(laptop),
                laptop.set_address,
                cluster.greeted,
            )
            self._parts.append(partial(_show_tunnel, pool))
            async with pool.running(), asyncio.TaskGroup() as group, laptop.undoing(), _left(pool):
                group.create_task(laptop.keep_beating())
                group.create_task(laptop.watch_helper())
                welcome = await self._join(cluster, pool)
                group.create_task(pool.run())
                names = await self._set_up(cluster, laptop, pool, welcome, group)
                group.create_task(self._keep_published())
                group.create_task(names.health(laptop.troubles).run())
                intercepting_here = intercepting(cluster, laptop, pool, current_holder(), self._exports)
                proxying = socks.proxying(self._socks, laptop, names)
                async with flushed(self._exports), proxying, intercepting_here as intercepts:
                    self._parts.append(intercepts.show)
                    self._intercepts = intercepts
                    yield

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[tuple[Cluster, Laptop]]:
        """Laptop and cluster, opened at once: neither needs the other yet."""
        async with AsyncExitStack() as of_cluster, AsyncExitStack() as of_laptop:
            async with asyncio.TaskGroup() as group:
                cluster = group.create_task(self._open_cluster(of_cluster))
                laptop = group.create_task(self._open_laptop(of_laptop))
            yield cluster.result(), laptop.result()

    async def _open_cluster(self, undo: AsyncExitStack) -> Cluster:
        cluster = await undo.enter_async_context(opened_cluster(self._options, self._progress, self._jump))
        undo.callback(lambda: cluster.forget_connection() if self._cancelled else None)
        self._parts.insert(0, cluster.show)  # its notes come first
        await cluster.find_manager()
        return cluster

    async def _open_laptop(self, undo: AsyncExitStack) -> Laptop:
        opening = opened_laptop(self._helper_socket, self._options, self._progress)
        laptop = await undo.enter_async_context(opening)
        self._parts.append(laptop.show)
        return laptop

    @staticmethod
    async def _dial(cluster: Cluster, laptop: Laptop) -> CarrierConnection:
        """A carrier. What the API server's name resolves to now is kept out of the tunnel first."""
        await laptop.routing.keep_outside(await cluster.api.addresses())
        return await cluster.dial()

    @staticmethod
    def _hello(laptop: Laptop) -> Hello:
        return Hello(
            oldest=OLDEST_PROTOCOL,
            newest=PROTOCOL,
            session=secrets.token_hex(16),
            secret=secrets.token_hex(16),
            holder=current_holder(),
            offload=laptop.device.offload,
            pools=laptop.pools,
        )

    async def _join(self, cluster: Cluster, pool: Pool) -> Welcome:
        """The first carrier; a manager that speaks another protocol is replaced where nobody else needs it."""
        try:
            welcome = await pool.start()
        except VersionError as error:
            await cluster.replace_manager(error)
            welcome = await pool.start()
        kind = pool.carriers()[0].kind
        self._progress.step("tunnel", f"{welcome.address}, carried by {kind}, to {welcome.namespace}/{welcome.pod}")
        return welcome

    async def _set_up(
        self, cluster: Cluster, laptop: Laptop, pool: Pool, welcome: Welcome, group: asyncio.TaskGroup
    ) -> Names:
        await cluster.learn_ranges(laptop.routing, group)
        self._progress.step("routes", laptop.routing.describe())
        names = Names(laptop, pool, welcome, cluster.api)
        self._parts.append(names.show)
        await names.start(group)
        self._progress.step("names", names.describe())
        address = await names.check()
        self._progress.step("check", f"{names.first_name} is {address}")
        cluster.connected = True
        return names

    # -- what is published -----------------------------------------------------------------------------------------

    async def _keep_published(self) -> None:
        while True:
            self._publish()
            await asyncio.sleep(LOOK_SECONDS)

    def _enter(self, phase: ConnectionState) -> None:
        known = self.state.value
        log.info("%s → %s", known.phase, phase)
        self.state.publish(replace(known, phase=phase, since=time.monotonic()))

    def _publish(self) -> SessionState:
        """The state as it is now."""
        known = self.state.value
        state = SessionState(known.phase, known.since, known.metrics, otlp=known.otlp)
        for part in self._parts:
            state = part(state)
        self.state.publish(state)
        if state.phase not in {"connecting", "disconnected"}:
            phase: ConnectionState = "reconnecting"
            if state.connected:
                phase = "degraded" if state.troubles else "connected"
            if phase != state.phase:
                self._enter(phase)
        return self.state.value

    def status(self) -> Status:
        """As it is now."""
        return self._publish().status(time.monotonic())

    # -- what others ask -------------------------------------------------------------------------------------------

    async def _answer(self, request: Question) -> Answer:
        match request:
            case StatusRequest(settled):
                if settled:
                    settled_state = await self.state.until(lambda state: state.phase != "connecting")
                    if settled_state.phase == "disconnected" and self._outcome is not None:
                        raise self._outcome
                return self.status()
            case DisconnectRequest(cancelled):
                self._cancelled = cancelled
                self._stop.set()
                await self.state.until(lambda state: state.phase == "disconnected")
                return None
            case LeaveRequest():
                return await self._intercepts.leave(request)

    async def _stream(self, request: StreamRequest, exchange: Exchange) -> None:
        match request:
            case InspectRequest():
                await self._intercepts.inspect(request, exchange)
            case DashboardRequest():
                await self._intercepts.dashboard(self._publish, request, exchange)
            case _:
                await self._intercepts.stream(request, exchange)


def _first_state(options: ConnectOptions) -> SessionState:
    """With what is known before anything is done."""
    return SessionState(
        since=time.monotonic(),
        metrics=None if options.metrics_port is None else f"http://127.0.0.1:{options.metrics_port}{METRICS_PATH}",
        otlp=options.otlp,
    )


def _show_tunnel(pool: Pool, state: SessionState) -> SessionState:
    """*state*, with what the pool knows."""
    return replace(
        state,
        welcome=pool.welcome,
        carriers=pool.carriers(),
        tunnel_error=pool.last_error.message if pool.last_error else None,
        traffic=pool.traffic(),
        reconnects=pool.reconnects,
    )


@asynccontextmanager
async def _left(pool: Pool) -> AsyncIterator[None]:
    """When the context is left the carriers have said goodbye: they cannot once the helper has removed the device."""
    try:
        yield
    finally:
        await pool.leave()
