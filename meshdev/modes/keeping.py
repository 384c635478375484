"""The Lease of an intercept that is held: renewed in time, watched for a takeover, cleared after a crash."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from typing import Final

from meshdev.errors import ConfigError, MeshdevError
from meshdev.intercept.conflict import exclude, losers
from meshdev.intercept.lease import RENEW_SECONDS, LeaseStatus, Record
from meshdev.kube import leases
from meshdev.kube.client import KubeApi
from meshdev.kube.leases import Held, LostError
from meshdev.kube.observing import Leases, Observer
from meshdev.kube.replicas import Replica
from meshdev.kube.workloads import Resolved, is_there
from meshdev.modes.link import Claim
from meshdev.modes.pods import Pods
from meshdev.modes.state import InterceptState
from meshdev.published import Published
from meshdev.sidecar.join import patch

#: Between two tries with credentials that are not accepted, in seconds: a plugin may run each time.
CREDENTIALS_SECONDS: Final = 30.0
#: A session that takes over deletes first and then creates; that takes milliseconds.
SUCCESSOR_SECONDS: Final = 1.0
#: How often the Lease is compared with the state.
_LOOK_SECONDS: Final = 1.0
_WRITTEN_SECONDS: Final = 8.0
#: How often pods that report are compared with those that there are, and that after a list that failed.
_LEFT_SECONDS: Final = 0.25
_RETRY_SECONDS: Final = 2.0

OnError = Callable[[MeshdevError], None]


class Renewal:
    """Keeps one Lease alive by :meth:`run`, and writes *state* into it."""

    def __init__(self, api: KubeApi, held: Held, state: Published[InterceptState], on_error: OnError) -> None:
        self._api = api
        self._held = held
        self._state = state
        self._on_error = on_error
        self._soon = asyncio.Event()
        self._written = asyncio.Event()

    async def run(self) -> None:
        """Renew it in time, and write a new status at once. Raises LostError; logs all else and tries again."""
        written: LeaseStatus | None = None
        last = boot_time()
        while True:
            pause, wanted = _LOOK_SECONDS, self._state.value.lease_status()
            if wanted != written or boot_time() - last > RENEW_SECONDS:
                try:
                    self._held = await leases.renew(self._api, self._held, wanted)
                    written, last = wanted, boot_time()
                except LostError:
                    await asyncio.sleep(2 * SUCCESSOR_SECONDS)  # mostly the watch knows sooner, and who has it
                    raise
                except MeshdevError as error:
                    self._on_error(error)
                    if isinstance(error, ConfigError):  # CredentialError is its kind
                        pause = CREDENTIALS_SECONDS
            if written == self._state.value.lease_status():
                self._written.set()
            await first_of(self._soon, pause)
            self._soon.clear()

    async def written(self) -> None:
        """Return when the Lease has the current state, or when that takes too long."""
        self._written.clear()
        self._soon.set()
        await first_of(self._written, _WRITTEN_SECONDS)


async def exclude_foreign_pods(
    pods: Pods, claim: Claim, look: Callable[[], Awaitable[Mapping[str, Replica]]], on_error: OnError
) -> None:
    """Leave pods out of the claim that are none of the workload's any more, for ever; *look* lists those that are."""
    while True:
        pause = _LEFT_SECONDS
        if suspects := pods.suspects():
            try:
                pods.listed(await look(), suspects)
            except MeshdevError as error:
                on_error(error)
                pause = _RETRY_SECONDS
        claim.exclude(pods.left())
        await asyncio.sleep(pause)


async def first_of(event: asyncio.Event, seconds: float) -> None:
    """Return when *event* is set, or after so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def watch_lease(
    api: KubeApi, held: Held, observer: Observer, note: Callable[[str], None], on_error: OnError
) -> None:
    """Raises LostError when it is taken over, deleted, or another one was first; the error names who has it, or why.

    *observer* sees everything that changes, so that whoever leaves later knows which others are renewed.
    """
    ours, seen = held.object["metadata"], False
    clock = asyncio.get_running_loop().time

    def broken(error: MeshdevError) -> None:
        observer.blind()
        on_error(error)

    try:
        async with (
            aclosing(leases.watch_workload(api, held.spec.workload, broken)) as states,
            asyncio.timeout(None) as patience,
        ):
            async for state in states:
                observer.saw(api, state)
                for text in state.troubles:
                    note(f"not believed: {text}")
                there = any(record.uid == ours["uid"] for record in state.records)
                if (seen and not there) or ours["name"] in losers(state.records):
                    if holder := _successor(held, state):
                        raise LostError(f"{_sentence(held)}: {holder} has it")
                    if patience.when() is None:
                        patience.reschedule(clock() + SUCCESSOR_SECONDS)
                seen = seen or there
    except TimeoutError:
        raise LostError(await _why(api, held)) from None


async def clear_leftovers(api: KubeApi, resolved: Resolved, holder: str) -> tuple[str, ...]:
    """Delete *holder*'s expired Leases of the workload, and take a sidecar that nobody needs out of its template.

    What was cleared, for people. Raises ForbiddenError, ClusterError.
    """
    workload, observer = resolved.workload, Observer()

    def undecided(each: Record) -> bool:
        return each.holder == holder and observer.life(each) == "unknown"

    there = await observer.look(api, lambda: leases.of_workload(api, workload), undecided)
    dead = [each for each in there.records if each.holder == holder and observer.life(each) == "expired"]
    for each in dead:
        await leases.delete(api, each)
    unpatched = workload.has_template and await patch.leave(
        api, resolved, lambda: leases.anyone_on(api, workload, observer)
    )
    return (f"{workload} in namespace {workload.namespace}",) if dead or unpatched else ()


def boot_time() -> float:
    """Counts on while the machine sleeps: whoever took the workload meanwhile is to be noticed at once."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _successor(held: Held, there: Leases) -> str | None:
    others = (record for record in there.records if record.uid != held.object["metadata"]["uid"])
    return next((record.holder for record in others if exclude(held.spec, record.spec)), None)


async def _why(api: KubeApi, held: Held) -> str:
    """Nobody has it: the Lease was deleted, by somebody or with its workload."""
    workload = held.spec.workload
    try:
        there = await is_there(api, workload)
    except MeshdevError:
        return f"{_sentence(held)}: its Lease was deleted"
    if not there:
        return f"{workload} in namespace {workload.namespace} was deleted, and the intercept with it"
    return f"{_sentence(held)}: its Lease was deleted"


def _sentence(held: Held) -> str:
    return f"the intercept of {held.spec.workload} is not yours any more"
