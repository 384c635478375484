"""The manager in the cluster: find, create, await, replace and remove it.

The session decides when to replace it (only without other sessions, or on request); here that is done only for a
Deployment whose pod cannot run and therefore serves no session.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Final

from meshdev.config import CONTROL_PORT, MANAGER_LABELS, MANAGER_NAME
from meshdev.errors import (
    AdmissionError,
    ClusterError,
    ForbiddenError,
    ImageError,
    ManagerError,
    MeshdevError,
    UnreachableError,
)
from meshdev.kube.client import KubeApi, Object, deployments_path, pods_path, services_path
from meshdev.kube.errors import ConflictError, NotFoundError
from meshdev.kube.manifest import ManagerSpec, deployment, differs, is_ours, is_owned, service
from meshdev.kube.ownership import Note, Ownership, stray
from meshdev.kube.podstate import ManagerPod, Waiting, examine, examine_deployment
from meshdev.kube.watching import ReasonReporter, State, as_is, follow, listed, merged

log = logging.getLogger(__name__)

START_SECONDS: Final = 60.0
_REMOVE_SECONDS: Final = 30.0
#: How often the Service may be deleted while it is made.
_ATTEMPTS: Final = 5
_SELECTOR: Final = {"labelSelector": ",".join(f"{name}={value}" for name, value in sorted(MANAGER_LABELS.items()))}
_BY_NAME: Final = {"fieldSelector": f"metadata.name={MANAGER_NAME}"}

Progress = Callable[[str], None]


def _silently(_: str) -> None:
    pass


class _LateError(ManagerError):
    """Time is up; another Deployment would not have been quicker."""


@dataclass(frozen=True)
class Created:
    """The Deployment that this very run created; :func:`undo` deletes it, with its Service, and no other."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True)
class SidecarTerms:
    """*manager* is ``address:port`` and holds as long as the manager is installed, whichever pod it is."""

    manager: str
    image: str


async def ensure(
    api: KubeApi,
    spec: ManagerSpec,
    *,
    progress: Progress,
    on_created: Callable[[Created], None],
    note: Note = _silently,
    seconds: float = START_SECONDS,
) -> ManagerPod:
    """The running manager of *spec*'s namespace, whatever its version; created where there is none.

    Everywhere here pods that are not the Deployment's (:mod:`meshdev.kube.ownership`) do not count; *note* is called
    with their names, and with the right that is missing where that cannot be checked.

    *on_created* is called for what this call created, also when it is cancelled or fails afterwards; undoing it is
    the caller's part. Raises ImageError and AdmissionError at once, ManagerError when time is up, with the reason.
    """
    pod = await find_pod(api, spec.namespace, note)
    if pod is not None:
        return pod
    existing = await _find_deployment(api, spec.namespace)
    if existing is None:
        progress(f"creating the manager in namespace {spec.namespace}")
        existing = await _create(api, spec, on_created)
    try:
        return await wait(api, spec.namespace, progress=progress, note=note, seconds=seconds)
    except (ImageError, AdmissionError, ManagerError) as error:
        if existing is None or isinstance(error, _LateError) or not differs(existing, spec):
            raise
    progress(f"replacing the manager in namespace {spec.namespace}, which cannot run")
    return await replace(api, spec, progress=progress, note=note, seconds=seconds)


async def replace(
    api: KubeApi, spec: ManagerSpec, *, progress: Progress, note: Note = _silently, seconds: float = START_SECONDS
) -> ManagerPod:
    """Make the Deployment that exists *spec*'s and wait for its new pod. Its sessions are cut off for a moment."""
    existing = await api.get(deployments_path(spec.namespace, MANAGER_NAME))
    old = await _uids(api, spec.namespace)
    await _put(api, spec, existing)
    return await wait(api, spec.namespace, progress=progress, note=note, ignored=old, seconds=seconds)


async def upgrade(
    api: KubeApi, spec: ManagerSpec, *, progress: Progress, note: Note = _silently, seconds: float = START_SECONDS
) -> ManagerPod | None:
    """:func:`replace` where that would change what runs; None where it would not."""
    if not differs(await api.get(deployments_path(spec.namespace, MANAGER_NAME)), spec):
        return None
    progress(f"replacing the manager in namespace {spec.namespace}")
    return await replace(api, spec, progress=progress, note=note, seconds=seconds)


