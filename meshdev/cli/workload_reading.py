"""What ``env``, ``pull`` and ``run --env-from`` read of a workload, and how they name what is missing."""

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from meshdev.cli import render
from meshdev.environment.mounts import Pulled, mounts_need, mounts_of, pulled, touched, uses_variables
from meshdev.environment.sources import ContainerView, Missing
from meshdev.environment.variables import Variables, variables_need, variables_of
from meshdev.errors import ClusterError, ForbiddenError, InterceptError
from meshdev.intercept.target import parse_target
from meshdev.kube.client import KubeApi
from meshdev.kube.kubeconfig import Options
from meshdev.kube.workload_sources import FoundContainer, find_container, read_sources
from meshdev.text import first_few


@dataclass(frozen=True)
class WorkloadVariables:
    """The environment, and whose it is: ``container app of pod/web-1``."""

    where: str
    variables: Variables


@dataclass(frozen=True)
class WorkloadFiles:
    """The files below a path of a container, and whose they are."""

    where: str
    pulled: Pulled


def read_variables(options: Options, target: str, container: str | None) -> WorkloadVariables:
    """The environment of the target's container; where it is the template's, that is said on stderr."""

    async def read() -> WorkloadVariables:
        async with await KubeApi.open(options) as api:
            found = await _container(api, target, container)
            return WorkloadVariables(_where(found), await _variables(api, found.view))

    return asyncio.run(read())


def read_files(options: Options, target: str, path: PurePosixPath, container: str | None) -> WorkloadFiles:
    """The files at and below *path*. Raises InterceptError where no volume is mounted there, or it has no such file."""

    async def read() -> WorkloadFiles:
        async with await KubeApi.open(options) as api:
            found = await _container(api, target, container)
            return WorkloadFiles(_where(found), await _files(api, found, path))

    return asyncio.run(read())


def note_missing(missing: Sequence[Missing]) -> None:
    """A line each on stderr."""
    for each in missing:
        note(f"not read: {each}")


def note(text: str) -> None:
    """One on stderr."""
    print(f"note: {render.indented(text)}", file=sys.stderr, flush=True)


def refuse_missing(what: str, missing: Sequence[Missing], hint: str | None) -> None:
    """Raise the error for what is missing, a right or something else; do nothing where nothing is."""
    if not missing:
        return
    kind = ForbiddenError if any(each.forbidden for each in missing) else ClusterError
    raise kind(f"{what}: {first_few([str(each) for each in missing])}", hint=hint)


async def _container(api: KubeApi, target: str, container: str | None) -> FoundContainer:
    found = await find_container(api, parse_target(target), api.namespace, container)
    if found.note is not None:
        note(found.note)
    return found


def _where(found: FoundContainer) -> str:
    return f"container {found.view.container['name']} of {found.where}"


async def _variables(api: KubeApi, view: ContainerView) -> Variables:
    return variables_of(await read_sources(api, view, variables_need(view)))


async def _files(api: KubeApi, found: FoundContainer, path: PurePosixPath) -> Pulled:
    view = found.view
    variables = (await _variables(api, view)).values if uses_variables(view) else {}
    everything = mounts_of(view, variables)
    mounts = touched(everything, path)
    if not mounts:
        there = f"mounted there: {first_few(list(everything), 8)}" if everything else None
        raise InterceptError(f"nothing is mounted at {path} in {_where(found)}", hint=there)
    sources = await read_sources(api, view, mounts_need(mounts, path, view))
    try:
        made = pulled(mounts, path, sources)
    except ValueError as error:
        raise InterceptError(f"{path} of {_where(found)} is not pulled: {error}") from error
    if not made.files and not made.missing:
        raise InterceptError(f"there is no file {path} in {_where(found)}", hint=f"mounted there: {mounts[0]}")
    return made
