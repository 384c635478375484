"""Logs of containers of ours: what is there, and what they write from now on, also when their pods are replaced."""

import asyncio
import math
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

from meshdev.config import MANAGER_LABELS
from meshdev.errors import ClusterError, InterceptError, ManagerError, MeshdevError
from meshdev.kube.client import KubeApi, pods_path
from meshdev.kube.errors import NotFoundError
from meshdev.kube.manifest import CONTROL_CONTAINER, RELAY_CONTAINER, TUNNEL_CONTAINER
from meshdev.kube.replicas import sidecars
from meshdev.kube.watching import as_is, follow, listed
from meshdev.kube.workloads import Resolved, is_of, pods_query, watch_replicas
from meshdev.wire.log_lines import LogLine, LogSplitter, of_container

Object = Mapping[str, Any]
Show = Callable[[LogLine], None]
Trouble = Callable[[MeshdevError], None]

_MANAGER: Final = {"labelSelector": ",".join(f"{name}={value}" for name, value in sorted(MANAGER_LABELS.items()))}
_CONTAINERS: Final = (TUNNEL_CONTAINER, CONTROL_CONTAINER, RELAY_CONTAINER)
#: The most of one log that is read: the kubelet keeps 10 MiB by default (KubeletConfiguration: containerLogMaxSize).
MAX_BYTES: Final = 16 << 20
_READ_SECONDS: Final = 15.0
#: Silence after which a log is followed by a new request: a connection that some middlebox forgot is not noticed.
_SILENCE_SECONDS: Final = 240.0
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 5.0


@dataclass(frozen=True, order=True)
class ContainerLog:
    """Whose log it is."""

    namespace: str
    pod: str
    container: str

    @property
    def source(self) -> str:
        """For people."""
        return f"{self.pod}/{self.container}"


@dataclass(frozen=True)
class RunningContainer:
    """A container that runs; one that is started again has another *id*."""

    log: ContainerLog
    id: str


@dataclass(frozen=True)
class WantedLines:
    """Which lines of each log: the last *tail*, those of the last *since* seconds, *previous*: of the one before."""

    tail: int | None = None
    since: float | None = None
    previous: bool = False
    most: int = MAX_BYTES

    def query(self) -> dict[str, str]:
        """As PodLogOptions (core/v1)."""
        asked = {"limitBytes": str(self.most)}
        if self.tail is not None:
            asked["tailLines"] = str(self.tail)
        if self.since is not None:
            asked["sinceSeconds"] = str(max(1, math.ceil(self.since)))
        if self.previous:
            asked["previous"] = "true"
        return asked


