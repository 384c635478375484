"""Permissions, the traffic-manager, and the carriers to it."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Final

from meshdev.config import TUNNEL_PORT
from meshdev.doctor.checks.facts import DoctorFacts
from meshdev.doctor.measure import measure
from meshdev.doctor.runner import DoctorCheck, Fact, NotExaminedError
from meshdev.doctor.verdicts import manager, rights
from meshdev.doctor.verdicts.finding import Finding, ok
from meshdev.doctor.verdicts.manager import ManagerAdmission, Measured
from meshdev.doctor.verdicts.rights import RightsFacts
from meshdev.errors import MeshdevError
from meshdev.kube import rbac
from meshdev.kube.access import Access
from meshdev.kube.client import deployments_path, pods_path
from meshdev.kube.manifest import ManagerSpec, deployment
from meshdev.kube.portforward import dial
from meshdev.kube.rbac import Rule
from meshdev.kube.rights import missing
from meshdev.wire.framing import CARRIER_KINDS, CarrierKind

RIGHTS: Final = "Permissions"
GROUP: Final = "Traffic-manager"
#: Of each kind of carrier, in seconds: to dial it, and to measure what it carries.
_DIAL_SECONDS: Final = 3.0
_MEASURE_SECONDS: Final = 1.0
_CARRIERS_SECONDS: Final = len(CARRIER_KINDS) * (_DIAL_SECONDS + _MEASURE_SECONDS)
_WHO_AM_I: Final = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
_ENFORCED: Final = "pod-security.kubernetes.io/enforce"

Outcomes = dict[CarrierKind, Measured | MeshdevError]


def checks(facts: DoctorFacts) -> tuple[DoctorCheck, ...]:
    """What has to be allowed, and what runs."""
    server, there = [facts.server], [facts.manager]
    allowed = Fact("what you may do is not known", lambda: _rights(facts), needs=server)
    carried = Fact("the traffic-manager was not reached", lambda: _carried(facts), _CARRIERS_SECONDS, needs=there)

    async def connecting() -> Finding:
        return rights.connecting(await allowed.get())

    async def intercepting() -> Finding:
        return rights.intercepting(await allowed.get())

    async def running() -> Finding:
        return manager.running(await facts.manager.get(), facts.manager_namespace)

    async def admitted() -> Finding:
        if await facts.running_manager() is not None:
            return ok("it runs already")
        return manager.admitted(await _admission(facts))

    def carrier(kind: CarrierKind) -> DoctorCheck:
        async def look() -> Finding:
            return manager.carrier(kind, await carried.get())

        return DoctorCheck(f"carrier-{kind}", GROUP, look, needs=there, uses=[carried])

    return (
        DoctorCheck("rbac-connect", RIGHTS, connecting, needs=server, uses=[facts.manager, allowed]),
        DoctorCheck("rbac-intercept", RIGHTS, intercepting, needs=server, uses=[facts.manager, allowed]),
        DoctorCheck("manager", GROUP, running, needs=server, uses=there),
        DoctorCheck("manager-admission", GROUP, admitted, needs=server, uses=there),
        *map(carrier, CARRIER_KINDS),
    )


async def _rights(facts: DoctorFacts) -> RightsFacts:
    installed = await facts.running_manager() is not None
    namespace, there = facts.namespace, facts.manager_namespace
    manager_rules = rbac.USE_MANAGER + (() if installed else rbac.INSTALL_MANAGER)
    user, *lacking = await asyncio.gather(
        _who_am_i(facts),
        missing(facts.api, *_questions(manager_rules, there)),
        missing(facts.api, *_questions(rbac.SEE_SERVICES, namespace)),
        missing(facts.api, *_questions(rbac.INTERCEPT, namespace), *_questions(rbac.ADDRESS_OF_MANAGER, there)),
        missing(facts.api, *_questions(rbac.INTERCEPT_EPHEMERAL, namespace)),
        missing(facts.api, *_questions(rbac.INTERCEPT_PATCH, namespace)),
    )
    return RightsFacts(namespace, there, installed, user, *lacking)


def _questions(rules: Iterable[Rule], namespace: str) -> list[Access]:
    """What a Role with these rules would allow, each once."""
    asked = [
        Access(verb, rule.group, rule.resource, namespace, name)
        for rule in rules
        for verb in rule.verbs
        for name in rule.names or ("",)
    ]
    return list(dict.fromkeys(asked))


async def _who_am_i(facts: DoctorFacts) -> str:
    """The name by which the API server knows the user; empty before Kubernetes 1.28."""
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    with suppress(MeshdevError):
        answer = await facts.api.create(_WHO_AM_I, review)
        return str(answer["status"]["userInfo"].get("username") or "")
    return ""


async def _admission(facts: DoctorFacts) -> ManagerAdmission:
    """Dry runs: a Deployment is admitted in any case, it is its pods that Pod Security refuses."""
    namespace = facts.manager_namespace
    made = deployment(ManagerSpec(namespace, facts.question.image))
    pod = {"apiVersion": "v1", "kind": "Pod", **made["spec"]["template"]}
    pod["metadata"] = {**pod["metadata"], "generateName": f"{made['metadata']['name']}-"}
    return ManagerAdmission(
        namespace,
        await _refusal(facts, deployments_path(namespace), made),
        await _refusal(facts, pods_path(namespace), pod),
        await _pod_security(facts, namespace),
    )


async def _refusal(facts: DoctorFacts, path: str, body: dict[str, object]) -> MeshdevError | None:
    try:
        await facts.api.create(path, body, dry_run=True)
    except MeshdevError as error:
        return error
    return None


async def _pod_security(facts: DoctorFacts, namespace: str) -> str | None:
    with suppress(MeshdevError):
        there = await facts.api.get(f"/api/v1/namespaces/{namespace}")
        return (there["metadata"].get("labels") or {}).get(_ENFORCED)
    return None


async def _carried(facts: DoctorFacts) -> Outcomes:
    """One kind after the other: they would share what the path carries."""
    pod = await facts.manager.needed()
    if pod is None:
        raise NotExaminedError(f"no traffic-manager runs in namespace {facts.manager_namespace} to carry to")
    found: Outcomes = {}
    for kind in CARRIER_KINDS:
        try:
            dialled = await dial(facts.api, pod.namespace, pod.name, TUNNEL_PORT, kind, _DIAL_SECONDS)
            found[kind] = await asyncio.to_thread(measure, dialled, _MEASURE_SECONDS)
        except MeshdevError as error:
            found[kind] = error
    return found
