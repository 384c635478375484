"""From what the user typed to the workload that owns the pods; its pods, all of them, for as long as one watches."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import Any, Final, cast

from meshdev.errors import ForbiddenError, InterceptError, MeshdevError
from meshdev.intercept.spec import KINDS, Kind, Workload
from meshdev.intercept.target import Target
from meshdev.kube.client import KubeApi, Object, pods_path, services_path, workloads_path
from meshdev.kube.errors import NotFoundError
from meshdev.kube.ports import Ports, ports_of
from meshdev.kube.refusals import refuse_pods
from meshdev.kube.replicas import Replica, finished, replica
from meshdev.kube.watching import State, as_is, follow, listed, switched

_BY_NAME: Final[Mapping[str, Kind]] = {kind: kind for kind in KINDS}
#: Kinds of apps/v1 that own pods, by the name in an ownerReference. Others have kinds of the same names: OpenKruise's
#: StatefulSet and DaemonSet are apps.kruise.io's.
_OWNERS: Final[Mapping[str, Kind]] = {
    "Deployment": "deployment",
    "StatefulSet": "statefulset",
    "DaemonSet": "daemonset",
    "ReplicaSet": "replicaset",
}
_OPERATORS: Final = {"In": "in", "NotIn": "notin"}


@dataclass(frozen=True)
class Resolved:
    """A target, resolved. *object* is the workload as it was read, *selector* the labels of its pods.

    *pods* are there for a Service that is the workload itself: those that it selects now.
    """

    workload: Workload
    object: Object
    selector: str
    ports: Ports
    services: tuple[Object, ...] = ()
    """Those that select its pods; the one that was asked for comes first."""
    pods: tuple[Object, ...] = ()

    @property
    def template(self) -> Object:
        """``metadata`` and ``spec`` of its pods; of a bare pod its own, of a Service with the containers of all."""
        return _template(self.object, self.pods)


async def resolve(api: KubeApi, target: Target, namespace: str) -> Resolved:
    """The workload that owns what *target* names. Nothing is changed.

    Raises InterceptError for what is not there or cannot be intercepted, ForbiddenError.
    """
    services = await _services(api, target, namespace)
    pods: tuple[Object, ...] = ()
    if target.kind == "service":
        found, pods = await _selected(api, target, namespace, services)
    else:
        found = await _owner(api, await read_workload(api, namespace, target.kind, target.name))
    workload = Workload(namespace, _kind(found), found["metadata"]["name"], found["metadata"]["uid"])
    template = _template(found, pods)
    refuse_pods(str(target), pods or [template])
    labels = template["metadata"].get("labels") or {}
    selecting = [each for each in services.values() if _selects(each["spec"].get("selector"), labels)]
    asked = target.name if target.kind == "service" else None
    selecting.sort(key=lambda each: (each["metadata"]["name"] != asked, each["metadata"]["name"]))
    ports = ports_of(template["spec"], selecting, asked)
    return Resolved(workload, found, selector_of(found), ports, tuple(selecting), pods)


async def pods_of(api: KubeApi, resolved: Resolved) -> tuple[Object, ...]:
    """Its pods that stay. Raises InterceptError where one of them cannot be joined, and where there is none."""
    workload = resolved.workload
    pods, _ = await listed(api, pods_path(workload.namespace), pods_query(resolved), as_is)
    found = tuple(pod for pod in pods.values() if is_of(workload, pod) and stays(pod))
    refuse_pods(str(workload), found)
    if not found:
        kubectl = f"kubectl -n {workload.namespace}"
        # Where there should be some, the workload's events have the reason.
        scaled_down = workload.has_template and resolved.object["spec"].get("replicas") == 0
        raise InterceptError(
            f"{workload} in namespace {workload.namespace} has no pod that runs",
            hint=f"{kubectl} scale {workload} --replicas 1" if scaled_down else f"{kubectl} describe {workload}",
        )
    return found


async def is_there(api: KubeApi, workload: Workload) -> bool:
    """Whether that very object still is. A Service is listed, so that no right to get one is needed."""
    path = workloads_path(workload.namespace, workload.kind)
    if workload.kind == "service":
        found, _ = await listed(api, path, {"fieldSelector": f"metadata.name={workload.name}"}, as_is)
        return workload.uid in found
    try:
        there = await api.get(workloads_path(workload.namespace, workload.kind, workload.name))
    except NotFoundError:
        return False
    return bool(there["metadata"]["uid"] == workload.uid)


async def watch_replicas(
    api: KubeApi, resolved: Resolved, trouble: Callable[[MeshdevError], None] = lambda _: None
) -> AsyncGenerator[Mapping[str, Replica]]:
    """Its pods by uid, at once and after each change, for ever; broken watches are reported to *trouble* and renewed.

    After an interruption they are yielded again, changed or not. Close it (``contextlib.aclosing``) to end it. Each
    mapping is the caller's own.
    """
    workload = resolved.workload
    last: dict[str, Replica] | None = None

    def interrupted(error: MeshdevError) -> None:
        nonlocal last
        last = None
        trouble(error)

    def project(pod: Object) -> Replica | None:
        return replica(pod) if is_of(workload, pod) and not finished(pod) else None

    states = (
        _follow_service(api, workload, project, interrupted)
        if workload.kind == "service"
        else follow(api, pods_path(workload.namespace), pods_query(resolved), project, interrupted)
    )
    async with aclosing(states):
        async for state in states:
            found = {uid: each for uid, each in state.items() if each is not None}
            if found != last:
                last = found
                yield dict(found)


async def replicas_now(api: KubeApi, resolved: Resolved) -> Mapping[str, Replica]:
    """Its pods by uid, from a list that begins now. Raises what keeps it from being read."""

    def failed(error: MeshdevError) -> None:
        raise error

    async with aclosing(watch_replicas(api, resolved, failed)) as states:
        return await anext(states)


def selector_of(workload: Mapping[str, Any]) -> str:
    """The label selector of a workload's pods, as a query takes it; empty for a bare pod."""
    if workload["kind"] == "Pod":
        return ""
    if workload["kind"] == "Service":
        return ",".join(f"{key}={value}" for key, value in sorted((workload["spec"].get("selector") or {}).items()))
    selector = workload["spec"]["selector"]
    parts = [f"{key}={value}" for key, value in sorted((selector.get("matchLabels") or {}).items())]
    for each in selector.get("matchExpressions") or []:
        key, operator, values = each["key"], each["operator"], ",".join(each.get("values") or [])
        simple = {"Exists": key, "DoesNotExist": f"!{key}"}
        parts.append(simple.get(operator) or f"{key} {_OPERATORS[operator]} ({values})")
    return ",".join(parts)


