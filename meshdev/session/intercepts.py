"""The intercepts of this session: each a task, ended by its command, by ``leave``, or with the connection."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from meshdev.errors import Cancelled, InterceptError, MeshdevError, VersionError
from meshdev.intercept.spec import Spec
from meshdev.intercept.target import parse_target
from meshdev.kube import agent_tokens
from meshdev.kube.agent_tokens import Forward
from meshdev.kube.client import KubeApi
from meshdev.kube.sidecars import SidecarTerms, sidecar_terms
from meshdev.kube.workloads import resolve
from meshdev.modes.holding import Holding
from meshdev.modes.intent import intent
from meshdev.modes.leaving import clear
from meshdev.modes.link import Claim
from meshdev.session.api import Exchange
from meshdev.session.claim import Leading, claimed
from meshdev.session.laptop import Laptop
from meshdev.session.local import LocalPorts
from meshdev.tunnel.pool import Pool
from meshdev.wire.control import INTERCEPT_PROTOCOL
from meshdev.wire.intercepts import Relays, Report
from meshdev.wire.session_api import Note, Step, Wait
from meshdev.wire.session_intercepts import InterceptRequest, InterceptStatus, LeaveRequest, Left, Live, Up

log = logging.getLogger(__name__)

#: Live events of one stream are at least so many seconds apart.
LIVE_SECONDS: Final = 0.5
_MAX_NOTES: Final = 8


class _Story:
    """Tells the client of a stream."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._since = asyncio.get_running_loop().time()

    def step(self, name: str, text: str) -> None:
        now = asyncio.get_running_loop().time()
        self._exchange.send(Step(name, text, now - self._since))
        self._since = now

    def wait(self, text: str) -> None:
        self._exchange.send(Wait(text))

    def note(self, text: str) -> None:
        self._exchange.send(Note(text))


@dataclass(eq=False)
class _Running:
    """*task* gives what ended it, if that was an error."""

    holding: Holding
    task: asyncio.Task[MeshdevError | None]
    ending: bool = False

    @property
    def error(self) -> MeshdevError | None:
        return self.task.result() if self.task.done() and not self.task.cancelled() else None


