"""A sidecar by server-side apply in the workload's template: its pods are replaced, once to enter and once to leave.

For people who may change workloads and not add ephemeral containers. Everything written belongs to the field manager
``meshdev``, so that applying the same object without it removes exactly that and other people's changes stay.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, cast

from meshdev.errors import ClusterError, ForbiddenError, InterceptError
from meshdev.kube.client import KubeApi, Object, pods_path, workloads_path
from meshdev.kube.errors import ConflictError, NotFoundError
from meshdev.kube.refusals import refuse_patch
from meshdev.kube.replicas import TEMPLATE_CONTAINER
from meshdev.kube.watching import ReasonReporter, State, as_is, follow, merged
from meshdev.kube.workloads import Resolved, is_of, pods_query
from meshdev.sidecar.join.container import SidecarSpec, native
from meshdev.sidecar.join.rollout import progress_of

ROLLOUT_SECONDS: Final = 180.0
#: Changes with every session that joins: whoever leaves meanwhile meets a conflict and looks again who is there.
PATCHED_BY: Final = "meshdev.dev/patched-by"
_ATTEMPTS: Final = 20


async def dry_run(api: KubeApi, resolved: Resolved, spec: SidecarSpec) -> None:
    """Ask whether the patch would be taken, and a pod of the patched template; changes nothing.

    Raises InterceptError where a patch would not reach the pods, and what the API server says.
    """
    refuse_patch(str(resolved.workload), resolved.object)
    made = await api.patch(_path(resolved), "apply", _applied(resolved.object, spec, "dry-run"), dry_run=True)
    template = made["spec"]["template"]
    ours = _sidecar_in(template)
    if ours is None or ours.get("restartPolicy") != "Always":
        raise InterceptError(
            f"{resolved.workload} cannot be intercepted by a patch: this cluster has no native sidecars",
            hint="they came with Kubernetes 1.29; --strategy ephemeral works from 1.25 on",
        )
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        # As a ReplicaSet's controller would make it: Pod Security looks at pods, it only warns about templates.
        "metadata": {
            "generateName": f"{resolved.workload.name}-",
            **{key: template["metadata"].get(key) or {} for key in ("labels", "annotations")},
        },
        "spec": template["spec"],
    }
    try:
        await api.create(pods_path(resolved.workload.namespace), pod, dry_run=True)
    except ForbiddenError:
        return  # who may change workloads need not be allowed pods; a refusal shows in the rollout


async def enter(
    api: KubeApi,
    resolved: Resolved,
    spec: SidecarSpec,
    intercept: str,
    *,
    progress: Callable[[str], None],
    seconds: float = ROLLOUT_SECONDS,
) -> None:
    """The sidecar is in the template and all pods are of it. *intercept* is the caller's id; its Lease is there.

    Raises ImageError, AdmissionError, ClusterError with the pods' own reasons; the patch stays then: :func:`leave`.
    """
    refuse_patch(str(resolved.workload), resolved.object)
    there = await api.get(_path(resolved))
    await api.patch(_path(resolved), "apply", _applied(there, spec, intercept))
    await rolled_out(api, resolved, progress=progress, seconds=seconds)


async def leave(api: KubeApi, resolved: Resolved, others: Callable[[], Awaitable[bool]]) -> bool:
    """Take the sidecar out of the template unless *others* hold the workload; whether it was taken out.

    The caller has deleted its own Lease before. Every session that leaves calls this, whichever strategy it used:
    the last one has to clean up. Does not wait for the rollout: :func:`rolled_out`.
    """
    for _ in range(_ATTEMPTS):
        try:
            there = await api.get(_path(resolved))
        except NotFoundError:
            return False
        if there["metadata"]["uid"] != resolved.workload.uid or not is_patched(there):
            return False
        if await others():  # asked after reading: who comes later changes the version
            return False
        try:
            await api.patch(_path(resolved), "apply", _head(there, version=there["metadata"]["resourceVersion"]))
        except ConflictError:
            continue
        return True
    raise ClusterError(f"{resolved.workload} changes all the time: the sidecar is still in its template")


def is_patched(workload: Object) -> bool:
    """Whether the sidecar is in its template."""
    return workload["kind"] not in {"Pod", "Service"} and _sidecar_in(workload["spec"]["template"]) is not None


async def rolled_out(
    api: KubeApi, resolved: Resolved, *, progress: Callable[[str], None], seconds: float = ROLLOUT_SECONDS
) -> None:
    """Wait until all pods are of the workload's present template. Watches, does not poll."""
    workload = resolved.workload
    waiting = ReasonReporter(progress, "it has not begun")
    by_name = {"fieldSelector": f"metadata.name={workload.name}"}
    sources: tuple[AsyncGenerator[State[Object]], ...] = (
        follow(api, workloads_path(workload.namespace, workload.kind), by_name, as_is, waiting.trouble),
        follow(api, pods_path(workload.namespace), pods_query(resolved), as_is, waiting.trouble),
    )
    seen: list[list[Object]] = [[], []]
    try:
        async with asyncio.timeout(seconds), aclosing(merged(*sources)) as changes:
            async for source, state in changes:
                seen[source] = list(state.values())
                if not seen[0]:
                    continue
                found = progress_of(
                    {**seen[0][0], "kind": resolved.object["kind"]},
                    [pod for pod in seen[1] if is_of(workload, pod)],
                )
                if found is None:
                    return
                waiting.report(found)
    except TimeoutError:
        pass
    raise ClusterError(
        f"the pods of {workload} were not replaced within {seconds:.0f} seconds: {waiting.reason}",
        hint=f"kubectl -n {workload.namespace} describe {workload}",
    )


def _applied(there: Object, spec: SidecarSpec, intercept: str) -> Object:
    """The whole of what is ours in the workload. One for the same manager stays as it is: nothing is rolled out."""
    container: Any = native(spec, there["spec"]["template"])
    existing = _sidecar_in(there["spec"]["template"])
    if existing is not None and _environment(existing) == _environment(container):
        container = existing
    head = _head(there)
    head["metadata"]["annotations"] = {PATCHED_BY: intercept}
    return {**head, "spec": {"template": {"spec": {"initContainers": [container]}}}}


def _head(there: Object, version: str | None = None) -> Object:
    """With its uid: applying to an object that is gone would otherwise create one."""
    metadata = {"name": there["metadata"]["name"], "uid": there["metadata"]["uid"]}
    if version is not None:
        metadata["resourceVersion"] = version
    return {"apiVersion": "apps/v1", "kind": there["kind"], "metadata": metadata}


def _sidecar_in(template: Object) -> Object | None:
    containers = template["spec"].get("initContainers") or []
    found = next((each for each in containers if each["name"] == TEMPLATE_CONTAINER), None)
    return cast("Object | None", found)


def _environment(container: Object) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container.get("env") or [] if each.get("value")}


def _path(resolved: Resolved) -> str:
    return workloads_path(resolved.workload.namespace, resolved.workload.kind, resolved.workload.name)
