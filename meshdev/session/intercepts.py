"""The intercepts of this session: each a task, ended by its command, by ``leave``, or with the connection."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

from meshdev.errors import Cancelled, InterceptError, MeshdevError, VersionError
from meshdev.intercept.target import parse_target
from meshdev.kube import attestation
from meshdev.kube.attestation import AgentAddress, Attested, Introduce
from meshdev.kube.manager import SidecarTerms, sidecar_terms
from meshdev.kube.workloads import resolve
from meshdev.modes.holding import hold
from meshdev.modes.intent import Intent, intent
from meshdev.modes.keeping import clear_leftovers
from meshdev.modes.state import InterceptState
from meshdev.published import Published
from meshdev.session.api import Exchange
from meshdev.session.claim import Claimant
from meshdev.session.cluster import Cluster
from meshdev.session.exports import Exports, follow
from meshdev.session.inspecting import Inspectable, Inspector
from meshdev.session.laptop import Laptop
from meshdev.session.local import LocalPorts
from meshdev.session.progress import StepReporter
from meshdev.session.records import RecordFeed
from meshdev.session.state import SessionState
from meshdev.tunnel.pool import Pool
from meshdev.wire.attestation import AgentAnnouncement
from meshdev.wire.control import INTERCEPT_PROTOCOL
from meshdev.wire.session_dashboard import DashboardRequest
from meshdev.wire.session_inspect import InspectRequest
from meshdev.wire.session_intercepts import InterceptRequest, InterceptStatus, LeaveRequest, Left, Live, Up
from meshdev.wire.watching import RENEW_SECONDS

log = logging.getLogger(__name__)

#: Live events of one stream are at least so many seconds apart.
LIVE_SECONDS: Final = 0.5
_MAX_NOTES: Final = 8


@dataclass(eq=False)
class _Running:
    """*task* gives what ended it, if that was an error."""

    intent: Intent
    namespace: str
    """The target's."""
    state: Published[InterceptState]
    task: asyncio.Task[MeshdevError | None]
    ending: bool = False

    @property
    def up(self) -> bool:
        return self.state.value.up

    @property
    def workload(self) -> str | None:
        return self.state.value.workload

    @property
    def error(self) -> MeshdevError | None:
        return self.task.result() if self.task.done() and not self.task.cancelled() else None


class NotConnected:
    """Stands for :class:`SessionIntercepts` before there is a connection."""

    async def stream(self, _request: InterceptRequest, _exchange: Exchange) -> None:
        """Refuse it."""
        raise InterceptError("the connection is not up yet", hint="try again")

    async def inspect(self, _request: InspectRequest, _exchange: Exchange) -> None:
        """Refuse it."""
        raise InterceptError("the connection is not up yet", hint="try again")

    async def dashboard(
        self, _state: Callable[[], SessionState], _request: DashboardRequest, _exchange: Exchange
    ) -> None:
        """Refuse it."""
        raise InterceptError("the connection is not up yet", hint="try again")

    async def leave(self, _request: LeaveRequest) -> tuple[str, ...]:
        """Refuse it."""
        raise InterceptError("the connection is not up yet", hint="try again")


@asynccontextmanager
async def intercepting(
    cluster: Cluster, laptop: Laptop, pool: Pool, holder: str, exports: Exports | None = None
) -> AsyncIterator["SessionIntercepts"]:
    """Intercepts are taken inside; all are left when the context ends, while the tunnel is still there.

    With *exports* their requests are traced, and go there.
    """
    ports, feed = LocalPorts(laptop.network, laptop.programs), RecordFeed(pool.claims.watch)
    pool.claims.on_records = feed.on_records
    # Two groups: should the looking break, intercepts are ended by close, and not once more by their group.
    async with asyncio.TaskGroup() as around:
        looking = around.create_task(ports.run())
        background = [around.create_task(_keep_renewing(feed))]
        try:
            async with asyncio.TaskGroup() as group:
                claimant = Claimant(pool, laptop, ports)
                intercepts = SessionIntercepts(cluster, claimant, feed, holder, group, trace=exports is not None)
                if exports is not None:
                    background.append(around.create_task(follow(exports, feed, intercepts.inspectable)))
                try:
                    yield intercepts
                finally:
                    await _whole(intercepts.close())
        finally:
            looking.cancel()
            for each in background:
                each.cancel()


