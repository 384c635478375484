"""A sidecar as an ephemeral container: it joins the running pod, which is not restarted."""

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Final

from meshdev.errors import AdmissionError, ClusterError, ForbiddenError, InterceptError, MeshdevError
from meshdev.kube.client import KubeApi, Object, pods_path
from meshdev.kube.errors import ConflictError, NotFoundError
from meshdev.kube.replicas import Replica, free_name, replica
from meshdev.kube.workloads import Resolved, watch_replicas
from meshdev.sidecar.join.container import SidecarSpec, container

#: How often the pod may change between reading and writing it; each time another session or the kubelet was quicker.
_ATTEMPTS: Final = 20
_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0

#: What trying again does not change.
_PERMANENT: Final = (AdmissionError, ForbiddenError, InterceptError, NotFoundError)


async def join(api: KubeApi, pod: Replica, spec: SidecarSpec) -> str:
    """The name of the container that is in *pod* afterwards: one that is there already, or a new one.

    It need not run yet. Raises NotFoundError where the pod is gone, InterceptError where a sidecar of a manager
    elsewhere serves it, AdmissionError and ForbiddenError.
    """
    for _ in range(_ATTEMPTS):
        there = await api.get(pods_path(pod.namespace, pod.name))
        if there["metadata"]["uid"] != pod.uid:
            raise NotFoundError(f"pod {pod.name} in namespace {pod.namespace} is another one by now")
        current = replica(there)
        for sidecar in current.sidecars:
            if sidecar.serves(spec.manager, spec.image, spec.workload):
                return sidecar.name
        refuse_elsewhere(current, spec)
        name = free_name(there)
        try:
            await _add(api, there, spec, name)
        except ConflictError:
            continue
        return name
    raise ClusterError(f"pod {pod.name} changes all the time: no sidecar could be added")


async def dry_run(api: KubeApi, pod: Object, spec: SidecarSpec) -> None:
    """Ask whether the sidecar may join *pod*; changes nothing. Raises what the API server says."""
    for _ in range(_ATTEMPTS):
        try:
            return await _add(api, pod, spec, free_name(pod), dry_run=True)
        except ConflictError:
            pod = await api.get(pods_path(pod["metadata"]["namespace"], pod["metadata"]["name"]))
    raise ClusterError(f"pod {pod['metadata']['name']} changes all the time")


def refuse_elsewhere(pod: Replica, spec: SidecarSpec) -> None:
    """Raise InterceptError where a sidecar of a manager in another namespace runs in *pod*."""
    for sidecar in pod.sidecars:
        if sidecar.manager_namespace != spec.manager_namespace:
            raise InterceptError(
                f"pod {pod.name} is served by the manager in namespace {sidecar.manager_namespace} already",
                hint="meshdev disconnect, then meshdev connect --manager-namespace " + sidecar.manager_namespace,
            )


async def keep_joined(
    api: KubeApi,
    resolved: Resolved,
    spec: SidecarSpec,
    *,
    changed: Callable[[Mapping[str, Replica]], None],
    failed: Callable[[Replica, MeshdevError], None],
    trouble: Callable[[MeshdevError], None] = lambda _: None,
) -> None:
    """All pods of the workload, always: a sidecar in each that is there and in each that comes. Runs until cancelled.

    *changed* is called with all pods after each change, *failed* when one cannot be joined: for good, or for now. A
    sidecar that ends is followed by another, after pauses that grow: every one that ends stays in the pod.
    """
    history = _History()
    joining: dict[str, asyncio.Task[None]] = {}
    async with asyncio.TaskGroup() as tasks, aclosing(watch_replicas(api, resolved, trouble)) as states:
        async for state in states:
            changed(state)
            for uid in [uid for uid in joining if uid not in state or joining[uid].done()]:
                joining.pop(uid).cancel()
            for uid, pod in state.items():
                wanted = pod.to_join(spec.manager, spec.image, spec.workload)
                if uid not in joining and wanted and history.due(pod):
                    joining[uid] = tasks.create_task(_joined(api, pod, spec, failed, history))
            history.forget(state)


async def _joined(
    api: KubeApi,
    pod: Replica,
    spec: SidecarSpec,
    failed: Callable[[Replica, MeshdevError], None],
    history: "_History",
) -> None:
    await asyncio.sleep(history.pause(pod))
    pause = _FIRST_PAUSE
    while True:
        try:
            await join(api, pod, spec)
        except NotFoundError:
            return  # it went meanwhile
        except MeshdevError as error:
            failed(pod, error)
            if isinstance(error, _PERMANENT):
                history.give_up(pod)
                return
        else:
            history.answer(pod)
            return
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


class _History:
    """Which pods were joined when, so that none is joined twice, and sidecars that end at once do not fill one."""

    def __init__(self) -> None:
        self._joined: dict[str, tuple[int, float]] = {}  # ended ones that do not count, and when it was joined
        self._answered: dict[str, int] = {}  # how many had ended when it was joined
        self._given_up: set[str] = set()

    def due(self, pod: Replica) -> bool:
        """It was not joined yet, or what joined it has ended since."""
        return pod.uid not in self._given_up and pod.ended > self._answered.get(pod.uid, -1)

    def pause(self, pod: Replica) -> float:
        """Seconds to wait before it is joined now, none where no sidecar ended soon after it was put there."""
        now = time.monotonic()
        before, last = self._joined.get(pod.uid, (pod.ended, now))
        if now - last > 2 * _LONGEST_PAUSE:
            before = pod.ended
        pause = min(_FIRST_PAUSE * 2 ** (pod.ended - before), _LONGEST_PAUSE) if pod.ended > before else 0.0
        self._joined[pod.uid] = (before, now + pause)
        return pause

    def answer(self, pod: Replica) -> None:
        """It is joined; until the watch shows that, nothing is due."""
        self._answered[pod.uid] = pod.ended

    def give_up(self, pod: Replica) -> None:
        """Trying again would change nothing."""
        self._given_up.add(pod.uid)

    def forget(self, state: Mapping[str, Replica]) -> None:
        """Pods that are gone."""
        self._joined = {uid: value for uid, value in self._joined.items() if uid in state}
        self._answered = {uid: value for uid, value in self._answered.items() if uid in state}
        self._given_up &= state.keys()


async def _add(api: KubeApi, pod: Object, spec: SidecarSpec, name: str, *, dry_run: bool = False) -> None:
    metadata = pod["metadata"]
    body = {
        # With the version it was read at: a pod that has changed since is a conflict, not overwritten.
        "metadata": {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]},
        "spec": {"ephemeralContainers": [container(spec, name, pod)]},
    }
    path = pods_path(metadata["namespace"], metadata["name"], "ephemeralcontainers")
    await api.patch(path, "strategic", body, dry_run=dry_run)
