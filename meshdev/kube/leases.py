"""Intercepts as Leases: acquire, renew, release; list those of all users (docs/design/0008).

Creating the Lease is the lock for equal claims; what cannot be together otherwise (a proxy and anything) is found by
listing after the create: of those the oldest stays, and every session comes to the same answer.
"""

import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Final

from meshdev.errors import ClusterError, InterceptError, MeshdevError, ProtocolError
from meshdev.intercept import lease as codec
from meshdev.intercept.conflict import conflict_error, exclude, in_the_way, losers
from meshdev.intercept.lease import LABELS, UID_LABEL, LeaseStatus, Record
from meshdev.intercept.spec import Spec, Workload
from meshdev.kube.client import KubeApi, Object, leases_path
from meshdev.kube.errors import ConflictError, NotFoundError
from meshdev.kube.observing import Clock, Leases, Observer
from meshdev.kube.watching import as_is, follow, listed

_SELECTOR: Final = ",".join(f"{name}={value}" for name, value in sorted(LABELS.items()))
#: How often others may come first before that is an error.
_ATTEMPTS: Final = 5


class LostError(InterceptError):
    """The Lease was taken over or deleted: the session must withdraw."""


@dataclass(frozen=True)
class Held:
    """A Lease of this session, as the server has it."""

    spec: Spec
    object: Object

    @property
    def path(self) -> str:
        """Where it is."""
        return leases_path(self.spec.workload.namespace, codec.name_of(self.spec))


def current_holder() -> str:
    """On whose behalf this process claims something: ``user@host``, for other people to read."""
    user = os.environ.get("SUDO_USER") or os.environ.get("USER") or str(os.getuid())
    return f"{user}@{os.uname().nodename}"[:256]


async def take(
    api: KubeApi,
    spec: Spec,
    holder: str,
    manager_namespace: str,
    *,
    observer: Observer,
    takeover: bool = False,
    clock: Clock = time.time,
) -> Held:
    """The Lease for *spec*. Raises InterceptError naming who is in the way; *takeover* deletes theirs instead.

    What is expired for long enough is deleted on the way, as is an expired one of the same *holder*; *observer* looks
    at those for as long as it takes. *clock* is only written down.
    """
    for _ in range(_ATTEMPTS):
        await _make_room(api, spec, holder, manager_namespace, takeover, observer)
        body = codec.lease(spec, holder, manager_namespace, clock())
        try:
            made = await api.create(leases_path(spec.workload.namespace), body)
        except ConflictError:
            await _unreadable(api, spec, takeover)
            continue  # somebody else came first: the next list shows who
        held = Held(spec, made)
        try:
            there = await of_workload(api, spec.workload)
        except MeshdevError:
            await _give_back(api, held)
            raise
        if made["metadata"]["name"] not in losers(there.records):
            return held
        await release(api, held)
        if not takeover:
            raise conflict_error(spec, in_the_way(spec, there.records), _now(api))
    raise InterceptError(f"others intercept {spec.workload} at this very moment", hint="try again")


async def renew(api: KubeApi, held: Held, status: LeaseStatus, clock: Clock = time.time) -> Held:
    """Renew it and write *status*. Raises LostError if it is no longer ours."""
    current = held
    for _ in range(_ATTEMPTS):
        try:
            made = await api.replace(held.path, codec.renewed(current.object, status, clock()))
        except NotFoundError:
            raise _lost(held, "it was deleted") from None
        except ConflictError:
            current = await _read_again(api, held)
        else:
            return replace(held, object=made)
    raise ClusterError(f"the Lease of {held.spec.workload} changes all the time")


async def release(api: KubeApi, held: Held) -> None:
    """Delete it; nothing happens if it is gone or somebody else's."""
    with suppress(NotFoundError, ConflictError):
        await api.delete(held.path, uid=held.object["metadata"]["uid"])


async def _give_back(api: KubeApi, held: Held) -> None:
    """If that fails, too, the Lease expires, as it is no longer renewed."""
    with suppress(MeshdevError):
        await release(api, held)


async def all_of(api: KubeApi, namespace: str = "") -> Leases:
    """The intercepts of all users in a namespace, or in all."""
    return await _list(api, namespace, _SELECTOR)


async def of_workload(api: KubeApi, workload: Workload) -> Leases:
    """The intercepts of all users of one workload."""
    return await _list(api, workload.namespace, _selector(workload))


async def anyone_on(api: KubeApi, workload: Workload, observer: Observer) -> bool:
    """Whether a running session intercepts the workload; ask after the own Lease was released.

    Looks until it is known, so not at all where *observer* has watched the workload for a while.
    """
    renewed = False

    def undecided(each: Record) -> bool:
        nonlocal renewed
        renewed = renewed or observer.life(each) == "renewed"
        return not renewed and observer.life(each) == "unknown"

    there = await observer.look(api, lambda: of_workload(api, workload), undecided)
    return any(observer.life(each) != "expired" for each in there.records)


