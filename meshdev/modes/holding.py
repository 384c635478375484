"""One intercept from its first look at the target to its last undo.

What is put into the cluster, and what takes it back, also when the session is killed in the next instruction:

====================  ==============================================  =========================================
what                  undone by the session                           undone without it
====================  ==============================================  =========================================
Lease                 deleted                                         expires, then any session deletes it
claim at the manager  withdrawn; every pod reports it let go          gone 10 s after the tunnel
sidecar, ephemeral    ends 30 s after the last claim                  the same
sidecar, patched      taken out of the template by the last session   idles; by the next session that leaves
====================  ==============================================  =========================================
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

from meshdev.errors import ConfigError, InterceptError, MeshdevError, first_of_group
from meshdev.intercept import match
from meshdev.intercept.liveness import CONFIRM_SECONDS
from meshdev.kube import leases
from meshdev.kube.leases import Held
from meshdev.kube.observing import Observer
from meshdev.kube.replicas import Replica
from meshdev.kube.workloads import replicas_now, watch_replicas
from meshdev.modes.agents import PodAgents
from meshdev.modes.intent import Intent
from meshdev.modes.keeping import CREDENTIALS_SECONDS, Renewal, exclude_foreign_pods, first_of, watch_lease
from meshdev.modes.link import Claim, Link, ProgressReporter
from meshdev.modes.plan import InterceptPlan, look
from meshdev.modes.pods import Pods
from meshdev.modes.state import InterceptState
from meshdev.published import Published
from meshdev.sidecar.join import ephemeral, patch
from meshdev.wire.intercepts import Report
from meshdev.wire.session_intercepts import LocalPort

log = logging.getLogger(__name__)

#: All pods have a sidecar in seconds where its image is on their nodes; pulling 300 MB may take a while.
UP_SECONDS: Final = 120.0
#: How often pods are looked at for what only time makes an error.
_LOOK_SECONDS: Final = 0.25
#: Between two states that are published, in seconds: a thousand pods report as often as each of them counts.
_PUBLISH_SECONDS: Final = 0.05
#: Mostly it is up before anybody would ask why it is not.
_PATIENCE_SECONDS: Final = 1.0
#: Time for each step of the undo, in seconds.
_UNDO_SECONDS: Final = 8.0
#: The same where another session's Lease may have to be observed: only one that this session saw for a few seconds.
_LOOKING_SECONDS: Final = _UNDO_SECONDS + CONFIRM_SECONDS
_MAX_NOTES: Final = 8

T = TypeVar("T")


async def hold(link: Link, intent: Intent, progress: ProgressReporter, state: Published[InterceptState]) -> None:
    """Plan the intercept and hold it until cancelled; everything is undone when this ends.

    What becomes of it is published as *state*. Raises what kept it from coming up, and InterceptError when it is
    somebody else's by now.
    """
    plan = await look(link, intent, intent.namespace or link.namespace)
    state.publish(replace(state.value, plan=plan))
    progress.step("target", plan.describe())
    await Holding(link, intent, plan, progress, state).run()


class Holding:
    """An intercept that is planned. Made for one :meth:`run`."""

    def __init__(
        self,
        link: Link,
        intent: Intent,
        plan: InterceptPlan,
        progress: ProgressReporter,
        state: Published[InterceptState],
    ) -> None:
        self._link = link
        self._intent = intent
        self._plan = plan
        self._progress = progress
        self._state = state
        self._pods = Pods(time.monotonic, plan.sidecar.manager, plan.sidecar.workload, tcp=plan.has_tcp)
        self._observer = Observer(waiting=progress.wait)
        self._news = asyncio.Event()
        self._outdated = asyncio.Event()
        self._agents: PodAgents | None = None
        self._failure: MeshdevError | None = None
        """Why a pod cannot be joined."""

    async def run(self) -> None:
        """Intercept until cancelled."""
        plan, pods = self._plan, self._pods
        try:
            async with self._held() as held, self._claimed() as claim, asyncio.TaskGroup() as group:
                renewal = Renewal(self._link.api, held, self._state, self._not_renewed)
                watching = partial(watch_lease, self._link.api, held, self._observer, self._note, self._log_error)
                group.create_task(self._keep_published())
                group.create_task(renewal.run())
                group.create_task(self._patiently(watching))
                looking = partial(replicas_now, self._link.api, plan.resolved)
                group.create_task(exclude_foreign_pods(pods, claim, looking, self._log_error))
                await claim.ready()
                await self._enter(claim, group)
                await self._until_up()
                pods.proven = True
                self._publish(replace(self._state.value, proven=True))
                await claim.proven()
                # The Lease first: a later ``list`` then shows the same as this intercept's own command.
                await renewal.written()
                self._publish(replace(self._state.value, up=True))
                self._report_up()
                await self._follow()
        except BaseExceptionGroup as errors:
            raise first_of_group(errors) from None

    # -- what is published -----------------------------------------------------------------------------------------

    def _publish(self, state: InterceptState) -> None:
        self._state.publish(replace(state, pods=self._pods.state(state.local_up, self._plan.spec.ports)))

    async def _keep_published(self) -> None:
        """Publish the state soon after a report came in, and as time changes it."""
        while True:
            await first_of(self._outdated, _LOOK_SECONDS)
            self._outdated.clear()
            self._publish(self._state.value)
            await asyncio.sleep(_PUBLISH_SECONDS)

    def _wake(self) -> None:
        self._news.set()
        self._outdated.set()

    # -- what is put into the cluster, and taken back --------------------------------------------------------------

    @asynccontextmanager
    async def _held(self) -> AsyncIterator[Held]:
        """Our Lease inside. Its undo is known before the next step."""
        link, spec, observer = self._link, self._plan.spec, self._observer
        workload = spec.workload
        async with AsyncExitStack() as undo:

            def taken(held: Held) -> None:
                if workload.has_template:
                    undo.push_async_callback(self._undo, f"the template of {workload}", self._unpatch, _LOOKING_SECONDS)
                undo.push_async_callback(
                    self._undo, "the Lease of a dead session", lambda: leases.delete_stale(link.api, workload, observer)
                )
                undo.push_async_callback(self._undo, "the Lease", lambda: leases.release(link.api, held))

            taking = leases.take(
                link.api,
                spec,
                link.holder,
                link.manager_namespace,
                observer=observer,
                takeover=self._intent.takeover,
            )
            yield await _acquired(taking, taken)

    async def _unpatch(self) -> None:
        """Whoever leaves last has to, by whichever strategy this one had joined."""
        api, workload = self._link.api, self._plan.spec.workload
        if await patch.leave(api, self._plan.resolved, lambda: leases.anyone_on(api, workload, self._observer)):
            log.info("the template of %s in %s is as before", workload, workload.namespace)

    async def _undo(self, what: str, step: Callable[[], Awaitable[object]], seconds: float | None = None) -> None:
        """One step of the undo; one that fails does not keep the others from theirs."""
        try:
            # Not asyncio.timeout: before Python 3.11.3 (gh-102780) that raises no TimeoutError in a task that was
            # cancelled, as whoever leaves was.
            await asyncio.wait_for(step(), seconds or _UNDO_SECONDS)
        except (MeshdevError, TimeoutError) as error:
            sentence = f"{what} in namespace {self._plan.spec.workload.namespace} is left: {str(error) or 'no answer'}"
            log.warning("%s", sentence)
            self._progress.note(sentence)

    def _claimed(self) -> AbstractAsyncContextManager[Claim]:
        return self._link.claim(
            self._plan.spec,
            reset_older=self._intent.reset_existing,
            on_report=self._reported,
            on_local=self._looked,
        )

    def _reported(self, report: Report) -> None:
        self._pods.reported(report)
        if self._agents is not None:
            self._agents.reported(report)
        self._wake()

    def _looked(self, local: tuple[LocalPort, ...]) -> None:
        self._publish(replace(self._state.value, local=local))
        self._wake()

    # -- sidecars --------------------------------------------------------------------------------------------------

    async def _enter(self, claim: Claim, group: asyncio.TaskGroup) -> None:
        """A sidecar in every existing pod; later pods are joined as long as *group* runs."""
        api, plan = self._link.api, self._plan
        agents = PodAgents(self._link, plan.sidecar, claim, changed=self._agents_changed, note=self._note)
        self._agents = agents
        group.create_task(agents.run())
        changed = partial(self._pods_changed, agents)
        if plan.strategy == "ephemeral":
            joining = partial(
                ephemeral.keep_joined,
                api,
                plan.resolved,
                plan.sidecar,
                changed=changed,
                failed=self._cannot_join,
                trouble=self._interrupted,
            )
            group.create_task(self._patiently(partial(self._sighted, joining)))
            return
        # Agents of new pods become part of the claim while others are still to be replaced.
        group.create_task(self._patiently(partial(self._sighted, partial(self._watch, changed))))
        self._progress.wait(f"the pods of {plan.spec.workload} are replaced")
        await patch.enter(api, plan.resolved, plan.sidecar, plan.spec.id, progress=self._progress.wait)

    async def _watch(self, changed: Callable[[Mapping[str, Replica]], None]) -> None:
        async with aclosing(watch_replicas(self._link.api, self._plan.resolved, self._interrupted)) as states:
            async for state in states:
                changed(state)

    async def _sighted(self, work: Callable[[], Awaitable[None]]) -> None:
        """What *work* sees of the pods is known no longer when it ends."""
        try:
            await work()
        finally:
            self._pods.unwatched()

    def _pods_changed(self, agents: PodAgents, replicas: Mapping[str, Replica]) -> None:
        self._pods.watched(replicas)
        agents.watched(replicas)
        self._agents_changed(agents.unknown)

    def _agents_changed(self, unknown: Mapping[str, str]) -> None:
        self._pods.unknown(unknown)
        self._wake()

    def _interrupted(self, error: MeshdevError) -> None:
        self._pods.unwatched()
        self._log_error(error)

    def _cannot_join(self, pod: Replica, error: MeshdevError) -> None:
        self._note(f"pod {pod.name} has no sidecar: {error.message}")
        self._failure = error
        self._wake()

    async def _until_up(self) -> None:
        """Every pod that counts has acknowledged the route and reached this machine."""
        since, shown, why = time.monotonic(), None, None
        try:
            async with asyncio.timeout(UP_SECONDS):
                while (why := self._pods.waiting(self._state.value.local_up)) is not None:
                    if error := self._failure or self._pods.trouble():
                        raise error
                    if why != shown and time.monotonic() - since > _PATIENCE_SECONDS:
                        shown = why
                        self._progress.wait(why)
                    await self._wait_for_news()
        except TimeoutError:
            raise InterceptError(f"not up within {UP_SECONDS:.0f} seconds: waiting for {why}") from None

    def _report_up(self) -> None:
        plan, pods = self._plan, self._state.value.pods
        how = "as an ephemeral container" if plan.strategy == "ephemeral" else "in the template"
        many = "pod" if pods.total == 1 else "pods"
        self._progress.step("sidecar", f"{how}, in {pods.total} of {pods.total} {many}")
        for port in pods.pending:
            where = f"{port.pods} of {pods.total} {many}"
            self._progress.note(f"pending listener: nothing listens on port {port.port}/{port.transport} in {where}")
        if why := self._pods.stuck():
            self._progress.note(why)
        older = pods.counts.older
        if older:
            what = "1 older connection still goes" if older == 1 else f"{older} older connections still go"
            self._progress.note(f"{what} to the original; --existing reset closes such")
        self._progress.step("route", f"{match.text(plan.spec.match)} → this machine")

    async def _follow(self) -> None:
        """Later problems become notes; none of them ends the intercept."""
        while True:
            if error := self._pods.trouble():
                self._note(error.message)
            await self._wait_for_news()

    async def _wait_for_news(self) -> None:
        self._news.clear()
        await first_of(self._news, _LOOK_SECONDS)

    # -- the Lease -------------------------------------------------------------------------------------------------

    def _not_renewed(self, error: MeshdevError) -> None:
        """Others may be unable to renew theirs, too, though the watch continues: their silence proves nothing."""
        self._observer.blind()
        self._log_error(error)

    async def _patiently(self, work: Callable[[], Awaitable[None]]) -> None:
        """Credentials that run out later end nothing: the claim is the tunnel's, and there may be others soon."""
        while True:
            try:
                await work()
            except* ConfigError as errors:  # CredentialError is its kind
                if not self._state.value.up:
                    raise
                self._note(str(first_of_group(errors)))
            await asyncio.sleep(CREDENTIALS_SECONDS)

    def _log_error(self, error: MeshdevError) -> None:
        log.info("intercepting %s: %s", self._intent.target, error.message)

    def _note(self, text: str) -> None:
        notes = self._state.value.notes
        if text not in notes:
            log.info("%s: %s", self._intent.target, text)
            self._progress.note(text)
            self._publish(replace(self._state.value, notes=(*notes, text)[-_MAX_NOTES:]))


async def _acquired(making: Coroutine[Any, Any, T], keep: Callable[[T], None]) -> T:
    """What *making* gives, handed to *keep*. A cancellation waits for it: what was made must be known."""
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
