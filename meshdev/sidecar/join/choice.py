"""Which of the two strategies is allowed, found out by dry runs: nothing is changed, refusals are given verbatim."""

from collections.abc import Sequence
from typing import Final

from meshdev.errors import (
    AdmissionError,
    ClusterError,
    ForbiddenError,
    InterceptError,
    MeshdevError,
    UnreachableError,
    UntrustedError,
)
from meshdev.kube.client import KubeApi, Object
from meshdev.kube.refusals import refuse_pods
from meshdev.kube.replicas import replica
from meshdev.kube.workloads import Resolved
from meshdev.sidecar.join import ephemeral, patch
from meshdev.sidecar.join.container import SidecarSpec
from meshdev.wire.session_intercepts import STRATEGIES, AskedStrategy, Strategy

_NAMES: Final = {"ephemeral": "as an ephemeral container", "patch": "by a patch of its template"}
Tried = Sequence[tuple[Strategy, MeshdevError]]


async def choose(
    api: KubeApi, resolved: Resolved, pods: Sequence[Object], spec: SidecarSpec, wanted: AskedStrategy
) -> Strategy:
    """The first strategy that is allowed, or *wanted* if it is; *pods* are the workload's, at least one.

    Raises what the API server said: AdmissionError, ForbiddenError, ClusterError; InterceptError for targets that
    cannot be intercepted.
    """
    refuse_pods(str(resolved.workload), pods)
    for pod in pods:
        ephemeral.refuse_elsewhere(replica(pod), spec)
    tried: list[tuple[Strategy, MeshdevError]] = []
    for strategy in STRATEGIES if wanted == "auto" else (wanted,):
        try:
            await (
                ephemeral.dry_run(api, pods[0], spec) if strategy == "ephemeral" else patch.dry_run(api, resolved, spec)
            )
        except (UnreachableError, UntrustedError):
            raise
        except (AdmissionError, ForbiddenError, InterceptError, ClusterError) as error:
            tried.append((strategy, error))
        else:
            return strategy
    raise _refusal(resolved, tried)


def _refusal(resolved: Resolved, tried: Tried) -> MeshdevError:
    """One error for all that was tried, of the kind that comes closest to what can be changed."""
    workload = resolved.workload
    reasons = "; ".join(f"{_NAMES[strategy]}: {error.message}" for strategy, error in tried)
    kinds = (AdmissionError, ForbiddenError, InterceptError, ClusterError)
    kind = next(kind for kind in kinds if any(isinstance(error, kind) for _, error in tried))
    hints = [way_out(workload.namespace, error) for _, error in tried]
    return kind(
        f"no sidecar may enter {workload}: {reasons}", hint="\n".join(dict.fromkeys(filter(None, hints))) or None
    )


def way_out(namespace: str, error: MeshdevError) -> str | None:
    """What can be done where a sidecar was refused with *error*."""
    if isinstance(error, AdmissionError) and "PodSecurity" in error.message:
        return (
            f"the sidecar needs NET_ADMIN, which Pod Security refuses to all pods of namespace {namespace} by either "
            "strategy; an administrator of the namespace can allow it: "
            f"kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=privileged --overwrite"
        )
    return error.hint