class SessionIntercepts:
    """All of one session, made by :func:`intercepting`. It is the :class:`meshdev.modes.link.Link` of each."""

    def __init__(
        self,
        cluster: Cluster,
        claimant: Claimant,
        feed: RecordFeed,
        holder: str,
        group: asyncio.TaskGroup,
        *,
        trace: bool = False,
    ) -> None:
        self.api = cluster.api
        self.namespace = cluster.api.namespace
        self.manager_namespace = cluster.manager_namespace
        self.holder = holder
        self.trace = trace
        self.claim = claimant.claim
        self._cluster = cluster
        self._pool = claimant.pool
        self._group = group
        self._closing = asyncio.Event()
        self._feed = feed
        self._running: list[_Running] = []
        self._lost: dict[str, None] = {}
        self.inspect = Inspector(self.api, feed, self.inspectable).stream

    def show(self, state: SessionState) -> SessionState:
        """*state*, with all of them, the oldest first, and with those that were lost while nobody was attached."""
        intercepts = tuple(each.state.value for each in self._running)
        return replace(state, intercepts=intercepts, notes=(*state.notes, *self._lost))

    async def close(self) -> None:
        """Take no more, and end all of them."""
        self._closing.set()
        await self._end(self._running)

    # -- what modes need of the session ----------------------------------------------------------------------------

    async def sidecars(self) -> SidecarTerms:
        """Where they find the manager, and what they run."""
        welcome = self._pool.welcome
        if welcome is not None and welcome.version < INTERCEPT_PROTOCOL:
            raise VersionError(
                "the manager is older than this meshdev and takes no intercepts",
                hint="replace it, also under others that use it: meshdev disconnect, then meshdev connect --upgrade",
            )
        return await sidecar_terms(self.api, self.manager_namespace)

    async def announced(self, namespace: str, pod: str, container: str) -> AgentAnnouncement:
        """Read with the user's own rights."""
        return await attestation.announced(self.api, namespace, pod, container)

    async def attest(self, agent: AgentAddress, introduce: Introduce) -> Attested:
        """The same."""
        return await attestation.attest(self._cluster.forward, agent, introduce)

    @property
    def manager_certificate(self) -> Published[bytes | None]:
        """As the manager says over the tunnel, to which only the API server lets anybody."""
        return self._pool.claims.manager_certificate

    # -- what commands ask -----------------------------------------------------------------------------------------

    async def stream(self, request: InterceptRequest, exchange: Exchange) -> None:
        """One intercept, from the request to its end, or until the client lets it go on alone.

        Raises what kept it from coming up or ended it; everything of it is undone then.
        """
        running = self._start(request, exchange)
        task = running.task
        closed = asyncio.ensure_future(exchange.closed())
        up = asyncio.ensure_future(running.state.until(lambda state: state.up))
        try:
            await asyncio.wait((task, closed, up), return_when=asyncio.FIRST_COMPLETED)
            if up.done() and (status := up.result().status(time.monotonic(), live=True)) is not None:
                exchange.send(Up(status))
                if request.detach:
                    return
                await self._send_changes(running.state, exchange, (task, closed))
        finally:
            closed.cancel()
            up.cancel()
            if not (request.detach and running.up):
                await self._end([running])
        if running.error is not None:
            raise running.error
        if not running.up:
            raise Cancelled("interrupted; the intercept is undone")
        exchange.send(Left())

    async def dashboard(self, state: Callable[[], SessionState], request: DashboardRequest, exchange: Exchange) -> None:
        """Serve the page that shows *state*, these intercepts and their requests."""
        from meshdev.session import dashboard  # noqa: PLC0415 -- and the next: the HTTP server takes 2 MB
        from meshdev.session.dashboard_feed import Observed  # noqa: PLC0415 -- as above

        observed = Observed(self.api, self.holder, state, self._feed, self.inspectable, self._leave_one)
        await dashboard.stream(observed, self._closing, request, exchange)

    async def leave(self, request: LeaveRequest) -> tuple[str, ...]:
        """End this session's intercepts on the target, or all; what they were on. Nothing to do is no error."""
        if request.target is None:
            chosen = [each for each in self._running if request.namespace in (None, each.namespace)]
            return await self._end(chosen)
        target, namespace = parse_target(request.target), request.namespace or self.namespace
        asked = [each for each in self._running if (each.intent.target, each.namespace) == (target, namespace)]
        chosen = self._on(namespace, str(target), *(each.workload for each in asked))
        starting = [each for each in asked if each.workload is None]
        if chosen:  # what is known needs no API server, nor pods that a Service selects still
            return await self._end(chosen + starting)
        if starting:
            await self._end(starting)
        resolved = await resolve(self.api, target, namespace)
        left = await self._end(self._on(namespace, str(resolved.workload)))
        return left or await clear_leftovers(self.api, resolved, self.holder)

    async def _leave_one(self, id_: str) -> None:
        """End that intercept of this session. Raises InterceptError where there is none with that id."""
        chosen = [each for each in self._running if (plan := each.state.value.plan) and plan.spec.id == id_]
        if not chosen:
            raise InterceptError("this session has no such intercept", hint="meshdev list shows whose it is")
        await self._end(chosen)

    def inspectable(self, request: InspectRequest | None = None) -> tuple[Inspectable, ...]:
        """Those that a request asks for; all without one."""
        request = request or InspectRequest()
        target = parse_target(request.target) if request.target is not None else None
        namespace = request.namespace or (self.namespace if target else None)
        found = []
        for each in self._running:
            plan = each.state.value.plan
            if plan is None or namespace not in (None, each.namespace):
                continue
            workload = str(plan.spec.workload)
            if target is None or target == each.intent.target or str(target) == workload:
                found.append(Inspectable(plan.spec.id, each.namespace, workload))
        return tuple(found)

    def _on(self, namespace: str, *workloads: str | None) -> list[_Running]:
        """Those that are known to be on one of them."""
        return [
            each
            for each in self._running
            if each.namespace == namespace and each.workload is not None and each.workload in workloads
        ]

    def _start(self, request: InterceptRequest, exchange: Exchange) -> _Running:
        if self._closing.is_set():
            raise InterceptError("the connection is about to end", hint="try again")
        wanted = intent(request)
        state = Published(InterceptState(time.monotonic(), detached=request.detach))
        task = self._group.create_task(self._hold(wanted, StepReporter(exchange.send), state))
        running = _Running(wanted, wanted.namespace or self.namespace, state, task)
        self._running.append(running)
        task.add_done_callback(lambda _: self._running.remove(running))
        return running

    async def _hold(
        self, wanted: Intent, progress: StepReporter, state: Published[InterceptState]
    ) -> MeshdevError | None:
        outcome: MeshdevError
        try:
            await hold(self, wanted, progress, state)
        except MeshdevError as error:
            outcome = error
        except Exception as error:  # an edge: the client gets it, the log has all, the connection goes on
            log.exception("an intercept broke")
            outcome = MeshdevError(f"internal error: {error!r}", hint="the session's log has it")
        else:
            return None
        log.info("an intercept has ended: %s", outcome.message)
        if state.value.up:
            self._lost[outcome.message] = None
            while len(self._lost) > _MAX_NOTES:
                del self._lost[next(iter(self._lost))]
        return outcome

    async def _end(self, chosen: Iterable[_Running]) -> tuple[str, ...]:
        """End them at once, and wait until everything of them is undone."""
        ending = list(chosen)
        names = [f"{each.workload} in namespace {each.namespace}" for each in ending if each.workload]
        for each in ending:
            if not each.ending:  # a second cancellation would end the undo
                each.ending = True
                each.task.cancel()
        if ending:
            await asyncio.wait([each.task for each in ending])
        return tuple(dict.fromkeys(names))

    @staticmethod
    async def _send_changes(
        state: Published[InterceptState], exchange: Exchange, ends: tuple[asyncio.Future[Any], ...]
    ) -> None:
        """Live events until one of *ends*; how old the intercept is is no news."""
        sent: InterceptStatus | None = None
        while not any(each.done() for each in ends):
            current = state.value
            status = current.status(time.monotonic(), live=True)
            if status is not None and (sent is None or replace(status, age_s=sent.age_s) != sent):
                sent = status
                exchange.send(Live(status))
            changed = asyncio.ensure_future(state.changed(current))
            await asyncio.wait((*ends, changed), return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED, timeout=LIVE_SECONDS)


async def _keep_renewing(feed: RecordFeed) -> None:
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        feed.renew()


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