def pods_query(resolved: Resolved) -> dict[str, str]:
    """What selects its pods, and maybe others: ask :func:`is_of`."""
    if resolved.workload.kind == "pod":
        return {"fieldSelector": f"metadata.name={resolved.workload.name}"}
    return {"labelSelector": resolved.selector}


def is_of(workload: Workload, pod: Object) -> bool:
    """Whether the workload controls the pod; its labels alone may fit another workload's selector, too.

    The ReplicaSet of a Deployment is named after it and the label that the Deployment's controller sets
    (k8s.io/kubernetes/pkg/controller/deployment/sync.go: getNewReplicaSet), so nothing more needs to be read.
    """
    metadata = pod["metadata"]
    if workload.kind == "pod":
        return bool(metadata["uid"] == workload.uid)
    if workload.kind == "service":
        return True  # whatever made it: a Service stands for the pods that it selects
    controller = _controller(metadata)
    if controller is None:
        return False
    if workload.kind != "deployment":
        return bool(controller["uid"] == workload.uid)
    suffix = (metadata.get("labels") or {}).get("pod-template-hash", "")
    return bool(controller["kind"] == "ReplicaSet" and controller["name"] == f"{workload.name}-{suffix}")


async def _services(api: KubeApi, target: Target, namespace: str) -> Mapping[str, Object]:
    """All of the namespace; none where they may not be listed and are only needed for names of ports."""
    try:
        services, _ = await listed(api, services_path(namespace), {}, as_is)
    except ForbiddenError:
        if target.kind == "service":
            raise
        return {}
    return services


async def _selected(
    api: KubeApi, target: Target, namespace: str, services: Mapping[str, Object]
) -> tuple[Object, tuple[Object, ...]]:
    """The one workload whose pods a Service selects, or the Service itself and its pods.

    It is the Service itself as soon as one of its pods has no owner that keeps its pods: a bare one, one
    of another kind, one of a ReplicaSet that another kind replaces by the next (Argo's Rollout).
    """
    service = next((each for each in services.values() if each["metadata"]["name"] == target.name), None)
    if service is None:
        raise missing_target(target, namespace)
    service = {"kind": "Service", **service}  # items of a list do not say their kind
    if service["spec"].get("type") == "ExternalName":
        raise InterceptError(
            f"{target} in namespace {namespace} is another name of {service['spec'].get('externalName')}: "
            "it selects no pods",
            hint="name what serves that name, where it is in this cluster",
        )
    if not (query := selector_of(service)):
        raise InterceptError(f"{target} in namespace {namespace} selects no pods", hint="name the workload itself")
    pods, _ = await listed(api, pods_path(namespace), {"labelSelector": query}, as_is)
    serving = tuple({"kind": "Pod", **pod} for pod in pods.values() if stays(pod))
    # One pod of each controller is enough to find its workload.
    controllers = {(_controller(pod["metadata"]) or pod["metadata"])["uid"]: pod for pod in serving}
    owners = [await _owner(api, pod) for pod in controllers.values()]
    if not owners:
        raise InterceptError(
            f"{target} in namespace {namespace} selects no pod that runs",
            hint=await _scaled_down(api, service) or f"kubectl -n {namespace} get pods -l {query}",
        )
    if not all(map(_lasts, owners)):
        return service, serving
    found = {owner["metadata"]["uid"]: owner for owner in owners}
    if len(found) > 1:
        names = ", ".join(sorted(f"{_kind(each)}/{each['metadata']['name']}" for each in found.values()))
        raise InterceptError(
            f"{target} in namespace {namespace} selects pods of several workloads: {names}",
            hint="name one of them",
        )
    return next(iter(found.values())), ()


