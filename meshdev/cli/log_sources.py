"""Where ``logs`` and ``gather`` read: files of this machine, the manager's containers, sidecars of workloads."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from meshdev.cli import log_request
from meshdev.cli.log_files import LogFile, follow
from meshdev.cli.log_request import Component
from meshdev.errors import ClusterError, MeshdevError, first_of_group
from meshdev.intercept.target import Target, parse_target
from meshdev.kube import logs
from meshdev.kube.client import KubeApi
from meshdev.kube.kubeconfig import Options, load
from meshdev.kube.logs import ContainerLog, LogFollower, RunningContainer, WantedLines
from meshdev.kube.workloads import resolve
from meshdev.state import Paths
from meshdev.wire.log_lines import LogLine, in_order, since, timestamp
from meshdev.wire.session_api import Status

Show = Callable[[LogLine], None]
#: What keeps a log from being read.
Trouble = Callable[[MeshdevError], None]
Logs = list[list[LogLine]]


class LogSource(Protocol):
    """Some logs."""

    async def present(self, wanted: WantedLines, trouble: Trouble) -> Logs:
        """The lines that are there; of a log that cannot be read *trouble* is told. Raises where none can be."""
        ...

    async def follow(self, show: Show, trouble: Trouble) -> None:
        """Until cancelled: what is written from then on."""
        ...


@dataclass
class LocalLogs:
    """Files of this machine."""

    paths: Paths
    files: Sequence[LogFile]

    async def present(self, wanted: WantedLines, _trouble: Trouble) -> Logs:
        """See LogSource."""
        found = [file.read() for file in self.files]
        if wanted.since is not None:
            earliest = timestamp(datetime.fromtimestamp(time.time() - wanted.since, UTC))
            found = [since(lines, earliest) for lines in found]
        return found if wanted.tail is None else [lines[len(lines) - wanted.tail :] for lines in found]

    async def follow(self, show: Show, _trouble: Trouble) -> None:
        """See LogSource."""
        self.paths.prepare()  # nothing was connected here yet
        await follow(self.paths.directory, self.files, show)


@dataclass
class ClusterLogs:
    """Logs of containers. *there* are those that can be read, *running* the ones that can be followed."""

    api: KubeApi
    there: Callable[[], Awaitable[list[ContainerLog]]]
    running: Callable[[Trouble], AsyncGenerator[frozenset[RunningContainer]]]
    _read: dict[ContainerLog, list[LogLine]] = field(default_factory=dict)

    async def present(self, wanted: WantedLines, trouble: Trouble) -> Logs:
        """See LogSource."""
        for log in await self.there():
            try:
                self._read[log] = await logs.read(self.api, log, wanted)
            except ClusterError as error:  # it has not begun, or has had no former instance
                trouble(error)
        return list(self._read.values())

    async def follow(self, show: Show, trouble: Trouble) -> None:
        """See LogSource."""
        follower = LogFollower(self.api, show, trouble)
        for log, lines in self._read.items():
            follower.read(log, lines)
        await follower.follow(self.running(trouble))


@dataclass(frozen=True)
class LogRequest:
    """Which logs, as typed, and the connection that is there.

    *chosen*: the user has named the cluster. *tolerant*: what cannot be read is reported, and the rest shown.
    """

    paths: Paths
    components: tuple[Component, ...]
    wanted: WantedLines
    options: Options
    status: Status | None = None
    chosen: bool = False
    target: str | None = None
    manager_namespace: str | None = None
    tolerant: bool = False


def local(paths: Paths, components: Sequence[Component]) -> LocalLogs:
    """The files of those components."""
    files = {"session": paths.log, "helper": paths.helper_log}
    return LocalLogs(paths, [LogFile(name, path) for name, path in files.items() if name in components])


async def show(request: LogRequest, show: Show, trouble: Trouble, *, follow: bool) -> None:
    """All lines in the order of their times; then, to *follow*, what comes, until cancelled."""
    async with AsyncExitStack() as stack:
        try:
            await _show(await _sources(request, stack, trouble), request, show, trouble, follow=follow)
        except BaseExceptionGroup as errors:
            raise first_of_group(errors) from errors


async def _show(
    sources: Sequence[LogSource], request: LogRequest, show: Show, trouble: Trouble, *, follow: bool
) -> None:
    found: Logs = []
    readable = []
    for source in sources:
        try:
            found += await source.present(request.wanted, trouble)
            readable.append(source)
        except MeshdevError as error:
            if not request.tolerant:
                raise
            trouble(error)
    for line in in_order(found):
        show(line)
    if follow:
        async with asyncio.TaskGroup() as tasks:
            for source in readable:
                tasks.create_task(source.follow(show, trouble))


async def _sources(request: LogRequest, stack: AsyncExitStack, trouble: Trouble) -> list[LogSource]:
    files = local(request.paths, request.components)
    sources: list[LogSource] = [files] if files.files else []
    if {"manager", "sidecar"}.isdisjoint(request.components):
        return sources
    try:
        sources += await in_cluster(request, stack)
    except MeshdevError as error:
        if not request.tolerant:
            raise
        trouble(error)
    return sources


def locate(request: LogRequest) -> tuple[Options, log_request.LogPlace]:
    """How to reach the cluster, as the connection does unless the user chose, and where in it. Raises ConfigError."""
    options, status = request.options, request.status
    if status is not None and status.context and not request.chosen:
        options = replace(options, context=status.context, ssh=options.ssh or status.ssh)
    config = load(options)
    where = log_request.place(status, config.server, config.namespace, request.manager_namespace, chosen=request.chosen)
    return options, where


async def in_cluster(request: LogRequest, stack: AsyncExitStack) -> list[LogSource]:
    """The sources in the cluster; *stack* keeps the connection to it. Raises what keeps them from being found."""
    options, where = locate(request)
    wanted: tuple[tuple[str, str], ...] = ()
    if "sidecar" in request.components:
        wanted = log_request.targets(request.target, request.options.namespace, where)
    api = await stack.enter_async_context(await KubeApi.open(options))
    sources: list[LogSource] = [manager(api, where.manager)] if "manager" in request.components else []
    return sources + [await sidecars(api, parse_target(target), namespace) for target, namespace in wanted]


def manager(api: KubeApi, namespace: str) -> ClusterLogs:
    """The manager's containers there."""
    return ClusterLogs(api, partial(logs.manager_logs, api, namespace), partial(logs.manager_instances, api, namespace))


async def sidecars(api: KubeApi, target: Target, namespace: str) -> ClusterLogs:
    """The sidecars of that target's workload. Raises InterceptError where there is no such target."""
    found = await resolve(api, target, namespace)
    return ClusterLogs(api, partial(logs.sidecar_logs, api, found), partial(logs.sidecar_instances, api, found))