@dataclass
class LogFollower:
    """Follows logs behind what was read of them before: nothing is shown twice, and nothing is left out."""

    api: KubeApi
    show: Show
    trouble: Trouble
    _shown: dict[ContainerLog, str] = field(default_factory=dict)
    """The time of the last line."""
    _running: frozenset[RunningContainer] = frozenset()

    def read(self, log: ContainerLog, lines: list[LogLine]) -> None:
        """These have been shown."""
        self._shown[log] = max([line.time or "" for line in lines], default="")

    async def follow(self, states: AsyncGenerator[frozenset[RunningContainer]]) -> None:
        """Until cancelled: what the containers write that *states* says are running. Raises ForbiddenError."""
        followed: dict[RunningContainer, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as tasks, aclosing(states):
            async for self._running in states:
                for instance in self._running:
                    if instance not in followed or followed[instance].done():
                        followed[instance] = tasks.create_task(self._follow(instance))

    async def _follow(self, instance: RunningContainer) -> None:
        """Until it has ended. A log that ends before its container does is asked for again."""
        pause = _FIRST_PAUSE
        while True:
            before = self._shown.get(instance.log)
            try:
                await self._stream(instance.log)
            except NotFoundError:
                return
            except ClusterError as error:
                self.trouble(error)
            if instance not in self._running:
                return
            pause = _FIRST_PAUSE if self._shown.get(instance.log) != before else min(2 * pause, _LONGEST_PAUSE)
            await asyncio.sleep(pause)

    async def _stream(self, log: ContainerLog) -> None:
        query = {"container": log.container, "follow": "true", "timestamps": "true"}
        if shown := self._shown.get(log):
            query["sinceTime"] = f"{shown[:19]}Z"  # the API server reads whole seconds
        splitter = LogSplitter()
        async with aclosing(self.api.log(log.namespace, log.pod, query, _SILENCE_SECONDS)) as pieces:
            async for piece in pieces:
                for text in splitter.feed(piece):
                    self._take(log, of_container(log.source, text))

    def _take(self, log: ContainerLog, line: LogLine) -> None:
        if line.time is not None:
            if line.time <= self._shown.get(log, ""):
                return
            self._shown[log] = line.time
        self.show(line)


async def read(api: KubeApi, log: ContainerLog, wanted: WantedLines) -> list[LogLine]:
    """The lines that are there. ClusterError where the container has not begun."""
    splitter, texts = LogSplitter(), []
    query = {"container": log.container, "timestamps": "true", **wanted.query()}
    async with aclosing(api.log(log.namespace, log.pod, query, _READ_SECONDS)) as pieces:
        async for piece in pieces:
            texts += splitter.feed(piece)
    return [of_container(log.source, text) for text in texts + splitter.last()]


async def manager_logs(api: KubeApi, namespace: str) -> list[ContainerLog]:
    """Of the containers of the manager's pods, also of one that does not run. Raises ManagerError without any."""
    pods, _ = await listed(api, pods_path(namespace), _MANAGER, as_is)
    if not pods:
        raise ManagerError(
            f"there is no manager in namespace {namespace}", hint="--manager-namespace names another one"
        )
    return sorted(log for pod in pods.values() for log in _of_manager(pod))


async def manager_instances(
    api: KubeApi, namespace: str, trouble: Trouble
) -> AsyncGenerator[frozenset[RunningContainer]]:
    """The manager's containers that run, at once and after each change."""
    states = follow(api, pods_path(namespace), _MANAGER, _running_of_manager, trouble)
    async with aclosing(states):
        async for state in states:
            yield frozenset().union(*state.values())


async def sidecar_logs(api: KubeApi, resolved: Resolved) -> list[ContainerLog]:
    """Of the sidecars in the workload's pods; where none runs in a pod any more, of the last one.

    Raises InterceptError where there is none.
    """
    workload = resolved.workload
    pods, _ = await listed(api, pods_path(workload.namespace), pods_query(resolved), as_is)
    logs = sorted(log for pod in pods.values() if is_of(workload, pod) for log in _of_sidecars(pod))
    if not logs:
        raise InterceptError(
            f"no pod of {workload} in namespace {workload.namespace} has a sidecar of meshdev",
            hint=f"meshdev mesh {workload} --header NAME=VALUE puts one there",
        )
    return logs


async def sidecar_instances(
    api: KubeApi, resolved: Resolved, trouble: Trouble
) -> AsyncGenerator[frozenset[RunningContainer]]:
    """The sidecars that run in the workload's pods, at once and after each change."""
    states = watch_replicas(api, resolved, trouble)
    async with aclosing(states):
        async for state in states:
            yield frozenset(
                RunningContainer(ContainerLog(each.namespace, each.name, sidecar.name), sidecar.instance)
                for each in state.values()
                for sidecar in each.sidecars
                if sidecar.instance
            )


def _of_manager(pod: Object) -> list[ContainerLog]:
    there = {each["name"] for each in pod["spec"].get("containers") or []}
    return [_log(pod, name) for name in _CONTAINERS if name in there]


def _running_of_manager(pod: Object) -> frozenset[RunningContainer]:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return frozenset(
        RunningContainer(_log(pod, each["name"]), each.get("containerID") or "")
        for each in statuses
        if each.get("name") in _CONTAINERS and "running" in (each.get("state") or {})
    )


def _of_sidecars(pod: Object) -> list[ContainerLog]:
    found = list(sidecars(pod))  # the newest first
    alive = [each for each in found if each.alive]
    return [_log(pod, each.name) for each in alive or found[:1]]


def _log(pod: Object, container: str) -> ContainerLog:
    return ContainerLog(pod["metadata"]["namespace"], pod["metadata"]["name"], container)
