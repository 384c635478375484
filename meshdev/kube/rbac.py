"""The rules that meshdev's requests need, as data, and the YAML that ``meshdev rbac`` prints. Pure.

tests/kube/test_rbac.py runs every flow against a fake API server and compares what was asked with what stands here.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final, Literal

from meshdev.config import MANAGER_NAME
from meshdev.kube.access import Access
from meshdev.wire.session_intercepts import Strategy

Persona = Literal["developer", "installer"]
#: How sidecars shall enter pods: two ways that need different rights, or not at all.
AskedRights = Literal[Strategy, "none"]


@dataclass(frozen=True)
class Rule:
    """One rule of a Role, and what it is for. *names* restrict it to these objects."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    why: str
    names: tuple[str, ...] = ()

    def allows(self, asked: Access) -> bool:
        """Whether this rule allows it."""
        return (
            (asked.group, asked.resource) == (self.group, self.resource)
            and asked.verb in self.verbs
            and (not self.names or asked.name in self.names)
        )

    def covers(self, other: "Rule", *, earlier: bool) -> bool:
        """Whether what *other* allows of this rule's verbs is allowed here; of equal ones by the *earlier*."""
        same = (self.group, self.resource) == (other.group, other.resource)
        return same and (earlier if self.names == other.names else not self.names)

    def lines(self) -> list[str]:
        """As an item of a Role's ``rules``."""
        names = [f"    resourceNames: {_flow(self.names)}"] if self.names else []
        return [
            f"  # {self.why}",
            f'  - apiGroups: ["{self.group}"]',
            f'    resources: ["{self.resource}"]',
            *names,
            f"    verbs: {_flow(self.verbs)}",
        ]


@dataclass(frozen=True)
class Subject:
    """Who gets a Role. *namespace* for a ServiceAccount only."""

    kind: Literal["User", "Group", "ServiceAccount"]
    name: str
    namespace: str = ""

    def lines(self) -> list[str]:
        """As an item of a RoleBinding's ``subjects``."""
        group = "" if self.kind == "ServiceAccount" else "rbac.authorization.k8s.io"
        lines = [f"  - kind: {self.kind}", f"    name: {_quoted(self.name)}"]
        return [*lines, f"    apiGroup: {group}" if group else f"    namespace: {_quoted(self.namespace)}"]


#: In the manager's namespace: to use a manager that runs. The names of its pod and ReplicaSet change with each start
#: and each version, so a Role cannot restrict these rules to them.
USE_MANAGER: Final = (
    Rule("", "pods", ("list", "watch"), "find the manager's pod and wait until it runs"),
    Rule("", "pods/portforward", ("create", "get"), "the tunnel; get is for the websocket carrier"),
    Rule("apps", "deployments", ("get",), "tell the manager's pod from one that has its labels only", (MANAGER_NAME,)),
    Rule("apps", "replicasets", ("get",), "the same: the pod's ReplicaSet, which shows no more than its pods do"),
)
#: In the manager's namespace: to create it where there is none, replace one that cannot be used, remove it.
INSTALL_MANAGER: Final = (
    Rule("", "pods", ("list", "watch"), "wait until the manager's pod runs, or is gone"),
    Rule("apps", "replicasets", ("get",), "tell it from pods that have its labels only"),
    Rule("apps", "deployments", ("create",), "create the manager (a create cannot be restricted to a name)"),
    Rule(
        "apps",
        "deployments",
        ("get", "list", "watch", "update", "delete"),
        "see why it does not start, replace it, and undo what was created",
        (MANAGER_NAME,),
    ),
    Rule("", "services", ("create",), "give it the address by which sidecars find it"),
    Rule("", "services", ("get", "delete"), "see whether it has one, and undo it", (MANAGER_NAME,)),
)
#: In the manager's namespace: to intercept with a manager that is installed already.
ADDRESS_OF_MANAGER: Final = (Rule("", "services", ("get",), "give sidecars the manager's address", (MANAGER_NAME,)),)
#: In the namespace that is connected to.
SEE_SERVICES: Final = (
    Rule("", "services", ("list", "watch"), "route the addresses of Services"),
    Rule("discovery.k8s.io", "endpointslices", ("list", "watch"), "route the addresses of pods behind them"),
)
#: In the namespace of the workloads that are intercepted, whichever way. No rule has resourceNames: which workloads
#: will be intercepted is unknown when the Role is applied, pods and EndpointSlices have generated names, and a Lease is
#: named after a hash of the workload's uid, the ports and the match (meshdev.intercept.lease.name_of), so that creating
#: it is the lock; resourceNames know no prefixes, and do not apply to create. So the Role covers every Lease there,
#: leader elections of other programs included (docs/security.md).
INTERCEPT: Final = (
    Rule("", "pods", ("get", "list", "watch"), "find all pods of a workload, and those that come"),
    Rule("apps", "deployments", ("get",), "find the workload of a pod or Service"),
    Rule("apps", "statefulsets", ("get",), "the same"),
    Rule("apps", "daemonsets", ("get",), "the same"),
    Rule("apps", "replicasets", ("get",), "the same"),
    Rule(
        "coordination.k8s.io",
        "leases",
        ("get", "list", "watch", "create", "update", "delete"),
        "record intercepts, and list them",
    ),
    Rule("", "pods/log", ("get",), "find port and certificate of a sidecar's agent in its log"),
    Rule("", "pods/portforward", ("create", "get"), "attest the agent there (this opens every port of every pod here)"),
)
INTERCEPT_EPHEMERAL: Final = (
    Rule("", "pods/ephemeralcontainers", ("patch",), "put the sidecar into running pods, without a restart"),
)
INTERCEPT_PATCH: Final = (
    Rule("apps", "deployments", ("list", "watch", "patch"), "put the sidecar into a template, watch the rollout"),
    Rule("apps", "statefulsets", ("list", "watch", "patch"), "the same"),
    Rule("apps", "daemonsets", ("list", "watch", "patch"), "the same"),
    Rule("", "pods", ("create",), "ask (by dry run only) whether pods with the sidecar would be admitted"),
)
_INTERCEPTING: Final[dict[AskedRights, tuple[Rule, ...]]] = {
    "none": (),
    "ephemeral": INTERCEPT + INTERCEPT_EPHEMERAL,
    "patch": INTERCEPT + INTERCEPT_PATCH,
}