async def find_pod(api: KubeApi, namespace: str, note: Note = _silently) -> ManagerPod | None:
    """The Deployment's newest pod whose tunnel container runs and that is not terminating."""
    pods, _ = await listed(api, pods_path(namespace), _SELECTOR, as_is)
    ownership = Ownership(api, namespace, note)
    for pod in _newest_first(pods):
        found = _running(pod)
        if found is not None and await ownership.accepts(pod):
            return found
    return None


async def wait(
    api: KubeApi,
    namespace: str,
    *,
    progress: Progress,
    note: Note = _silently,
    ignored: frozenset[str] = frozenset(),
    seconds: float = START_SECONDS,
) -> ManagerPod:
    """The manager's pod as soon as its tunnel container runs; pods with a uid in *ignored* do not count.

    Raises ImageError, AdmissionError and ManagerError as :func:`ensure`. Watches, does not poll.
    """
    waiting = ReasonReporter(progress, "there is no pod yet")
    pods = follow(api, pods_path(namespace), _SELECTOR, as_is, waiting.trouble)
    ownership = Ownership(api, namespace, note)
    deployments = _where_allowed(follow(api, deployments_path(namespace), _BY_NAME, as_is, waiting.trouble))
    try:
        async with asyncio.timeout(seconds), aclosing(merged(pods, deployments)) as changes:
            async for source, state in changes:
                found = await _pods(state, ignored, ownership) if source == 0 else _deployments(state)
                if isinstance(found, ManagerPod):
                    return found
                if found is not None:
                    waiting.report(found.reason)
    except TimeoutError:
        pass
    raise _LateError(
        f"the manager in namespace {namespace} did not start within {seconds:.0f} seconds: {waiting.reason}",
        hint=f"kubectl -n {namespace} describe pods -l {_SELECTOR['labelSelector']}",
    )


async def undo(api: KubeApi, created: Created) -> None:
    """Delete what this run created; nothing happens if it is gone or replaced by now."""
    with suppress(NotFoundError, ConflictError):
        await api.delete(deployments_path(created.namespace, created.name), uid=created.uid)
    with suppress(NotFoundError, ConflictError, ForbiddenError):  # the cluster deletes what was owned, a moment later
        there = await api.get(services_path(created.namespace, MANAGER_NAME))
        if is_owned(there, created.uid):
            await api.delete(services_path(created.namespace, MANAGER_NAME), uid=there["metadata"]["uid"])


async def uninstall(api: KubeApi, namespace: str) -> list[str]:
    """Delete the manager and wait until its pods are gone. What was removed, empty where nothing was there."""
    existing = await _find_deployment(api, namespace)
    if existing is None:
        return []
    if not is_ours(existing):
        raise foreign("deployment", namespace)
    await undo(api, Created(namespace, MANAGER_NAME, existing["metadata"]["uid"]))
    with suppress(TimeoutError):
        async with (
            asyncio.timeout(_REMOVE_SECONDS),
            aclosing(follow(api, pods_path(namespace), _SELECTOR, lambda pod: stray(pod) is None)) as states,
        ):
            async for ours in states:
                if not any(ours.values()):
                    break
    return [f"deployment/{MANAGER_NAME} in namespace {namespace}"]


async def _pods(state: State[Object], ignored: frozenset[str], ownership: Ownership) -> ManagerPod | Waiting | None:
    """A running pod, or what the newest waits for; raises what :func:`~meshdev.kube.podstate.examine` does of it."""
    candidates = [pod for uid, pod in state.items() if uid not in ignored]
    try:
        ours = {pod["metadata"]["uid"]: pod for pod in candidates if await ownership.accepts(pod)}
    except (UnreachableError, ClusterError) as error:  # the watch breaks, too, and lists them again
        return Waiting(error.message)
    newest = _newest_first(ours)
    running = next(filter(None, map(_running, newest)), None)
    if running is not None:
        return running
    if newest:
        return examine(newest[0])
    return Waiting(ownership.refused) if candidates else None


def _deployments(state: State[Object]) -> Waiting | None:
    return next(filter(None, map(examine_deployment, state.values())), None)


