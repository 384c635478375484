"""The traffic-manager, the carriers to it, and whether it and sidecars would be admitted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from meshdev.config import OLDEST_PROTOCOL, PROTOCOL, VERSION
from meshdev.doctor.verdicts.finding import Finding, failed, ok, skipped, warning
from meshdev.errors import ForbiddenError, MeshdevError
from meshdev.kube.podstate import ManagerPod
from meshdev.wire.control import INTERCEPT_PROTOCOL
from meshdev.wire.framing import CarrierKind
from meshdev.wire.session_intercepts import Strategy

#: A tunnel with a longer round trip is felt in each request, in seconds.
_SLOW_SECONDS: Final = 0.3
#: Pod Security levels that refuse NET_ADMIN (https://kubernetes.io/docs/concepts/security/pod-security-standards/).
_REFUSING: Final = frozenset({"baseline", "restricted"})


def running(pod: ManagerPod | None, namespace: str) -> Finding:
    """The manager that runs in *namespace*, if one does."""
    if pod is None:
        return ok(f"none runs in namespace {namespace}; meshdev connect creates it")
    name = f"{pod.version or 'of an unknown version'}, pod {pod.namespace}/{pod.name}"
    upgrade = f"meshdev connect --manager-namespace {pod.namespace} --upgrade"
    if pod.protocol is None:
        return warning(f"the one that runs does not tell its protocol ({name})", upgrade)
    if pod.protocol < OLDEST_PROTOCOL:
        return failed(f"protocol {pod.protocol} is too old for meshdev {VERSION} ({name})", upgrade)
    if pod.protocol < INTERCEPT_PROTOCOL:
        return warning(f"protocol {pod.protocol} carries connections, but no intercepts ({name})", upgrade)
    newer = f"; this meshdev {VERSION} is older" if pod.protocol > PROTOCOL else ""
    return ok(f"{name}, protocol {pod.protocol}{newer}")


@dataclass(frozen=True, slots=True)
class ManagerAdmission:
    """What dry runs said of the manager: the error for its Deployment and for its pod, None where it was admitted.

    *pod_security* is the level that the namespace enforces, None where that cannot be read.
    """

    namespace: str
    deployment: MeshdevError | None = None
    pod: MeshdevError | None = None
    pod_security: str | None = None


def admitted(facts: ManagerAdmission) -> Finding:
    """Whether the cluster would take the manager."""
    elsewhere = "meshdev connect --manager-namespace NAMESPACE, with one that allows NET_ADMIN"
    if isinstance(facts.deployment, ForbiddenError):
        return skipped(f"{facts.deployment.message}: see rbac-connect")
    for refused in (facts.deployment, facts.pod):
        if refused is not None and not isinstance(refused, ForbiddenError):
            return failed(f"the cluster refuses the traffic-manager: {refused.message}", elsewhere)
    if facts.pod is not None and facts.pod_security in _REFUSING:
        return failed(
            f"namespace {facts.namespace} enforces Pod Security level {facts.pod_security}, which refuses NET_ADMIN",
            elsewhere,
        )
    if facts.pod is not None:
        return ok(f"namespace {facts.namespace} takes its Deployment; its pods cannot be tried with your rights")
    return ok(f"namespace {facts.namespace} takes it (tried by dry runs)")


@dataclass(frozen=True, slots=True)
class Measured:
    """A port-forward to the manager: a round trip in seconds, and what it carries upwards in bytes a second."""

    round_trip: float
    upload: float | None = None


def carrier(kind: CarrierKind, found: Mapping[CarrierKind, Measured | MeshdevError]) -> Finding:
    """One kind of carrier; one that works is enough."""
    this = found[kind]
    if isinstance(this, Measured):
        upload = f", {_rate(this.upload)} upwards" if this.upload else ""
        detail = f"{this.round_trip * 1e3:.1f} ms to the traffic-manager and back{upload}"
        return warning(f"{detail}: each request feels that") if this.round_trip > _SLOW_SECONDS else ok(detail)
    others = [other for other, outcome in found.items() if isinstance(outcome, Measured)]
    if others:
        return warning(f"{this.message}; {others[0]} is used instead", f"meshdev connect --carrier {others[0]}")
    return failed(this.message, this.hint)


def _rate(bytes_a_second: float) -> str:
    bits = bytes_a_second * 8
    return (
        f"{bits / 1e9:.1f} Gbit/s"
        if bits >= 1e9
        else f"{bits / 1e6:.0f} Mbit/s"
        if bits >= 1e6
        else f"{bits / 1e3:.0f} kbit/s"
    )


def sidecar(strategy: Strategy, workload: str, found: Mapping[Strategy, MeshdevError | None]) -> Finding:
    """One strategy for *workload*, tried by a dry run; one that is allowed is enough."""
    refused = found[strategy]
    if refused is None:
        return ok(f"{workload} takes it (tried by a dry run)")
    if isinstance(refused, ForbiddenError):
        return skipped(f"{refused.message}: see rbac-intercept")
    if any(each is None for each in found.values()):
        return warning(f"{workload} does not take it: {refused.message}", refused.hint)
    return failed(f"{workload} does not take it: {refused.message}", refused.hint)