def rules(
    persona: Persona,
    namespace: str,
    manager_namespace: str | None = None,
    *,
    preinstalled: bool = False,
    intercepting: AskedRights = "ephemeral",
) -> dict[str, tuple[Rule, ...]]:
    """Rules by namespace. *preinstalled*: the manager is installed already, the developer only uses it."""
    manager = manager_namespace or namespace
    if persona == "installer":
        return {manager: INSTALL_MANAGER}
    install = () if preinstalled else INSTALL_MANAGER
    address = ADDRESS_OF_MANAGER if preinstalled and intercepting != "none" else ()
    needed = {manager: USE_MANAGER + install + address}
    needed[namespace] = needed.get(namespace, ()) + SEE_SERVICES + _INTERCEPTING[intercepting]
    return {where: minimal(each) for where, each in needed.items()}


def minimal(needed: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """The same rights without what is granted twice, the broader rule stays, or the first of two equal ones."""
    kept = []
    for index, rule in enumerate(needed):
        others = [each for at, each in enumerate(needed) if at != index and each.covers(rule, earlier=at < index)]
        verbs = tuple(verb for verb in rule.verbs if not any(verb in other.verbs for other in others))
        if verbs:
            kept.append(replace(rule, verbs=verbs))
    return tuple(kept)


def manifest(
    persona: Persona,
    namespace: str,
    manager_namespace: str | None = None,
    *,
    subjects: Iterable[Subject] = (),
    preinstalled: bool = False,
    intercepting: AskedRights = "ephemeral",
) -> str:
    """Roles, and RoleBindings for *subjects*, for ``kubectl apply -f -``. Without subjects the Roles alone."""
    bound = tuple(subjects)
    documents = []
    everything = rules(persona, namespace, manager_namespace, preinstalled=preinstalled, intercepting=intercepting)
    for where, needed in everything.items():
        name = _name(f"meshdev-{persona}", (line for rule in needed for line in rule.lines()))
        documents.append(_role(name, where, needed))
        if bound:
            documents.append(_binding(name, where, bound))
    return "---\n".join(documents)


def _name(prefix: str, content: Iterable[str]) -> str:
    """A name of what is inside: applying a Role for one person takes nothing from those who have another."""
    digest = hashlib.sha256("\n".join(content).encode()).hexdigest()
    return f"{prefix}-{digest[:8]}"


def _role(name: str, namespace: str, needed: tuple[Rule, ...]) -> str:
    lines = [*_head("Role", name, namespace), "rules:", *(line for rule in needed for line in rule.lines())]
    return "\n".join(lines) + "\n"


def _binding(role: str, namespace: str, subjects: tuple[Subject, ...]) -> str:
    reference = ["roleRef:", "  apiGroup: rbac.authorization.k8s.io", "  kind: Role", f"  name: {role}"]
    listed = [line for subject in subjects for line in subject.lines()]
    return "\n".join([*_head("RoleBinding", _name(role, listed), namespace), *reference, "subjects:", *listed]) + "\n"


def _head(kind: str, name: str, namespace: str) -> list[str]:
    return [
        "apiVersion: rbac.authorization.k8s.io/v1",
        f"kind: {kind}",
        "metadata:",
        f"  name: {name}",
        f"  namespace: {_quoted(namespace)}",
        "  labels: {app.kubernetes.io/managed-by: meshdev}",
    ]


def _flow(items: tuple[str, ...]) -> str:
    return f"[{', '.join(_quoted(item) for item in items)}]"


def _quoted(text: str) -> str:
    """A YAML single-quoted scalar: nothing in it has a meaning but the quote itself (YAML 1.2, 7.3.2)."""
    return "'" + text.replace("'", "''") + "'"
