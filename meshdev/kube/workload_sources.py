"""Reads what the environment and the files of a container are made of, with the user's own rights.

What may not be read, or is not there, is a value of the result; everything else that goes wrong is raised.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from meshdev.environment.containers import best_pod, chosen_container
from meshdev.environment.services import API_SERVICE
from meshdev.environment.sources import (
    ContainerView,
    Entries,
    Needs,
    Sources,
    Store,
    TokenRequest,
    Unreadable,
    config_map_entries,
    secret_entries,
)
from meshdev.errors import ForbiddenError, InterceptError, first_of_group
from meshdev.intercept.spec import Workload
from meshdev.intercept.target import Target
from meshdev.kube.client import (
    KubeApi,
    Object,
    entries_path,
    node_path,
    pods_path,
    services_path,
    token_path,
)
from meshdev.kube.errors import NotFoundError
from meshdev.kube.replicas import TEMPLATE_CONTAINER
from meshdev.kube.watching import as_is, listed
from meshdev.kube.workloads import is_of, missing_target, read_workload, selector_of, stays

T = TypeVar("T")

#: Namespace of the Service of the API server (metav1.NamespaceDefault).
_API_NAMESPACE: Final = "default"


@dataclass(frozen=True)
class FoundContainer:
    """The container that a target stands for. *where* names its pod or, where none runs, the workload."""

    view: ContainerView
    where: str
    note: str | None = None
    """Why it is the template."""


async def find_container(api: KubeApi, target: Target, namespace: str, container: str | None) -> FoundContainer:
    """The container of a pod that runs, else of the template. Raises InterceptError, ForbiddenError.

    Unlike an intercept's target it may be in a mesh, on the node's network or on Windows: nothing joins it.
    """
    note = None
    if target.kind == "pod":
        found: Object = await read_workload(api, namespace, "pod", target.name)
    elif target.kind == "service":
        found = await _behind(api, target, namespace)
    else:
        workload = await read_workload(api, namespace, target.kind, target.name)
        found, note = await _pod_or_template(api, target, namespace, workload)
    try:
        chosen = chosen_container(found, container, (TEMPLATE_CONTAINER,))
    except LookupError as error:
        raise InterceptError(f"{target} in namespace {namespace}: {error}", hint="-c names a container") from error
    where = str(target) if note else f"pod/{found['metadata']['name']}"
    return FoundContainer(ContainerView(namespace, found, chosen, live=note is None), where, note)


async def read_sources(api: KubeApi, view: ContainerView, needs: Needs) -> Sources:
    """Everything in *needs*, at the same time. Raises UnreachableError and what else a retry or a login may cure."""
    try:
        async with asyncio.TaskGroup() as group:
            stores = {each: group.create_task(_entries(api, view.namespace, each)) for each in sorted(needs.stores)}
            tokens = {each: group.create_task(_token(api, view, each)) for each in sorted(needs.tokens)}
            services = group.create_task(_services(api, view, wanted=needs.services))
            node = group.create_task(_allocatable(api, view, wanted=needs.node))
    except BaseExceptionGroup as errors:
        raise first_of_group(errors) from errors
    own, api_service = services.result()
    return Sources(
        view,
        {each: task.result() for each, task in stores.items()},
        own,
        api_service,
        node.result(),
        {each: task.result() for each, task in tokens.items()},
    )


async def _pod_or_template(api: KubeApi, target: Target, namespace: str, workload: Object) -> tuple[Object, str | None]:
    meta = workload["metadata"]
    owner = Workload(namespace, target.kind, meta["name"], meta["uid"])
    template: Object = workload["spec"]["template"]
    try:
        pods, _ = await listed(api, pods_path(namespace), {"labelSelector": selector_of(workload)}, as_is)
    except ForbiddenError as error:
        return template, f"this is the template of {target}: {error.message}"
    best = best_pod([pod for pod in pods.values() if is_of(owner, pod) and stays(pod)])
    if best is None:
        return template, f"this is the template of {target}: no pod of it runs"
    return dict(best), None


async def _behind(api: KubeApi, target: Target, namespace: str) -> Object:
    """A pod that a Service selects. It is listed, so that no right to get one is needed."""
    by_name = {"fieldSelector": f"metadata.name={target.name}"}
    services, _ = await listed(api, services_path(namespace), by_name, as_is)
    if not services:
        raise missing_target(target, namespace)
    query = selector_of({**next(iter(services.values())), "kind": "Service"})
    if not query:
        raise InterceptError(f"{target} in namespace {namespace} selects no pods", hint="name the workload itself")
    pods, _ = await listed(api, pods_path(namespace), {"labelSelector": query}, as_is)
    best = best_pod([pod for pod in pods.values() if stays(pod)])
    if best is None:
        raise InterceptError(
            f"{target} in namespace {namespace} selects no pod that runs",
            hint=f"name the workload itself; kubectl -n {namespace} get pods -l {query}",
        )
    return dict(best)


async def _or_unreadable(reading: Awaitable[T], absent: str) -> T | Unreadable:
    try:
        return await reading
    except ForbiddenError as error:
        return Unreadable(error.message, forbidden=True)
    except NotFoundError:
        return Unreadable(absent, absent=True)


async def _entries(api: KubeApi, namespace: str, store: Store) -> Entries | Unreadable:
    read: Callable[[Object], Entries | Unreadable] = config_map_entries if store.kind == "ConfigMap" else secret_entries
    reading = api.get(entries_path(namespace, store.kind, store.name))
    found = await _or_unreadable(reading, f"there is none in namespace {namespace}")
    return found if isinstance(found, Unreadable) else read(found)


async def _services(
    api: KubeApi, view: ContainerView, *, wanted: bool
) -> tuple[list[Object] | Unreadable, Object | Unreadable | None]:
    """Those of its namespace, where it wants their variables, and the API server's."""
    if not wanted:
        return [], None
    own = await _listed_services(api, view.namespace, {}) if view.links else []
    in_own = not isinstance(own, Unreadable) and view.links and view.namespace == _API_NAMESPACE
    by_name = {"fieldSelector": f"metadata.name={API_SERVICE}"}
    found = own if in_own else await _listed_services(api, _API_NAMESPACE, by_name)
    if isinstance(found, Unreadable):
        return own, found
    return own, next((each for each in found if each["metadata"]["name"] == API_SERVICE), None)


