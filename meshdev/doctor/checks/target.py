"""Whether workloads could be intercepted: the sidecar's admission, service meshes, NetworkPolicies."""

from contextlib import suppress
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from typing import Final
from urllib.parse import quote

from meshdev.config import CONTROL_PORT, MANAGER_LABELS, MANAGER_NAME
from meshdev.doctor.checks.facts import DoctorFacts
from meshdev.doctor.runner import DoctorCheck, Fact, NotExaminedError
from meshdev.doctor.verdicts import manager, policies
from meshdev.doctor.verdicts.finding import Finding, skipped
from meshdev.doctor.verdicts.policies import PolicyFacts, PolicyPod
from meshdev.errors import ForbiddenError, MeshdevError
from meshdev.intercept.target import Target, parse_target
from meshdev.kube.client import Object, pods_path, services_path
from meshdev.kube.clients import workload_of
from meshdev.kube.refusals import mesh_of, refuse_pods
from meshdev.kube.replicas import finished, replica
from meshdev.kube.watching import as_is, listed
from meshdev.kube.workloads import Resolved, pods_of, resolve
from meshdev.sidecar.join import ephemeral, patch
from meshdev.sidecar.join.choice import way_out
from meshdev.sidecar.join.container import SidecarSpec
from meshdev.wire.session_intercepts import STRATEGIES, Strategy

GROUP: Final = "Intercepts"
#: In dry runs, where there is no manager yet: the cluster does not look there.
_SOMEWHERE: Final = f"192.0.2.1:{CONTROL_PORT}"
#: Kinds of workloads that are tried where nobody named one.
_USUAL: Final = ("deployment/", "statefulset/", "daemonset/")


@dataclass(frozen=True)
class Example:
    """The workload that is tried, with its pods."""

    resolved: Resolved
    pods: tuple[Object, ...]

    @property
    def name(self) -> str:
        """As people name it."""
        return str(self.resolved.workload)


def checks(facts: DoctorFacts) -> tuple[DoctorCheck, ...]:
    """For the target that was named; without one, for the first workload of the namespace that will do."""
    server, there = [facts.server], [facts.manager]
    example = Fact("the workload could not be read", lambda: _example(facts), needs=server)
    tried = Fact("no sidecar could be tried", lambda: _tried(facts, example), needs=[example])

    def sidecar(strategy: Strategy) -> DoctorCheck:
        async def look() -> Finding:
            try:
                found = await example.get()
            except ForbiddenError as error:
                return skipped(f"{error.message}: see rbac-intercept")
            return manager.sidecar(strategy, found.name, await tried.get())

        return DoctorCheck(f"sidecar-{strategy}", GROUP, look, needs=server, uses=[*there, tried])

    async def meshes() -> Finding:
        target = facts.question.target
        try:
            found = await _meshes(facts)
            name = (await example.get()).name if target is not None and not found else str(target)
        except ForbiddenError as error:
            return skipped(f"{error.message}: see rbac-intercept")
        return policies.meshes(found, name if target is not None else None)

    async def network() -> Finding:
        return policies.network_policies(await _policies(facts, await example.needed()))

    return (
        *map(sidecar, STRATEGIES),
        DoctorCheck("service-mesh", GROUP, meshes, needs=server),
        DoctorCheck("network-policy", GROUP, network, needs=[example], uses=there),
    )


async def _pods(facts: DoctorFacts) -> list[Object]:
    found, _ = await listed(facts.api, pods_path(facts.namespace), {}, as_is)
    return [pod for pod in found.values() if not finished(pod)]


async def _example(facts: DoctorFacts) -> Example:
    target = facts.question.target or await _usual(facts)
    resolved = await resolve(facts.api, target, facts.namespace)
    return Example(resolved, await pods_of(facts.api, resolved))


async def _usual(facts: DoctorFacts) -> Target:
    for pod in sorted(await _pods(facts), key=lambda pod: not replica(pod).ready):
        name = workload_of(pod)
        with suppress(MeshdevError):
            refuse_pods(name, [pod])
            if name.startswith(_USUAL):
                return parse_target(name)
    raise NotExaminedError(
        f"no workload in namespace {facts.namespace} to try it with; name one: meshdev doctor deployment/NAME -n …"
    )


async def _tried(facts: DoctorFacts, example: Fact[Example]) -> dict[Strategy, MeshdevError | None]:
    """What the API server says of each strategy, by the dry runs that ``mesh`` and ``proxy`` begin with."""
    found = await example.needed()
    spec = await _sidecar(facts, found)
    outcomes: dict[Strategy, MeshdevError | None] = {}
    for strategy in STRATEGIES:
        outcomes[strategy] = None
        try:
            if strategy == "ephemeral":
                await ephemeral.dry_run(facts.api, found.pods[0], spec)
            else:
                await patch.dry_run(facts.api, found.resolved, spec)
        except MeshdevError as error:
            error.hint = way_out(facts.namespace, error)
            outcomes[strategy] = error
    return outcomes


async def _sidecar(facts: DoctorFacts, example: Example) -> SidecarSpec:
    pod = await facts.running_manager()
    address = _SOMEWHERE
    with suppress(MeshdevError):
        there = await facts.api.get(services_path(facts.manager_namespace, MANAGER_NAME))
        address = f"{there['spec']['clusterIP']}:{CONTROL_PORT}"
    image = pod.image if pod is not None else facts.question.image
    return SidecarSpec(image, address, facts.manager_namespace, example.resolved.workload.uid)


async def _meshes(facts: DoctorFacts) -> dict[str, str]:
    """Meshes by workload, of all pods in the namespace."""
    found = {workload_of(pod): mesh_of(pod["metadata"], pod["spec"]) for pod in await _pods(facts)}
    return {name: mesh for name, mesh in found.items() if mesh is not None}


async def _policies(facts: DoctorFacts, example: Example) -> PolicyFacts:
    running = await facts.running_manager()
    unread: list[str] = []
    found: list[Object] = []
    for namespace in dict.fromkeys((facts.namespace, facts.manager_namespace)):
        try:
            there, _ = await listed(facts.api, _policies_path(namespace), {}, as_is)
            found += there.values()
        except ForbiddenError as error:
            unread.append(namespace)
            if namespace == facts.namespace == facts.manager_namespace:
                raise NotExaminedError(error.message) from None
    return PolicyFacts(
        example.name,
        PolicyPod(
            facts.namespace,
            example.pods[0]["metadata"].get("labels") or {},
            _address(replica(example.pods[0]).address),
        ),
        PolicyPod(facts.manager_namespace, MANAGER_LABELS, _address(running.address if running is not None else "")),
        found,
        unread,
    )


def _address(text: str) -> IPv4Address | None:
    """None for a pod that has none yet, and for one of the other family."""
    try:
        return IPv4Address(text)
    except AddressValueError:
        return None


def _policies_path(namespace: str) -> str:
    return f"/apis/networking.k8s.io/v1/namespaces/{quote(namespace)}/networkpolicies"
