"""What the dashboard follows in the cluster while a page is open: pods of some namespaces, and everybody's Leases."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import aclosing
from typing import Any, Final

from meshdev.errors import MeshdevError
from meshdev.kube import leases
from meshdev.kube.client import KubeApi
from meshdev.kube.clients import WorkloadPod, watch_workload_pods
from meshdev.kube.observing import Leases, Observer
from meshdev.session.dashboard_view import OtherIntercept, Workloads

#: Between two lists of Leases, in seconds. Not a watch: whoever may list need not be allowed to watch (``list``).
LEASES_SECONDS: Final = 3.0
#: Until what was refused is tried again, in seconds.
REFUSED_SECONDS: Final = 30.0
#: Namespaces that are followed at once.
MAX_NAMESPACES: Final = 16


class ClusterView:
    """Follows what :meth:`follow` was last given, by tasks of *group*."""

    def __init__(self, api: KubeApi, group: asyncio.TaskGroup, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._group = group
        self._clock = clock
        self._tasks: dict[str, tuple[asyncio.Task[None], ...]] = {}
        self._pods: dict[str, Mapping[str, WorkloadPod]] = {}
        self._leases: dict[str, tuple[OtherIntercept, ...]] = {}
        self._errors: dict[tuple[str, str], MeshdevError] = {}
        self._changed = True
        self._workloads = Workloads()

    @property
    def workloads(self) -> Workloads:
        """The workloads as they are now."""
        if self._changed:
            self._workloads = Workloads.of(self._pods, self._api.namespace)
            self._changed = False
        return self._workloads

    @property
    def intercepts(self) -> Iterator[OtherIntercept]:
        """Everybody's, the oldest first in each namespace."""
        return (each for found in self._leases.values() for each in found)

    @property
    def errors(self) -> list[MeshdevError]:
        """Why something is not followed now."""
        return list(self._errors.values())

    def follow(self, namespaces: set[str]) -> None:
        """From now on these, and no others."""
        wanted = {*sorted(namespaces - {self._api.namespace})[: MAX_NAMESPACES - 1], self._api.namespace}
        for namespace in self._tasks.keys() - wanted:
            self._forget(namespace)
        for namespace in wanted - self._tasks.keys():
            self._tasks[namespace] = (
                self._group.create_task(self._keep("pods", namespace, self._follow_pods)),
                self._group.create_task(self._keep("leases", namespace, self._follow_leases)),
            )

    def close(self) -> None:
        """Follow nothing any more."""
        for namespace in list(self._tasks):
            self._forget(namespace)

    def _forget(self, namespace: str) -> None:
        for each in self._tasks.pop(namespace):
            each.cancel()
        self._pods.pop(namespace, None)
        self._leases.pop(namespace, None)
        for what in ("pods", "leases"):
            self._errors.pop((what, namespace), None)
        self._changed = True

    async def _keep(self, what: str, namespace: str, follow: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                await follow(namespace)
            except MeshdevError as error:
                self._errors[what, namespace] = error
            await asyncio.sleep(REFUSED_SECONDS)

    async def _follow_pods(self, namespace: str) -> None:
        def trouble(error: MeshdevError) -> None:
            self._errors["pods", namespace] = error

        async with aclosing(watch_workload_pods(self._api, namespace, trouble)) as states:
            async for pods in states:
                self._errors.pop(("pods", namespace), None)
                self._pods[namespace] = pods
                self._changed = True

    async def _follow_leases(self, namespace: str) -> None:
        observer = Observer(self._clock)
        while True:
            found = await self._list(namespace, observer)
            self._leases[namespace] = tuple(
                OtherIntercept(each, observer.life(each) == "expired") for each in found.records
            )
            await asyncio.sleep(LEASES_SECONDS)

    async def _list(self, namespace: str, observer: Observer) -> Leases:
        found = await leases.all_of(self._api, namespace)
        observer.saw(self._api, found)
        self._errors.pop(("leases", namespace), None)
        return found
