"""The Lease of an intercept that is held: renewed in time, and watched for who takes it away."""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import Final

from meshdev.errors import ConfigError, MeshdevError
from meshdev.intercept.conflict import exclude, losers
from meshdev.intercept.lease import RENEW_SECONDS, Status
from meshdev.kube import leases
from meshdev.kube.client import KubeApi, workloads_path
from meshdev.kube.errors import NotFoundError
from meshdev.kube.leases import Held, Leases, LostError

#: Between two tries with credentials that are not accepted, in seconds: a plugin may run each time.
CREDENTIALS_SECONDS: Final = 30.0
#: Who takes over deletes first and creates then; that takes milliseconds.
SUCCESSOR_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 1.0

Trouble = Callable[[MeshdevError], None]


async def renewed(api: KubeApi, held: Held, status: Callable[[], Status], trouble: Trouble) -> None:
    """Renewed in time, at once when *status* says something new. Raises LostError; tells all else and tries again."""
    told: Status | None = None
    last = _now()
    while True:
        pause, wanted = _LOOK_SECONDS, status()
        if wanted != told or _now() - last > RENEW_SECONDS:
            try:
                held = await leases.renew(api, held, wanted)
                told, last = wanted, _now()
            except LostError:
                await asyncio.sleep(2 * SUCCESSOR_SECONDS)  # mostly the watch is there sooner, and knows who has it
                raise
            except MeshdevError as error:
                trouble(error)
                pause = CREDENTIALS_SECONDS if isinstance(error, ConfigError) else pause  # CredentialError is its kind
        await asyncio.sleep(pause)


async def watched(api: KubeApi, held: Held, note: Callable[[str], None], trouble: Trouble) -> None:
    """Raises LostError when it is over: taken over, deleted, or another one was first. Says who has it, or why."""
    ours, seen = held.object["metadata"], False
    clock = asyncio.get_running_loop().time
    try:
        async with (
            aclosing(leases.watch_workload(api, held.spec.workload, trouble)) as states,
            asyncio.timeout(None) as patience,
        ):
            async for state in states:
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


def _now() -> float:
    """Counts on while the machine sleeps: whoever took the workload meanwhile is to be noticed at once."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _successor(held: Held, there: Leases) -> str | None:
    others = (record for record in there.records if record.uid != held.object["metadata"]["uid"])
    return next((record.holder for record in others if exclude(held.spec, record.spec)), None)


async def _why(api: KubeApi, held: Held) -> str:
    """Nobody has it: the Lease was deleted, by somebody or with its workload."""
    workload = held.spec.workload
    try:
        there = await api.get(workloads_path(workload.namespace, workload.kind, workload.name))
    except NotFoundError:
        there = None
    except MeshdevError:
        return f"{_sentence(held)}: its Lease was deleted"
    if there is None or there["metadata"]["uid"] != workload.uid:
        return f"{workload} in namespace {workload.namespace} was deleted, and the intercept with it"
    return f"{_sentence(held)}: its Lease was deleted"


def _sentence(held: Held) -> str:
    return f"the intercept of {held.spec.workload} is not yours any more"
