"""One connection from its first step to its last undo.

Nested contexts hold what must be undone (helper, device, tunnel), task groups what runs. Whatever ends the connection
(the user, a signal, the helper's end, an error) is an exception of one task; leaving the contexts undoes everything,
DNS first, while the forwarder still answers.
"""

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from meshdev.config import OLDEST_PROTOCOL, PROTOCOL
from meshdev.errors import Cancelled, InterceptError, MeshdevError, VersionError
from meshdev.session.api import Exchange, serving
from meshdev.session.cluster import Cluster
from meshdev.session.helper_client import HelperClient
from meshdev.session.holder import holder
from meshdev.session.intercepts import Intercepts
from meshdev.session.laptop import Laptop
from meshdev.session.names import Names
from meshdev.session.progress import Progress
from meshdev.tunnel.carrier import Dialled
from meshdev.tunnel.pool import Pool
from meshdev.wire.control import Hello, Welcome
from meshdev.wire.session_api import (
    Answer,
    CarrierStatus,
    ConnectOptions,
    DisconnectRequest,
    Question,
    State,
    Status,
    StatusRequest,
)
from meshdev.wire.session_intercepts import InterceptRequest, LeaveRequest

log = logging.getLogger(__name__)

E = TypeVar("E", bound=Exception)

#: How often the state is looked at for `since_s` and the log; nothing depends on it.
LOOK_SECONDS: Final = 0.5