class Intercepts:
    """All of one session. It is the :class:`meshdev.modes.link.Link` of each."""

    def __init__(self, api: KubeApi, forward: Forward, manager_namespace: str, holder: str, laptop: Laptop) -> None:
        self.api = api
        self.namespace = api.namespace
        self.manager_namespace = manager_namespace
        self.holder = holder
        self._forward = forward
        self._laptop = laptop
        self._leading = Leading(laptop)
        self._ports = LocalPorts()
        self._pool: Pool | None = None
        self._group: asyncio.TaskGroup | None = None
        self._running: list[_Running] = []
        self._ears: dict[str, Callable[[Relays | Report], None]] = {}
        self._notes: dict[str, None] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """Intercepts that were lost while nobody was attached."""
        return tuple(self._notes)

    def status(self) -> tuple[InterceptStatus, ...]:
        """All of them, the oldest first."""
        return tuple(status for each in self._running if (status := each.holding.status()) is not None)

    def heard(self, message: Relays | Report) -> None:
        """The manager's word, for whichever it is; one that has ended is told nothing."""
        ear = self._ears.get(message.id)
        if ear is not None:
            ear(message)

    @asynccontextmanager
    async def running(self, pool: Pool) -> AsyncIterator[None]:
        """Intercepts are taken inside; all are left when the context ends, while the tunnel is still there."""
        self._pool = pool
        # Two groups: should the looking break, intercepts are ended by _end, and not once more by their group.
        async with asyncio.TaskGroup() as around:
            looking = around.create_task(self._ports.run())
            try:
                async with asyncio.TaskGroup() as group:
                    self._group = group
                    try:
                        yield
                    finally:
                        self._group = None
                        await _whole(self._end(self._running))
            finally:
                looking.cancel()

    # -- what modes need of the session ----------------------------------------------------------------------------

    async def sidecars(self) -> SidecarTerms:
        """Where they find the manager, and what they run."""
        welcome = self._tunnel().welcome
        if welcome is not None and welcome.version < INTERCEPT_PROTOCOL:
            raise VersionError(
                "the manager is older than this meshdev and takes no intercepts",
                hint="replace it, also under others that use it: meshdev disconnect, then meshdev connect --upgrade",
            )
        return await sidecar_terms(self.api, self.manager_namespace)

    async def agent_token(self, namespace: str, pod: str, container: str) -> str:
        """Fetched with the user's own rights."""
        return await agent_tokens.fetch(self.api, self._forward, namespace, pod, container)

    async def agent_token_at(self, namespace: str, pod: str, port: int) -> str:
        """The same without the log."""
        return await agent_tokens.fetch_at(self._forward, namespace, pod, port)

    def claim(
        self, spec: Spec, *, reset_older: bool, heard: Callable[[Report], None]
    ) -> AbstractAsyncContextManager[Claim]:
        """Claim it at the manager."""
        return claimed(
            spec,
            reset_older=reset_older,
            pool=self._tunnel(),
            laptop=self._laptop,
            leading=self._leading,
            ports=self._ports,
            subscribe=self._subscribe,
            heard=heard,
        )

    def _tunnel(self) -> Pool:
        if self._pool is None:
            raise InterceptError("the connection is not up yet", hint="try again")
        return self._pool

    def _subscribe(self, id_: str, ear: Callable[[Relays | Report], None] | None) -> None:
        if ear is None:
            self._ears.pop(id_, None)
        else:
            self._ears[id_] = ear

    # -- what commands ask -----------------------------------------------------------------------------------------

    async def stream(self, request: InterceptRequest, exchange: Exchange) -> None:
        """One intercept, from the request to its end, or until the client lets it go on alone.

        Raises what kept it from coming up or ended it; everything of it is undone then.
        """
        running = self._start(request, exchange)
        task = running.task
        closed = asyncio.ensure_future(exchange.closed())
        up = asyncio.ensure_future(running.holding.up.wait())
        try:
            await asyncio.wait((task, closed, up), return_when=asyncio.FIRST_COMPLETED)
            if up.done() and (status := running.holding.status()) is not None:
                exchange.send(Up(status))
                if request.detach:
                    return
                await self._tell_always(running, exchange, (task, closed))
        finally:
            closed.cancel()
            up.cancel()
            if not (request.detach and running.holding.up.is_set()):
                await self._end([running])
        if running.error is not None:
            raise running.error
        if not running.holding.up.is_set():
            raise Cancelled("interrupted; the intercept is undone")
        exchange.send(Left())

    async def leave(self, request: LeaveRequest) -> tuple[str, ...]:
        """End this session's intercepts on the target, or all; what they were on. Nothing to do is no error."""
        if request.target is None:
            chosen = [each for each in self._running if request.namespace in (None, each.holding.namespace)]
            return await self._end(chosen)
        target, namespace = parse_target(request.target), request.namespace or self.namespace
        asked = [each for each in self._running if each.holding.asked_for(target, namespace)]
        known = [str(target), *(each.holding.workload for each in asked)]
        chosen = [each for each in self._running if any(each.holding.holds(name, namespace) for name in known if name)]
        starting = [each for each in asked if each.holding.workload is None]
        if chosen:  # what is known needs no API server, nor pods that a Service selects still
            return await self._end(chosen + starting)
        if starting:
            await self._end(starting)
        resolved = await resolve(self.api, target, namespace)
        left = await self._end(
            [each for each in self._running if each.holding.holds(str(resolved.workload), namespace)]
        )
        return left or await clear(self.api, resolved, self.holder)

    def _start(self, request: InterceptRequest, exchange: Exchange) -> _Running:
        if self._group is None:
            raise InterceptError("the connection is not up yet, or about to end", hint="try again")
        holding = Holding(self, intent(request), _Story(exchange), detached=request.detach)
        running = _Running(holding, self._group.create_task(self._hold(holding)))
        self._running.append(running)
        running.task.add_done_callback(lambda _: self._running.remove(running))
        return running

    async def _hold(self, holding: Holding) -> MeshdevError | None:
        outcome: MeshdevError
        try:
            await holding.run()
        except MeshdevError as error:
            outcome = error
        except Exception as error:  # an edge: who asked is told, the log has all, the connection goes on
            log.exception("an intercept broke")
            outcome = MeshdevError(f"this should not have happened: {error!r}", hint="the session's log has it")
        else:
            return None
        log.info("an intercept has ended: %s", outcome.message)
        if holding.up.is_set():
            self._notes[outcome.message] = None
            while len(self._notes) > _MAX_NOTES:
                del self._notes[next(iter(self._notes))]
        return outcome

    async def _end(self, chosen: Iterable[_Running]) -> tuple[str, ...]:
        """End them at once, and wait until everything of them is undone."""
        ending = list(chosen)
        statuses = [each.holding.status() for each in ending]
        for each in ending:
            if not each.ending:  # a second cancellation would end the undo
                each.ending = True
                each.task.cancel()
        if ending:
            await asyncio.wait([each.task for each in ending])
        names = (f"{status.target} in namespace {status.namespace}" for status in statuses if status is not None)
        return tuple(dict.fromkeys(names))

    @staticmethod
    async def _tell_always(running: _Running, exchange: Exchange, ends: tuple[asyncio.Future[Any], ...]) -> None:
        """Live events until one of *ends*; how old the intercept is is no news."""
        holding, told = running.holding, None
        while not any(each.done() for each in ends):
            status = holding.status()
            if status is not None and (told is None or replace(status, age_s=told.age_s) != told):
                told = status
                exchange.send(Live(status))
            holding.changed.clear()
            changed = asyncio.ensure_future(holding.changed.wait())
            await asyncio.wait((*ends, changed), return_when=asyncio.FIRST_COMPLETED, timeout=2)
            changed.cancel()
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED, timeout=LIVE_SECONDS)


async def _whole(work: Coroutine[Any, Any, object]) -> None:
    """All of *work*, whatever cancels meanwhile: undoing has its own limits, and what ends the session may be two."""
    task, cancelled = asyncio.ensure_future(work), None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
