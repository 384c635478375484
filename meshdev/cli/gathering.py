"""The parts of ``meshdev gather``, from where the other commands have them."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from functools import partial
from typing import Final

from meshdev.cli import launch, listing, log_request, log_sources
from meshdev.cli import status as status_command
from meshdev.cli.log_files import LogFile
from meshdev.cli.log_sources import LogRequest
from meshdev.config import DEFAULT_IMAGE
from meshdev.doctor.checks.facts import Question
from meshdev.doctor.plan import diagnose
from meshdev.errors import ConfigError, InterceptError, MeshdevError
from meshdev.gather import allowed, archive, cluster, machine
from meshdev.gather.masked import Masker
from meshdev.gather.parts import Files, Part, Reasons, collect
from meshdev.intercept.target import parse_target
from meshdev.isolation.reasons import Forbidden, Works
from meshdev.kube import kubeconfig
from meshdev.kube.client import KubeApi, open_jump
from meshdev.wire.message import dump

Missing = list[tuple[str, str]]
_LOCAL: Final[tuple[log_request.Component, ...]] = ("session", "helper")


async def gather(request: LogRequest, isolation: Works | Forbidden) -> tuple[dict[str, bytes], Missing]:
    """The archive's files, and which parts are missing, with the reasons."""
    async with AsyncExitStack() as stack:
        await _log_in(request, stack)
        parts = _parts(request, _Cluster(request, stack), isolation)
        report = await collect(parts)
    masker = Masker(_secrets(request))
    missing = [(name, masker.line(reason)) for name, reasons in report.missing.items() for reason in reasons]
    return archive.contents(parts, report, masker), missing


async def _log_in(request: LogRequest, stack: AsyncExitStack) -> None:
    """At the bastion, whose questions take longer than a part may; what keeps it from that is each part's reason."""
    with suppress(MeshdevError):
        options, _ = log_sources.locate(request)
        if jump := await asyncio.to_thread(open_jump, options):
            stack.callback(jump.close)


class _Cluster:
    """The API server, which is connected to once for all parts."""

    def __init__(self, request: LogRequest, stack: AsyncExitStack) -> None:
        self._request = request
        self._stack = stack
        self._opening: asyncio.Future[KubeApi] | None = None
        self.where = log_request.LogPlace("", "")

    async def api(self) -> KubeApi:
        """Raises what keeps it from being reached, each time."""
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._open())
        return await asyncio.shield(self._opening)

    async def _open(self) -> KubeApi:
        options, self.where = log_sources.locate(self._request)
        return await self._stack.enter_async_context(await KubeApi.open(options))

    def targets(self) -> tuple[tuple[str, str], ...]:
        """Whose pods belong to the report."""
        try:
            return log_request.targets(self._request.target, self._request.options.namespace, self.where)
        except InterceptError:
            return ()

    def part(
        self, read: Callable[[KubeApi, "_Cluster", Reasons], Awaitable[Files]]
    ) -> Callable[[Reasons], Awaitable[Files]]:
        """What *read* finds there."""

        async def collected(reasons: Reasons) -> Files:
            return await read(await self.api(), self, reasons)

        return collected


def _parts(request: LogRequest, there: _Cluster, isolation: Works | Forbidden) -> tuple[Part, ...]:
    return (
        Part("versions", "meshdev, Python, packages, system", machine.versions),
        Part("status", "`meshdev status -o json`", partial(_status, request)),
        Part("doctor", "`meshdev doctor -o json`", partial(_doctor, request, isolation)),
        Part("list", "`meshdev list -o json` of the namespace", partial(_list, request)),
        Part("kubeconfig", "the context that is used, without credentials", partial(_kubeconfig, request)),
        Part("network", "links, addresses, routes, rules and resolvers of this machine", machine.network),
        Part("logs", "of session and helper, the last lines", partial(_local_logs, request)),
        Part("manager", "the traffic-manager's Deployment, pods and events", there.part(_manager)),
        Part("manager logs", "of the traffic-manager's containers", there.part(_manager_logs)),
        Part("workloads", "pods of intercepted workloads and their events", there.part(_workloads)),
        Part("sidecar logs", "of the sidecars in these pods", there.part(_sidecar_logs)),
        Part("leases", "Leases of intercepts, without matches", there.part(_leases)),
    )


async def _status(request: LogRequest, _reasons: Reasons) -> Files:
    return {"status.json": dump(await asyncio.to_thread(status_command.current, request.paths))}


async def _doctor(request: LogRequest, isolation: Works | Forbidden, _reasons: Reasons) -> Files:
    try:
        options, _ = log_sources.locate(request)
    except ConfigError:  # which is one of its findings
        options = request.options
    question = Question(
        options=options,
        image=DEFAULT_IMAGE,
        paths=request.paths,
        uid=os.getuid(),
        status=partial(status_command.current, request.paths),
        helper=launch.helper_command(),
        manager_namespace=request.manager_namespace,
        target=parse_target(request.target) if request.target is not None else None,
        isolation=isolation,
    )
    return {"doctor.json": [each.as_json() for each in await diagnose(question, lambda _: None)]}


async def _list(request: LogRequest, _reasons: Reasons) -> Files:
    options, where = log_sources.locate(request)
    own = None
    if request.status is not None:
        own = {each.id: tuple((one.pod, one.identity) for one in each.identities) for each in request.status.intercepts}
    found = await listing.find(replace(options, namespace=where.targets), own, lambda _: None, everywhere=False)
    return {"list.json": {"intercepts": [row.as_json() for row in found.rows], "unreadable": found.troubles}}


async def _kubeconfig(request: LogRequest, _reasons: Reasons) -> Files:
    options, _ = log_sources.locate(request)
    found = kubeconfig.merged(options)
    return {"kubeconfig.json": allowed.kubeconfig(found, options.context or found["current-context"])}


def _secrets(request: LogRequest) -> frozenset[str]:
    try:
        return allowed.secrets_of(kubeconfig.merged(request.options))
    except ConfigError:
        return frozenset()


async def _local_logs(request: LogRequest, _reasons: Reasons) -> Files:
    files = log_sources.local(request.paths, _LOCAL).files
    former = [LogFile(f"{each.source}.old", each.path.with_suffix(".old.log")) for each in files]
    found = {each.source: each.read()[-cluster.MAX_LINES :] for each in (*files, *former)}
    return {f"logs/{name}.txt": cluster.log_text(lines) for name, lines in found.items() if lines}


async def _manager(api: KubeApi, there: _Cluster, reasons: Reasons) -> Files:
    return await cluster.manager(api, there.where.manager, reasons)


async def _manager_logs(api: KubeApi, there: _Cluster, reasons: Reasons) -> Files:
    return await cluster.manager_logs(api, there.where.manager, reasons)


async def _workloads(api: KubeApi, there: _Cluster, reasons: Reasons) -> Files:
    return await cluster.workloads(api, there.targets(), reasons)


async def _sidecar_logs(api: KubeApi, there: _Cluster, reasons: Reasons) -> Files:
    return await cluster.sidecar_logs(api, there.targets(), reasons)


async def _leases(api: KubeApi, there: _Cluster, reasons: Reasons) -> Files:
    namespaces = {there.where.targets, *(namespace for _, namespace in there.targets())}
    return await cluster.leases(api, sorted(namespaces), reasons)