class Supervisor:
    """Runs one connection. Made for one :meth:`run`."""

    def __init__(self, options: ConnectOptions, progress: Progress, helper: socket.socket) -> None:
        self._options = options
        self._progress = progress
        self._helper_socket = helper
        self._stop = asyncio.Event()
        self._settled = asyncio.Event()
        self._undone = asyncio.Event()
        self._outcome: MeshdevError | None = None
        self.broken: MeshdevError | None = None
        """After :meth:`run`: why a connection that stood has ended, None where that was asked for."""
        self._cluster = Cluster(options, progress)
        self._laptop: Laptop | None = None
        self._names: Names | None = None
        self._pool: Pool | None = None
        self._intercepts: Intercepts | None = None
        self._state: State = "connecting"
        self._since = time.monotonic()

    def stop(self) -> None:
        """Undo everything and end; from a signal handler too."""
        self._stop.set()

    async def run(self, api: Path) -> int:
        """Connect, stay, undo. The exit code: 0 after a connection that was ended on purpose.

        Raises LaptopError, and does nothing, where nobody could reach it at *api*.
        """
        async with serving(api, self._answer, self._stream):
            connected = False
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._until_stopped())
                    caller = group.create_task(self._while_the_caller_waits())
                    async with self._connection():
                        connected = True
                        caller.cancel()
                        self._settled.set()
                        await self._progress.done(self.status())
                        await asyncio.Event().wait()
            except* MeshdevError as errors:
                self._outcome = self._outcome or _first(errors)
            except* Exception as errors:  # the outermost edge: whoever waits is told, the log has all
                log.exception("the session broke")
                sentence = f"this should not have happened: {_first(errors)!r}"
                self._outcome = self._outcome or MeshdevError(sentence, hint=f"its log: {api.parent}/session.log")
            error = self._outcome or Cancelled("disconnected")
            log.info("ended: %s", error.message)
            self._state = "disconnected"
            self._settled.set()
            self._undone.set()
            await self._progress.failed(error)
        self.broken = error if connected and not isinstance(error, Cancelled) else None
        return 0 if connected and isinstance(error, Cancelled) else error.exit_code

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
        laptop = self._laptop = Laptop(HelperClient(self._helper_socket), self._options, self._progress)
        async with self._cluster, laptop:
            await self._open_both(laptop)
            dial = partial(self._dial, laptop)
            namespace = self._cluster.manager_namespace or self._cluster.api.namespace
            intercepts = Intercepts(self._cluster.api, self._cluster.forward, namespace, holder(), laptop)
            hello = self._hello(laptop)
            pool = self._pool = Pool(
                laptop.device.queues, dial, hello, laptop.set_address, intercepts.heard, self._cluster.greeted
            )
            async with pool.running(), asyncio.TaskGroup() as group, laptop.undoing(), _left(pool):
                group.create_task(laptop.keep_beating())
                group.create_task(laptop.watch_helper())
                welcome = await self._join(pool)
                group.create_task(pool.run())
                names = await self._set_up(laptop, pool, welcome, group)
                group.create_task(self._watch_state())
                group.create_task(names.health(laptop.troubles).run())
                async with intercepts.running(pool):
                    self._intercepts = intercepts
                    yield

    async def _open_both(self, laptop: Laptop) -> None:
        """Laptop and cluster at once: neither needs the other yet."""
        async with asyncio.TaskGroup() as group:
            group.create_task(laptop.open_device())
            group.create_task(self._cluster.open())

    async def _dial(self, laptop: Laptop) -> Dialled:
        """A carrier. Where the API server's name leads now is kept out of the tunnel first: it may have moved."""
        await laptop.routing.keep_outside(await self._cluster.api.addresses())
        return await self._cluster.dial()

    def _hello(self, laptop: Laptop) -> Hello:
        return Hello(
            oldest=OLDEST_PROTOCOL,
            newest=PROTOCOL,
            session=secrets.token_hex(16),
            secret=secrets.token_hex(16),
            holder=holder(),
            offload=laptop.device.offload,
            pools=laptop.pools,
        )

    async def _join(self, pool: Pool) -> Welcome:
        """The first carrier; a manager that speaks another protocol is replaced where nobody else needs it."""
        try:
            welcome = await pool.start()
        except VersionError as error:
            await self._cluster.replace_manager(error)
            welcome = await pool.start()
        kind = pool.carriers()[0].kind
        self._progress.step("tunnel", f"{welcome.address}, carried by {kind}, to {welcome.namespace}/{welcome.pod}")
        return welcome

    async def _set_up(self, laptop: Laptop, pool: Pool, welcome: Welcome, group: asyncio.TaskGroup) -> Names:
        await self._cluster.learn_ranges(laptop.routing, group)
        self._progress.step("routes", laptop.routing.describe())
        names = self._names = Names(laptop, pool, welcome, self._cluster.api)
        await names.start(group)
        self._progress.step("names", names.describe())
        address = await names.check()
        self._progress.step("check", f"{names.first_name} is {address}")
        self._cluster.connected = True
        return names

    async def _watch_state(self) -> None:
        while True:
            self._look()
            await asyncio.sleep(LOOK_SECONDS)

    def _look(self) -> State:
        state = self._state
        if self._settled.is_set() and state != "disconnected" and self._pool is not None:
            state = "reconnecting"
            if self._pool.connected():
                state = "degraded" if self._laptop is not None and self._laptop.troubles else "connected"
        if state != self._state:
            log.info("%s → %s", self._state, state)
            self._state, self._since = state, time.monotonic()
        return state

    # -- what others ask -------------------------------------------------------------------------------------------

    async def _answer(self, request: Question) -> Answer:
        match request:
            case StatusRequest(settled):
                if settled:
                    await self._settled.wait()
                    if self._undone.is_set() and self._outcome is not None:
                        raise self._outcome
                return self.status()
            case DisconnectRequest():
                self._stop.set()
                await self._undone.wait()
                return None
            case LeaveRequest():
                return await self._taken().leave(request)

    async def _stream(self, request: InterceptRequest, exchange: Exchange) -> None:
        await self._taken().stream(request, exchange)

    def _taken(self) -> Intercepts:
        if self._intercepts is None:
            raise InterceptError("the connection is not up yet", hint="try again")
        return self._intercepts

    def status(self) -> Status:
        """As it is now."""
        state = self._look()
        pool, laptop, names, cluster = self._pool, self._laptop, self._names, self._cluster
        welcome = pool.welcome if pool else None
        carriers = pool.carriers() if pool else ()
        notes = [*cluster.notes, *(laptop.routing.notes if laptop else ()), *(names.notes if names else ())]
        notes += self._intercepts.notes if self._intercepts else ()
        if state == "degraded" and laptop:
            notes = [*laptop.troubles.notes(), *notes]
        if state == "reconnecting" and pool and pool.last_error:
            notes.append(pool.last_error.message)
        return Status(
            state=state,
            context=cluster.context,
            namespace=cluster.namespace,
            server=cluster.server,
            address=str(welcome.address) if welcome else None,
            carrier=carriers[0].kind if carriers else None,
            carriers=tuple(
                CarrierStatus(item.kind, item.up, None if item.round_trip is None else round(item.round_trip * 1e3, 2))
                for item in carriers
            ),
            routes=tuple(map(str, laptop.routing.routes)) if laptop else (),
            dns=names.status() if names else None,
            manager_namespace=cluster.manager_namespace,
            manager_pod=welcome.pod if welcome else None,
            session_pid=os.getpid(),
            helper_pid=laptop.helper_pid if laptop else None,
            intercepts=self._intercepts.status() if self._intercepts else (),
            since_s=round(time.monotonic() - self._since, 1),
            notes=tuple(notes),
        )


@asynccontextmanager
async def _left(pool: Pool) -> AsyncIterator[None]:
    """When the context is left the manager has been told, as it cannot be once the helper has removed the device."""
    try:
        yield
    finally:
        await pool.leave()


def _first(errors: BaseExceptionGroup[E]) -> E:
    """The first error of a group; later ones are mostly its consequences."""
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