async def _listed_services(api: KubeApi, namespace: str, query: dict[str, str]) -> list[Object] | Unreadable:
    found = await _or_unreadable(listed(api, services_path(namespace), query, as_is), "there are none")
    return found if isinstance(found, Unreadable) else list(found[0].values())


async def _allocatable(api: KubeApi, view: ContainerView, *, wanted: bool) -> dict[str, str] | Unreadable:
    name = view.spec.get("nodeName")
    if not wanted or not view.live:
        return {}
    if not name:
        return Unreadable("the pod has no node yet")
    node = await _or_unreadable(api.get(node_path(name)), f"there is no node {name}")
    return node if isinstance(node, Unreadable) else dict((node.get("status") or {}).get("allocatable") or {})


async def _token(api: KubeApi, view: ContainerView, request: TokenRequest) -> str | Unreadable:
    """As the kubelet asks for it: bound to the pod, so that it ends with it. One of a template is bound to nothing."""
    spec: Object = {"audiences": [request.audience] if request.audience else [], "expirationSeconds": request.seconds}
    if view.live:
        meta = view.object["metadata"]
        spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    path = token_path(view.namespace, view.service_account)
    answer = await _or_unreadable(api.create(path, body), f"there is no service account {view.service_account}")
    return answer if isinstance(answer, Unreadable) else str(answer["status"]["token"])
