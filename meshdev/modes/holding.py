"""One intercept from its first look at the target to its last undo.

What is put into the cluster, and what takes it back, also when the session is killed in the next instruction:

====================  ==============================================  =========================================
what                  undone by the session                           undone without it
====================  ==============================================  =========================================
Lease                 deleted                                         expires, then any session deletes it
claim at the manager  withdrawn; every pod says that it let go        gone 10 s after the tunnel
sidecar, ephemeral    ends 30 s after the last claim                  the same
sidecar, patched      taken out of the template by the last session   idles; by the next session that leaves
====================  ==============================================  =========================================
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from functools import partial
from typing import Any, Final, TypeVar

from meshdev.errors import ConfigError, InterceptError, MeshdevError
from meshdev.intercept import match
from meshdev.intercept.lease import Status
from meshdev.intercept.liveness import CONFIRM_SECONDS
from meshdev.intercept.target import Target
from meshdev.kube import leases
from meshdev.kube.leases import Held
from meshdev.kube.observing import Observer
from meshdev.kube.replicas import Replica
from meshdev.kube.workloads import replicas_now, watch_replicas
from meshdev.modes.agents import Agents
from meshdev.modes.intent import Intent
from meshdev.modes.keeping import CREDENTIALS_SECONDS, Renewal, first_of, keep_out, watched
from meshdev.modes.link import Claim, Link, Story
from meshdev.modes.plan import Plan, is_tcp, look, pod_port
from meshdev.modes.pods import Pods
from meshdev.sidecar.join import ephemeral, patch
from meshdev.wire.counts import InterceptCounts
from meshdev.wire.intercepts import Report
from meshdev.wire.session_intercepts import InterceptStatus, PendingListener

log = logging.getLogger(__name__)

#: All pods have a sidecar in seconds where its image is on their nodes; pulling 300 MB may take a while.
UP_SECONDS: Final = 120.0
#: How often pods are looked at for what only time makes an error.
_LOOK_SECONDS: Final = 0.25
#: Mostly it is up before anybody would ask why it is not.
_PATIENCE_SECONDS: Final = 1.0
#: Time for each step of the undo, in seconds.
_UNDO_SECONDS: Final = 8.0
#: The same where it has to be seen whether another session lives: only of one that this one saw for a few seconds.
_LOOKING_SECONDS: Final = _UNDO_SECONDS + CONFIRM_SECONDS
_MAX_NOTES: Final = 8

T = TypeVar("T")


class Holding:
    """An intercept. :meth:`run` holds it until it is cancelled; ``up`` is set once it works."""

    def __init__(self, link: Link, intent: Intent, story: Story, *, detached: bool) -> None:
        self._link = link
        self._intent = intent
        self._story = story
        self._plan: Plan | None = None
        self._pods: Pods | None = None
        self._claim: Claim | None = None
        self._observer = Observer(told=story.wait)
        self._since = time.monotonic()
        self._news = asyncio.Event()
        self._notes: dict[str, None] = {}
        self._detached = detached
        self._failure: MeshdevError | None = None
        self.up = asyncio.Event()
        self.changed = asyncio.Event()
        """Set whenever :meth:`status` may be another."""

    @property
    def namespace(self) -> str:
        """The target's."""
        return self._intent.namespace or self._link.namespace

    def holds(self, workload: str, namespace: str) -> bool:
        """Whether it is on that workload (``deployment/b``)."""
        return self._plan is not None and (str(self._plan.spec.workload), self.namespace) == (workload, namespace)

    @property
    def workload(self) -> str | None:
        """As people name it; None where nobody knows yet which one it is."""
        return str(self._plan.spec.workload) if self._plan is not None else None

    def asked_for(self, target: Target, namespace: str) -> bool:
        """Whether it was asked for by that name."""
        return (self._intent.target, self.namespace) == (target, namespace)

    def status(self) -> InterceptStatus | None:
        """As it is now; None while nothing is planned yet."""
        plan, pods, claim = self._plan, self._pods, self._claim
        if plan is None:
            return None
        spec = plan.spec
        return InterceptStatus(
            id=spec.id,
            target=str(spec.workload),
            namespace=spec.workload.namespace,
            mode=spec.mode,
            match=match.text(spec.match),
            ports=tuple(f"{port.local}:{port.remote}/{port.protocol}" for port in spec.ports),
            strategy=plan.strategy,
            state="active" if self.up.is_set() and not self._idles() else "pending",
            fallback=spec.fallback,
            detached=self._detached,
            acked=pods.acked(claim.up) if pods and claim else 0,
            total=pods.total if pods else 0,
            counts=pods.counts if pods else InterceptCounts(),
            local=claim.local if claim else (),
            notes=tuple(self._notes),
            age_s=round(time.monotonic() - self._since, 1),
            url=plan.url,
            pending_listeners=self._pending_listeners(),
        )

    def _idles(self) -> bool:
        """Nothing listens in the pods on any of its ports: they refuse, as without it."""
        plan, pods = self._plan, self._pods
        return plan is not None and pods is not None and pods.all_pending({pod_port(port) for port in plan.spec.ports})

    def _pending_listeners(self) -> tuple[PendingListener, ...]:
        pending = self._pods.pending if self._pods else {}
        ports = self._plan.spec.ports if self._plan else ()
        return tuple(
            PendingListener(port.remote, port.transport, pending[pod_port(port)])
            for port in ports
            if pod_port(port) in pending
        )

    async def run(self) -> None:
        """Intercept until cancelled; everything is undone when this ends.

        Raises what kept it from coming up, and InterceptError when it is somebody else's by now.
        """
        plan = self._plan = await look(self._link, self._intent, self.namespace)
        self._story.step("target", plan.describe())
        tcp = any(is_tcp(port) for port in plan.spec.ports)
        pods = self._pods = Pods(time.monotonic, plan.sidecar.manager, plan.sidecar.workload, tcp=tcp)
        try:
            async with self._held(plan) as held, self._claimed(plan, pods) as claim:
                self._claim = claim
                async with asyncio.TaskGroup() as group:
                    renewal = Renewal(self._link.api, held, self._lease_status, self._not_renewed)
                    watching = partial(watched, self._link.api, held, self._observer, self._note, self._trouble)
                    group.create_task(renewal.run())
                    group.create_task(self._patiently(watching))
                    looking = partial(replicas_now, self._link.api, plan.resolved)
                    group.create_task(keep_out(pods, claim, looking, self._trouble))
                    await claim.ready()
                    await self._enter(plan, pods, claim, group)
                    await self._until_up(pods, claim)
                    pods.proven = True
                    await claim.proven()
                    # The Lease says so first: who lists intercepts afterwards is told the same as who made this one.
                    await renewal.said()
                    self.up.set()
                    self._tell(plan, pods)
                    await self._follow(pods)
        except BaseExceptionGroup as errors:
            raise _first(errors) from None

    # -- what is put into the cluster, and taken back --------------------------------------------------------------

    @asynccontextmanager
    async def _held(self, plan: Plan) -> AsyncIterator[Held]:
        """Our Lease inside. Its undo is known before the next step."""
        link, workload, observer = self._link, plan.spec.workload, self._observer
        async with AsyncExitStack() as undo:

            def taken(held: Held) -> None:
                if workload.has_template:
                    undo.push_async_callback(
                        self._undo, f"the template of {workload}", lambda: self._unpatch(plan), _LOOKING_SECONDS
                    )
                undo.push_async_callback(
                    self._undo, "the Lease of a dead session", lambda: leases.delete_stale(link.api, workload, observer)
                )
                undo.push_async_callback(self._undo, "the Lease", lambda: leases.release(link.api, held))

            taking = leases.take(
                link.api,
                plan.spec,
                link.holder,
                link.manager_namespace,
                observer=observer,
                takeover=self._intent.takeover,
            )
            yield await _acquired(taking, taken)

    async def _unpatch(self, plan: Plan) -> None:
        """Whoever leaves last has to, whichever way this one had entered."""
        api, workload = self._link.api, plan.spec.workload
        if await patch.leave(api, plan.resolved, lambda: leases.anyone_on(api, workload, self._observer)):
            log.info("the template of %s in %s is as before", workload, workload.namespace)

    async def _undo(self, what: str, step: Callable[[], Awaitable[object]], seconds: float | None = None) -> None:
        """One step of the undo; one that fails does not keep the others from theirs."""
        try:
            # Not asyncio.timeout: before Python 3.11.3 (gh-102780) that raises no TimeoutError in a task that was
            # cancelled, as whoever leaves was.
            await asyncio.wait_for(_awaited(step()), seconds or _UNDO_SECONDS)
        except (MeshdevError, TimeoutError) as error:
            sentence = f"{what} in namespace {self.namespace} is left: {str(error) or 'no answer'}"
            log.warning("%s", sentence)
            self._story.note(sentence)

    def _claimed(self, plan: Plan, pods: Pods) -> Any:  # noqa: ANN401 -- the link's own context
        def heard(report: Report) -> None:
            pods.reported(report)
            self._wake()

        return self._link.claim(plan.spec, reset_older=self._intent.reset_existing, heard=heard)

    # -- sidecars --------------------------------------------------------------------------------------------------

    async def _enter(self, plan: Plan, pods: Pods, claim: Claim, group: asyncio.TaskGroup) -> None:
        """A sidecar in every pod there is; those that come are joined as long as *group* lives."""
        api = self._link.api

        def fetched() -> None:
            pods.unknown(agents.unknown)
            self._wake()

        def changed(replicas: Mapping[str, Replica]) -> None:
            pods.watched(replicas)
            agents.watched(replicas)
            fetched()

        agents = Agents(self._link, plan.sidecar, claim, fetched)
        group.create_task(agents.run())

        def interrupted(error: MeshdevError) -> None:
            pods.unwatched()
            self._trouble(error)

        async def sighted(work: Callable[[], Awaitable[None]]) -> None:
            try:
                await work()
            finally:
                pods.unwatched()

        if plan.strategy == "ephemeral":
            joining = partial(
                ephemeral.keep_joined,
                api,
                plan.resolved,
                plan.sidecar,
                changed=changed,
                failed=self._cannot_join,
                trouble=interrupted,
            )
            group.create_task(self._patiently(partial(sighted, joining)))
            return
        # Agents of new pods become part of the claim while others are still to be replaced.
        watching = partial(self._watch, plan, changed, interrupted)
        group.create_task(self._patiently(partial(sighted, watching)))
        self._story.wait(f"the pods of {plan.spec.workload} are replaced")
        await patch.enter(api, plan.resolved, plan.sidecar, plan.spec.id, progress=self._story.wait)

    async def _watch(
        self,
        plan: Plan,
        changed: Callable[[Mapping[str, Replica]], None],
        interrupted: Callable[[MeshdevError], None],
    ) -> None:
        async with aclosing(watch_replicas(self._link.api, plan.resolved, interrupted)) as states:
            async for state in states:
                changed(state)

    def _cannot_join(self, pod: Replica, error: MeshdevError) -> None:
        self._note(f"pod {pod.name} has no sidecar: {error.message}")
        if not self.up.is_set():
            self._failure = error
            self._wake()

    async def _until_up(self, pods: Pods, claim: Claim) -> None:
        """Every pod that counts has acknowledged the route and reached this machine."""
        since, told, why = time.monotonic(), None, None
        try:
            async with asyncio.timeout(UP_SECONDS):
                while (why := pods.waiting(claim.up)) is not None:
                    if error := self._failure or pods.trouble():
                        raise error
                    if why != told and time.monotonic() - since > _PATIENCE_SECONDS:
                        told = why
                        self._story.wait(why)
                    await self._wait_for_news()
        except TimeoutError:
            raise InterceptError(f"not up within {UP_SECONDS:.0f} seconds: waiting for {why}") from None

    def _tell(self, plan: Plan, pods: Pods) -> None:
        how = "as an ephemeral container" if plan.strategy == "ephemeral" else "in the template"
        many = "pod" if pods.total == 1 else "pods"
        self._story.step("sidecar", f"{how}, in {pods.total} of {pods.total} {many}")
        for port in self._pending_listeners():
            where = f"{port.pods} of {pods.total} {many}"
            self._story.note(f"pending listener: nothing listens on port {port.port}/{port.transport} in {where}")
        if why := pods.stuck():
            self._story.note(why)
        older = pods.counts.older
        if older:
            what = "1 older connection still goes" if older == 1 else f"{older} older connections still go"
            self._story.note(f"{what} to the original; --existing reset closes such")
        self._story.step("route", f"{match.text(plan.spec.match)} → this machine")

    async def _follow(self, pods: Pods) -> None:
        """What goes wrong later is told; nothing of it ends the intercept."""
        while True:
            if error := pods.trouble():
                self._note(error.message)
            await self._wait_for_news()

    async def _wait_for_news(self) -> None:
        self._news.clear()
        await first_of(self._news, _LOOK_SECONDS)

    def _wake(self) -> None:
        self._news.set()
        self.changed.set()

    # -- the Lease -------------------------------------------------------------------------------------------------

    def _lease_status(self) -> Status:
        pods, claim = self._pods, self._claim
        acked, total = (pods.acked(claim.up), pods.total) if pods and claim else (0, 0)
        pending = tuple(f"{each.port}/{each.transport}" for each in self._pending_listeners())
        return Status("active" if pods and pods.proven and not self._idles() else "pending", acked, total, pending)

    def _not_renewed(self, error: MeshdevError) -> None:
        """Nor could others renew theirs, perhaps, though the watch goes on: their silence proves nothing."""
        self._observer.blind()
        self._trouble(error)

    async def _patiently(self, work: Callable[[], Awaitable[None]]) -> None:
        """Credentials that run out later end nothing: the claim is the tunnel's, and there may be others soon."""
        while True:
            try:
                await work()
            except* ConfigError as errors:  # CredentialError is its kind
                if not self.up.is_set():
                    raise
                self._note(str(_first(errors)))
            await asyncio.sleep(CREDENTIALS_SECONDS)

    def _trouble(self, error: MeshdevError) -> None:
        log.info("intercepting %s: %s", self._intent.target, error.message)

    def _note(self, text: str) -> None:
        if text not in self._notes:
            log.info("%s: %s", self._intent.target, text)
            self._story.note(text)
            self._notes[text] = None
            while len(self._notes) > _MAX_NOTES:
                del self._notes[next(iter(self._notes))]
            self.changed.set()


async def _awaited(step: Awaitable[object]) -> None:
    await step


async def _acquired(making: Coroutine[Any, Any, T], keep: Callable[[T], None]) -> T:
    """What *making* gives, told to *keep*. A cancellation waits for it: what was made must be known."""
    task = asyncio.ensure_future(making)
    try:
        made = await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled() and task.exception() is None:
            keep(task.result())
        raise
    keep(made)
    return made


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group; later ones are mostly its consequences."""
    error = errors.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error