async def watch_workload(
    api: KubeApi, workload: Workload, trouble: Callable[[MeshdevError], None] = lambda _: None
) -> AsyncGenerator[Leases]:
    """The same at once and after each change, for ever; close it to end it. A renewal is a change, too."""
    query = {"labelSelector": _selector(workload)}
    async with aclosing(follow(api, leases_path(workload.namespace), query, as_is, trouble)) as states:
        async for state in states:
            yield Leases(*codec.records(state.values()))


async def delete_stale(api: KubeApi, workload: Workload, observer: Observer) -> None:
    """Delete those that anybody may, as far as *observer* knows by now."""
    there = await of_workload(api, workload)
    observer.saw(api, there)
    await _delete_stale(api, there.records, observer)


async def _delete_stale(api: KubeApi, records: tuple[Record, ...], observer: Observer) -> tuple[Record, ...]:
    stale = [each for each in records if observer.stale(each)]
    for each in stale:
        await delete(api, each)
    return tuple(each for each in records if each not in stale)


async def _make_room(
    api: KubeApi, spec: Spec, holder: str, manager_namespace: str, takeover: bool, observer: Observer
) -> None:
    def served_elsewhere(each: Record) -> bool:
        return each.spec != spec and each.manager_namespace != manager_namespace

    def undecided(each: Record) -> bool:
        """Only where it matters: a conflict with somebody else's fresh claim is refused either way."""
        if observer.life(each) != "unknown":
            return False
        conflicts = not takeover and each.spec != spec and exclude(spec, each.spec)
        return served_elsewhere(each) or (conflicts and (each.holder == holder or observer.maybe_stale(each)))

    there = await observer.look(api, lambda: of_workload(api, spec.workload), undecided)
    left = await _delete_stale(api, there.records, observer)
    elsewhere = [each for each in left if served_elsewhere(each) and observer.life(each) != "expired"]
    if elsewhere:
        other = elsewhere[0].manager_namespace
        raise InterceptError(
            f"{spec.workload} is served by the manager in namespace {other} already ({elsewhere[0].holder} uses it), "
            f"not by the one in {manager_namespace}",
            hint=f"meshdev disconnect, then meshdev connect --manager-namespace {other}",
        )
    others = in_the_way(spec, left)
    dead = [each for each in others if each.holder == holder and observer.life(each) == "expired"]
    for each in others if takeover else dead:
        await delete(api, each)
    living = () if takeover else tuple(each for each in others if each not in dead)
    if living:
        silent = (observer.silent(each) for each in living)
        raise conflict_error(spec, living, _now(api), next((each for each in silent if each is not None), None))


def _now(api: KubeApi) -> float:
    """For ages of what the API server dated."""
    return api.server_time() or time.time()


async def _unreadable(api: KubeApi, spec: Spec, takeover: bool) -> None:
    """The name is taken, by something that is no intercept of this workload: the look before the create missed it."""
    path = leases_path(spec.workload.namespace, codec.name_of(spec))
    try:
        there = await api.get(path)
        codec.record(there)
    except NotFoundError:
        return
    except ProtocolError as error:
        if not takeover:
            raise InterceptError(f"{spec.workload} is locked: {error.message}", hint="--takeover deletes it") from None
        with suppress(NotFoundError, ConflictError):
            await api.delete(path, uid=there["metadata"]["uid"])


async def _read_again(api: KubeApi, held: Held) -> Held:
    try:
        there = await api.get(held.path)
    except NotFoundError:
        raise _lost(held, "it was deleted") from None
    if there["metadata"]["uid"] != held.object["metadata"]["uid"]:
        with suppress(ProtocolError):
            raise _lost(held, f"{codec.record(there).holder} took it over")
        raise _lost(held, "somebody else took it over")
    return replace(held, object=there)


def _lost(held: Held, why: str) -> LostError:
    return LostError(f"the intercept of {held.spec.workload} is not yours any more: {why}")


async def delete(api: KubeApi, one: Record) -> None:
    """Delete that very Lease; nothing where it is gone or another one by now."""
    with suppress(NotFoundError, ConflictError):
        await api.delete(leases_path(one.spec.workload.namespace, one.name), uid=one.uid)


async def _list(api: KubeApi, namespace: str, selector: str) -> Leases:
    found, _ = await listed(api, leases_path(namespace), {"labelSelector": selector}, as_is)
    return Leases(*codec.records(found.values()))


def _selector(workload: Workload) -> str:
    return f"{_SELECTOR},{UID_LABEL}={workload.uid}"
