"""From what the user typed to the workload that owns the pods; its pods, all of them, for as long as one watches."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
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
from meshdev.kube.watching import follow, listed

_BY_NAME: Final[Mapping[str, Kind]] = {kind: kind for kind in KINDS}
_OPERATORS: Final = {"In": "in", "NotIn": "notin"}


@dataclass(frozen=True)
class Resolved:
    """A target, resolved. *object* is the workload as it was read, *selector* the labels of its pods."""

    workload: Workload
    object: Object
    selector: str
    ports: Ports
    services: tuple[Object, ...] = ()
    """Those that select its pods; the one that was asked for comes first."""

    @property
    def template(self) -> Object:
        """``metadata`` and ``spec`` of its pods; of a bare pod its own."""
        return self.object if self.workload.kind == "pod" else cast("Object", self.object["spec"]["template"])


async def resolve(api: KubeApi, target: Target, namespace: str) -> Resolved:
    """The workload that owns what *target* names. Nothing is changed.

    Raises InterceptError for what is not there or cannot be intercepted, ForbiddenError.
    """
    services = await _services(api, target, namespace)
    if target.kind == "service":
        found = await _selected(api, target, namespace, services)
    else:
        found = await _owner(api, await _get(api, namespace, target.kind, target.name))
    workload = Workload(namespace, _kind(found), found["metadata"]["name"], found["metadata"]["uid"])
    template = found if workload.kind == "pod" else found["spec"]["template"]
    refuse_pods(str(target), [template])
    labels = template["metadata"].get("labels") or {}
    selecting = [each for each in services.values() if _selects(each["spec"].get("selector"), labels)]
    asked = target.name if target.kind == "service" else None
    selecting.sort(key=lambda each: (each["metadata"]["name"] != asked, each["metadata"]["name"]))
    ports = ports_of(template["spec"], selecting, asked)
    return Resolved(workload, found, selector_of(found), ports, tuple(selecting))


async def pods_of(api: KubeApi, resolved: Resolved) -> tuple[Object, ...]:
    """Its pods that stay. Raises InterceptError where one of them cannot be joined, and where there is none."""
    workload = resolved.workload
    pods, _ = await listed(api, pods_path(workload.namespace), pods_query(resolved), _as_is)
    found = tuple(pod for pod in pods.values() if is_of(workload, pod) and _stays(pod))
    refuse_pods(str(workload), found)
    if not found:
        scale = f"kubectl -n {workload.namespace} scale {workload} --replicas 1"
        raise InterceptError(
            f"{workload} in namespace {workload.namespace} has no pod that runs",
            hint=scale if workload.kind in {"deployment", "statefulset", "replicaset"} else None,
        )
    return found


async def watch_replicas(
    api: KubeApi, resolved: Resolved, trouble: Callable[[MeshdevError], None] = lambda _: None
) -> AsyncGenerator[Mapping[str, Replica]]:
    """Its pods by uid, at once and after each change, for ever; broken watches are told to *trouble* and renewed.

    Close it (``contextlib.aclosing``) to end it. Each mapping is the caller's own.
    """
    workload = resolved.workload

    def project(pod: Object) -> Replica | None:
        return replica(pod) if is_of(workload, pod) and not finished(pod) else None

    told: dict[str, Replica] | None = None
    states = follow(api, pods_path(workload.namespace), pods_query(resolved), project, trouble)
    async with aclosing(states):
        async for state in states:
            found = {uid: each for uid, each in state.items() if each is not None}
            if found != told:
                told = found
                yield dict(found)


def selector_of(workload: Mapping[str, Any]) -> str:
    """The label selector of a workload's pods, as a query takes it; empty for a bare pod."""
    if workload["kind"] == "Pod":
        return ""
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
    controller = _controller(metadata)
    if controller is None:
        return False
    if workload.kind != "deployment":
        return bool(controller["uid"] == workload.uid)
    suffix = (metadata.get("labels") or {}).get("pod-template-hash", "")
    return bool(controller["kind"] == "ReplicaSet" and controller["name"] == f"{workload.name}-{suffix}")


async def _services(api: KubeApi, target: Target, namespace: str) -> Mapping[str, Object]:
    """All of the namespace; none where they may not be seen and only tell more about ports."""
    try:
        services, _ = await listed(api, services_path(namespace), {}, _as_is)
    except ForbiddenError:
        if target.kind == "service":
            raise
        return {}
    return services


async def _selected(api: KubeApi, target: Target, namespace: str, services: Mapping[str, Object]) -> Object:
    """The one workload whose pods a Service selects."""
    service = next((each for each in services.values() if each["metadata"]["name"] == target.name), None)
    if service is None:
        raise _missing(target, namespace)
    selector = service["spec"].get("selector")
    if not selector:
        raise InterceptError(f"{target} in namespace {namespace} selects no pods", hint="name the workload itself")
    query = {"labelSelector": ",".join(f"{name}={value}" for name, value in sorted(selector.items()))}
    pods, _ = await listed(api, pods_path(namespace), query, _as_is)
    serving = [{"kind": "Pod", **pod} for pod in pods.values() if _stays(pod)]  # items of a list do not say their kind
    # One pod of each controller is enough to find its workload.
    controllers = {(_controller(pod["metadata"]) or pod["metadata"])["uid"]: pod for pod in serving}
    owners = [await _owner(api, pod) for pod in controllers.values()]
    found = {owner["metadata"]["uid"]: owner for owner in owners}
    if not found:
        raise InterceptError(
            f"{target} in namespace {namespace} selects no pod that runs",
            hint=f"kubectl -n {namespace} get pods -l {query['labelSelector']}",
        )
    if len(found) > 1:
        names = ", ".join(sorted(f"{_kind(each)}/{each['metadata']['name']}" for each in found.values()))
        raise InterceptError(
            f"{target} in namespace {namespace} leads to more than one workload: {names}", hint="name one of them"
        )
    return next(iter(found.values()))


async def _owner(api: KubeApi, item: Object) -> Object:
    """The outermost controller of a kind that we know; the object itself where there is none."""
    controller = _controller(item["metadata"])
    kind = _BY_NAME.get(str(controller["kind"]).lower()) if controller else None
    if controller is None or kind is None or kind == "pod":
        return item
    try:
        owner = await _get(api, item["metadata"]["namespace"], kind, controller["name"])
    except InterceptError:
        return item  # an orphan, about to be deleted
    return await _owner(api, owner) if owner["metadata"]["uid"] == controller["uid"] else item


async def _get(api: KubeApi, namespace: str, kind: Kind, name: str) -> Object:
    try:
        found = await api.get(workloads_path(namespace, kind, name))
    except NotFoundError as error:
        raise _missing(Target(kind, name), namespace) from error
    return found


def _missing(target: Target, namespace: str) -> InterceptError:
    return InterceptError(
        f"there is no {target} in namespace {namespace}", hint=f"kubectl -n {namespace} get {target.kind}s"
    )


def _kind(item: Object) -> Kind:
    return _BY_NAME[item["kind"].lower()]


def _controller(metadata: Object) -> Object | None:
    return next((each for each in metadata.get("ownerReferences") or [] if each.get("controller")), None)


def _stays(pod: Object) -> bool:
    return not finished(pod) and not pod["metadata"].get("deletionTimestamp")


def _selects(selector: Mapping[str, str] | None, labels: Mapping[str, str]) -> bool:
    return bool(selector) and all(labels.get(name) == value for name, value in (selector or {}).items())


def _as_is(item: Object) -> Object:
    return item
