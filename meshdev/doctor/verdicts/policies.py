"""Service meshes and NetworkPolicies around intercepted pods.

Semantics of policies: https://kubernetes.io/docs/concepts/services-networking/network-policies/. Which of them a
cluster enforces depends on its CNI plugin; what stands here is what they say.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Any, Final, Literal

from meshdev.config import CONTROL_PORT, MANAGER_LABELS, RELAYS_PORT
from meshdev.doctor.verdicts.finding import Finding, failed, ok, warning
from meshdev.text import first_few

Object = Mapping[str, Any]
Direction = Literal["egress", "ingress"]

PORTS: Final = (CONTROL_PORT, RELAYS_PORT)
_NAMESPACE_LABEL: Final = "kubernetes.io/metadata.name"


def meshes(found: Mapping[str, str], target: str | None) -> Finding:
    """The *found* meshes by workload; a *target* in one of them cannot be intercepted."""
    if target is not None and target in found:
        return failed(
            f"{found[target]} redirects the traffic of the pods of {target} already: they cannot be intercepted",
            f"take {target} out of {found[target]}, or intercept a workload that is not in it",
        )
    if found:
        names = " and ".join(sorted(set(found.values())))
        return warning(
            f"{names} redirects the traffic of {first_few(sorted(found))}: these cannot be intercepted, connect works",
            "intercept a workload that is not in the mesh",
        )
    return ok("none redirects the pods' traffic")


@dataclass(frozen=True, slots=True)
class PolicyPod:
    """One end of a connection."""

    namespace: str
    labels: Mapping[str, str]
    address: IPv4Address | None = None


@dataclass(frozen=True, slots=True)
class PolicyFacts:
    """A pod of *workload* that would reach the manager, and the NetworkPolicies of both namespaces; *unread* are
    namespaces whose policies may not be read."""

    workload: str
    pod: PolicyPod
    manager: PolicyPod
    policies: Sequence[Object] = ()
    unread: Sequence[str] = ()


def network_policies(facts: PolicyFacts) -> Finding:
    """Whether sidecars reach the manager."""
    blocked = [
        f"{_name(by)} ({direction})"
        for direction, own, peer in (("egress", facts.pod, facts.manager), ("ingress", facts.manager, facts.pod))
        if (by := _blocking(facts.policies, direction, own, peer)) is not None  # type: ignore[arg-type]  # see Direction
    ]
    ports = " and ".join(map(str, PORTS))
    if blocked:
        return failed(
            f"sidecars in {facts.workload} would not reach the traffic-manager: {first_few(blocked)} allows no "
            f"TCP {ports}",
            f"allow TCP {ports} from these pods to the pods with the labels "
            + ",".join(f"{key}={value}" for key, value in sorted(MANAGER_LABELS.items())),
        )
    unread = f" (those of namespace {first_few(facts.unread)} may not be read)" if facts.unread else ""
    return ok(f"none keeps {facts.workload} from the traffic-manager{unread}")


def _blocking(policies: Iterable[Object], direction: Direction, own: PolicyPod, peer: PolicyPod) -> Object | None:
    """The first policy that isolates *own* where none of those that do allows the ports; None where it may."""
    isolating = [each for each in policies if _isolates(each, direction, own)]
    allowed = {
        port
        for port in PORTS
        for policy in isolating
        for rule in policy["spec"].get(direction) or []
        if _allows(policy, rule, direction, peer, port)
    }
    return isolating[0] if isolating and allowed != set(PORTS) else None


def _isolates(policy: Object, direction: Direction, pod: PolicyPod) -> bool:
    spec = policy["spec"]
    kinds = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    return (
        policy["metadata"]["namespace"] == pod.namespace
        and direction.capitalize() in kinds
        and _selects(spec.get("podSelector") or {}, pod.labels)
    )


def _allows(policy: Object, rule: Object, direction: Direction, peer: PolicyPod, port: int) -> bool:
    peers = rule.get("to" if direction == "egress" else "from")
    return _has_port(rule.get("ports"), port) and (not peers or any(_is_peer(policy, each, peer) for each in peers))


def _has_port(ports: Sequence[Object] | None, port: int) -> bool:
    if not ports:
        return True
    for each in ports:
        number = each.get("port")
        if each.get("protocol", "TCP") != "TCP":
            continue
        if number is None or number == port:
            return True
        if isinstance(number, int) and number <= port <= each.get("endPort", number):
            return True
    return False


def _is_peer(policy: Object, rule: Object, peer: PolicyPod) -> bool:
    block = rule.get("ipBlock")
    if block is not None:
        return peer.address is not None and _in_block(block, peer.address)
    namespaces = rule.get("namespaceSelector")
    if namespaces is None:
        there = policy["metadata"]["namespace"] == peer.namespace
    else:
        # The labels of namespaces may not be read; this one each has, with its name (since Kubernetes 1.22).
        there = _selects(namespaces, {_NAMESPACE_LABEL: peer.namespace})
    return there and _selects(rule.get("podSelector") or {}, peer.labels)


def _in_block(block: Object, address: IPv4Address) -> bool:
    try:
        inside = address in IPv4Network(block["cidr"], strict=False)
        return inside and not any(address in IPv4Network(each, strict=False) for each in block.get("except") or [])
    except (AddressValueError, ValueError):  # IPv6
        return False


def _selects(selector: Object, labels: Mapping[str, str]) -> bool:
    if any(labels.get(key) != value for key, value in (selector.get("matchLabels") or {}).items()):
        return False
    return all(_matches(each, labels) for each in selector.get("matchExpressions") or [])


def _matches(expression: Object, labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or []
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case _:
            return False


def _name(policy: Object) -> str:
    return f"networkpolicy/{policy['metadata']['name']} in namespace {policy['metadata']['namespace']}"
