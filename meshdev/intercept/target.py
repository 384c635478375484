"""A target as typed: ``deployment/b``, ``deploy/b``, ``svc/b``; :mod:`meshdev.kube.workloads` finds its workload."""

import re
from dataclasses import dataclass
from typing import Final

from meshdev.errors import UsageError
from meshdev.intercept.spec import KINDS, Kind

#: As kubectl takes them (``kubectl api-resources``), singular, plural and short.
_SHORT: Final[dict[str, Kind]] = {
    "deploy": "deployment",
    "sts": "statefulset",
    "ds": "daemonset",
    "rs": "replicaset",
    "po": "pod",
    "svc": "service",
}
_WORKLOADS: Final[dict[str, Kind]] = _SHORT | {name: kind for kind in KINDS for name in (kind, f"{kind}s")}
#: ``deployments.apps/b`` is what `kubectl get -o name` prints, ``deployments.v1.apps/b`` its full form.
_GROUP: Final = re.compile(r"\.(v1\.)?apps$")
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_HINT: Final = "KIND/NAME, for instance deployment/b, deploy/b, sts/db, svc/b or pod/b-1"


@dataclass(frozen=True)
class Target:
    """A kind and a name; a Service stands for what it selects."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}"


def parse_target(text: str) -> Target:
    """The target that *text* names. Raises UsageError."""
    kind, slash, name = text.partition("/")
    if not slash:
        meant = f"deployment/{text} or svc/{text}? " if _NAME.fullmatch(text) else ""
        raise UsageError(f"the target {text!r} has no kind", hint=f"{meant}{_HINT}")
    meant_kind = kind_of(kind)
    if meant_kind is None:
        pods = "pods of other kinds (Job, ReplicationController, Rollout, …) by a Service that selects them: svc/NAME"
        raise UsageError(f"{kind!r} is no kind that can be intercepted", hint=f"{_HINT}; {pods}")
    if _NAME.fullmatch(name) is None:
        raise UsageError(f"{name!r} is no name of a {meant_kind}", hint=_HINT)
    return Target(meant_kind, name)


def kind_of(typed: str) -> Kind | None:
    """The kind that is meant by ``deploy``, ``deployments``, ``deployments.apps`` and others."""
    return _WORKLOADS.get(_GROUP.sub("", typed.lower()))