def _running(pod: Object) -> ManagerPod | None:
    with suppress(ImageError, ManagerError):
        found = examine(pod)
        if isinstance(found, ManagerPod):
            return found
    return None


def _newest_first(state: State[Object]) -> list[Object]:
    return sorted(state.values(), key=lambda pod: str(pod["metadata"].get("creationTimestamp") or ""), reverse=True)


async def _where_allowed(states: AsyncGenerator[State[Object]]) -> AsyncGenerator[State[Object]]:
    """End instead of raising ForbiddenError: users who may only use a manager need not see its Deployment."""
    with suppress(ForbiddenError):
        async with aclosing(states):
            async for state in states:
                yield state


async def _create(api: KubeApi, spec: ManagerSpec, on_created: Callable[[Created], None]) -> Object | None:
    """None if somebody else came first. A cancellation waits for the answer: what was created must be known."""

    async def create() -> None:
        made = await api.create(deployments_path(spec.namespace), deployment(spec))
        on_created(Created(spec.namespace, MANAGER_NAME, made["metadata"]["uid"]))
        await _try_service(api, spec.namespace, made["metadata"]["uid"])

    task = asyncio.ensure_future(create())
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        with suppress(MeshdevError):
            await task
        raise
    except ConflictError:
        return await _find_deployment(api, spec.namespace)
    return None


async def _put(api: KubeApi, spec: ManagerSpec, existing: Object) -> None:
    body = deployment(spec)
    body["metadata"]["resourceVersion"] = existing["metadata"]["resourceVersion"]
    await api.replace(deployments_path(spec.namespace, MANAGER_NAME), body)
    await _try_service(api, spec.namespace, existing["metadata"]["uid"])


async def _try_service(api: KubeApi, namespace: str, owner: str) -> None:
    """Make the Service where that is allowed: to be connected needs none, and intercepting asks for it again."""
    try:
        await ensure_service(api, namespace, owner)
    except (ForbiddenError, AdmissionError) as error:
        log.info("the manager has no Service, so nothing can be intercepted: %s", error.message)


async def ensure_service(api: KubeApi, namespace: str, owner: str) -> Object:
    """The Service of the Deployment *owner*; a former Deployment's is about to be deleted, so it is replaced."""
    for _ in range(_ATTEMPTS):
        with suppress(ConflictError):
            return await api.create(services_path(namespace), service(namespace, owner))
        with suppress(NotFoundError, ConflictError):
            there = await api.get(services_path(namespace, MANAGER_NAME))
            if is_owned(there, owner) or not is_ours(there):
                return there
            await api.delete(services_path(namespace, MANAGER_NAME), uid=there["metadata"]["uid"])
    raise ClusterError(f"service {MANAGER_NAME} in namespace {namespace} is deleted again and again", hint="try again")


async def sidecar_terms(api: KubeApi, namespace: str) -> SidecarTerms:
    """The configuration for sidecars of that namespace's manager; its Service is made where there is none.

    Raises ManagerError where no manager runs, ClusterError where the Service is somebody else's, ForbiddenError.
    """
    pod = await find_pod(api, namespace)
    if pod is None:
        raise ManagerError(f"no manager runs in namespace {namespace}")
    try:
        there = await api.get(services_path(namespace, MANAGER_NAME))
    except NotFoundError:
        made_by = await api.get(deployments_path(namespace, MANAGER_NAME))
        there = await ensure_service(api, namespace, made_by["metadata"]["uid"])
    if not is_ours(there):
        raise foreign("service", namespace)
    return SidecarTerms(f"{there['spec']['clusterIP']}:{CONTROL_PORT}", pod.image)


def foreign(kind: str, namespace: str) -> ClusterError:
    """The error for an object of others that has the manager's name."""
    return ClusterError(
        f"{kind} {MANAGER_NAME} in namespace {namespace} does not belong to meshdev: it lacks its labels",
        hint="remove it with kubectl if it is yours",
    )


async def _find_deployment(api: KubeApi, namespace: str) -> Object | None:
    try:
        return await api.get(deployments_path(namespace, MANAGER_NAME))
    except NotFoundError:
        return None


async def _uids(api: KubeApi, namespace: str) -> frozenset[str]:
    pods, _ = await listed(api, pods_path(namespace), _SELECTOR, lambda _: True)
    return frozenset(pods)