async def _scaled_down(api: KubeApi, service: Object) -> str | None:
    """How to get a pod for the Service, where a workload of its name has none: no right to list workloads is needed."""
    namespace, name = service["metadata"]["namespace"], service["metadata"]["name"]
    for kind in ("deployment", "statefulset"):
        with suppress(MeshdevError):
            found = await api.get(workloads_path(namespace, kind, name))
            labels = found["spec"]["template"]["metadata"].get("labels") or {}
            if found["spec"].get("replicas") == 0 and _selects(service["spec"].get("selector"), labels):
                return f"kubectl -n {namespace} scale {kind}/{name} --replicas 1"
    return None


def _lasts(owner: Object) -> bool:
    """Whether its pods are its own for as long as it is there, also when they are replaced."""
    return owner["kind"] != "Pod" and not (owner["kind"] == "ReplicaSet" and _controller(owner["metadata"]))


def _template(found: Object, pods: Sequence[Object]) -> Object:
    if not pods:
        return found if found["kind"] == "Pod" else cast("Object", found["spec"]["template"])
    spec = {
        **pods[0]["spec"],
        **{
            key: [container for pod in pods for container in pod["spec"].get(key) or []]
            for key in ("containers", "initContainers")
        },
    }
    return {"metadata": pods[0]["metadata"], "spec": spec}


async def _follow_service(
    api: KubeApi,
    workload: Workload,
    project: Callable[[Object], Replica | None],
    trouble: Callable[[MeshdevError], None],
) -> AsyncGenerator[State[Replica | None]]:
    """The pods that a Service selects; another selector selects others."""
    by_name = {"fieldSelector": f"metadata.name={workload.name}"}

    def selector(service: Object) -> str:
        mine = service["metadata"]["uid"] == workload.uid
        return selector_of({"kind": "Service", **service}) if mine else ""

    def selected(state: State[str]) -> AsyncGenerator[State[Replica | None]]:
        query = next(iter(state.values()), "")
        path = pods_path(workload.namespace)
        return follow(api, path, {"labelSelector": query}, project, trouble) if query else _no_pods()

    services = follow(api, services_path(workload.namespace), by_name, selector, trouble)
    async with aclosing(switched(services, selected)) as states:
        async for state in states:
            yield state


async def _no_pods() -> AsyncGenerator[State[Replica | None]]:
    yield {}


async def _owner(api: KubeApi, item: Object) -> Object:
    """The outermost controller of a kind that we know; the object itself where there is none."""
    controller = _controller(item["metadata"])
    known = controller is not None and str(controller.get("apiVersion")).startswith("apps/")
    kind = _OWNERS.get(str(controller["kind"])) if controller is not None and known else None
    if controller is None or kind is None:
        return item
    try:
        owner = await read_workload(api, item["metadata"]["namespace"], kind, controller["name"])
    except InterceptError:
        return item  # an orphan, about to be deleted
    return await _owner(api, owner) if owner["metadata"]["uid"] == controller["uid"] else item


async def read_workload(api: KubeApi, namespace: str, kind: Kind, name: str) -> Object:
    """That object as it is, whatever owns it. Raises InterceptError where there is none."""
    try:
        found = await api.get(workloads_path(namespace, kind, name))
    except NotFoundError as error:
        raise missing_target(Target(kind, name), namespace) from error
    return found


def missing_target(target: Target, namespace: str) -> InterceptError:
    """The error for a target that is not there."""
    return InterceptError(
        f"there is no {target} in namespace {namespace}", hint=f"kubectl -n {namespace} get {target.kind}s"
    )


def _kind(item: Object) -> Kind:
    return _BY_NAME[item["kind"].lower()]


def _controller(metadata: Object) -> Object | None:
    return next((each for each in metadata.get("ownerReferences") or [] if each.get("controller")), None)


def stays(pod: Object) -> bool:
    """Whether it has not ended, and is not about to."""
    return not finished(pod) and not pod["metadata"].get("deletionTimestamp")


def _selects(selector: Mapping[str, str] | None, labels: Mapping[str, str]) -> bool:
    return bool(selector) and all(labels.get(name) == value for name, value in (selector or {}).items())
