"""A Spec as a Lease and back: the record of an intercept for people and other sessions, and its lock.

The name is a hash of the workload's uid, the ports and the canonical match, so that creating it is the lock. A Lease
can be written by anybody who may write Leases in that namespace: whatever is wrong with one raises ProtocolError, and
one that claims a workload other than the one that owns it is not believed. Why a Lease: docs/design/0008.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from meshdev.config import FIELD_MANAGER
from meshdev.errors import ProtocolError
from meshdev.intercept import spec as specs
from meshdev.intercept.spec import Spec
from meshdev.wire.codecs import Choice, Integer, Many, Parsed
from meshdev.wire.message import decode, dump, field, load, message
from meshdev.wire.session_intercepts import INTERCEPT_PHASES, InterceptPhase

Object = dict[str, Any]

LABELS: Final = {"app.kubernetes.io/managed-by": FIELD_MANAGER, "app.kubernetes.io/component": "intercept"}
UID_LABEL: Final = "meshdev.dev/workload-uid"
SPEC_ANNOTATION: Final = "meshdev.dev/spec"
STATUS_ANNOTATION: Final = "meshdev.dev/status"
#: The namespace of the manager that serves it.
MANAGER_ANNOTATION: Final = "meshdev.dev/manager-namespace"

#: A session renews every RENEW_SECONDS; without that for EXPIRED_SECONDS it counts as dead; any session may delete
#: the Lease when it is that for STALE_SECONDS, so that a laptop that sleeps for some minutes keeps its intercepts.
#: How that is observed: :mod:`meshdev.intercept.liveness`.
RENEW_SECONDS: Final = 10.0
EXPIRED_SECONDS: Final = 30.0
STALE_SECONDS: Final = 600.0

#: Kubernetes' own limit for a name of this kind is 253; all annotations together have 256 KiB.
_MAX_HOLDER: Final = 256
_MAX_STATUS: Final = 2048
#: No version of meshdev asks for longer than this, in seconds; a larger value does not hold a workload for ever.
_MAX_DURATION: Final = 120.0
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}/(tcp|udp)", re.ASCII)
_API_VERSIONS: Final = {"pod": "v1", "service": "v1"}
_KINDS: Final = {
    "deployment": "Deployment",
    "statefulset": "StatefulSet",
    "daemonset": "DaemonSet",
    "replicaset": "ReplicaSet",
    "pod": "Pod",
    "service": "Service",
}


def _port(text: str) -> str:
    if _PORT.fullmatch(text) is None:
        raise ValueError("not a port")
    return text


_PODS: Final = Integer(0, 1 << 20)


@message()
class LeaseStatus:
    """What the session knows of its pods; it is written with each renewal.

    *pending* are ports of pods on which nothing listens: ``9999/tcp``.
    """

    state: InterceptPhase = field(Choice(INTERCEPT_PHASES), default="pending", optional=True)
    acked: int = field(_PODS, default=0, optional=True)
    total: int = field(_PODS, default=0, optional=True)
    pending: tuple[str, ...] = field(Many(Parsed(_port), specs.MAX_PORTS), default=(), optional=True)


@dataclass(frozen=True)
class Record:
    """One Lease, read. Times are seconds since the epoch by the API server's clock; ``renewTime`` is not read, as it is
    somebody else's clock.

    *holder* is ``user@host``. *uid* and *version* are the Lease object's own, for preconditions. *written* is when it
    was last changed, None if the server does not report it; *duration* is how long one renewal counts, in seconds.
    """

    spec: Spec
    holder: str
    manager_namespace: str
    status: LeaseStatus
    created: float
    name: str
    uid: str
    version: str
    written: float | None = None
    duration: float = EXPIRED_SECONDS


def name_of(spec: Spec) -> str:
    """The Lease's name; two intercepts of the same requests at the same ports have the same."""
    ports = ",".join(f"{port.remote}/{port.transport}" for port in spec.ports)
    claimed = "\n".join((spec.workload.uid, ports, specs.canonical_json(spec.match)))
    return f"meshdev-{hashlib.sha256(claimed.encode()).hexdigest()[:40]}"


def owner(workload: specs.Workload) -> Object:
    """The reference that makes an object go with its workload (blockOwnerDeletion is another permission)."""
    return {
        "apiVersion": _API_VERSIONS.get(workload.kind, "apps/v1"),
        "kind": _KINDS[workload.kind],
        "name": workload.name,
        "uid": workload.uid,
    }


def lease(spec: Spec, holder: str, manager_namespace: str, now: float, status: LeaseStatus | None = None) -> Object:
    """The Lease to create."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": name_of(spec),
            "namespace": spec.workload.namespace,
            "labels": {**LABELS, UID_LABEL: spec.workload.uid},
            "annotations": {
                SPEC_ANNOTATION: specs.encode(spec),
                STATUS_ANNOTATION: _status_text(status or LeaseStatus()),
                MANAGER_ANNOTATION: manager_namespace,
            },
            "ownerReferences": [owner(spec.workload)],
        },
        "spec": {
            "holderIdentity": holder[:_MAX_HOLDER],
            "leaseDurationSeconds": round(EXPIRED_SECONDS),
            "acquireTime": _micro_time(now),
            "renewTime": _micro_time(now),
        },
    }


def renewed(there: Object, status: LeaseStatus, now: float) -> Object:
    """The same Lease, alive *now*; what others wrote into it stays."""
    metadata = there["metadata"]
    annotations = {**(metadata.get("annotations") or {}), STATUS_ANNOTATION: _status_text(status)}
    return {
        **there,
        "metadata": {**metadata, "annotations": annotations},
        "spec": {**there["spec"], "renewTime": _micro_time(now)},
    }


def record(there: Object) -> Record:
    """The intercept that a Lease stands for. Raises ProtocolError."""
    try:
        return _record(there)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ProtocolError(f"the Lease {_name(there)} cannot be read: {error!s:.200}") from None
    except ProtocolError as error:
        raise ProtocolError(f"the Lease {_name(there)} cannot be read: {error.message:.300}") from None


def records(leases: Iterable[Object]) -> tuple[tuple[Record, ...], tuple[str, ...]]:
    """The intercepts, the oldest first, and what is wrong with the Leases that are none."""
    found, troubles = [], []
    for there in leases:
        try:
            found.append(record(there))
        except ProtocolError as error:
            troubles.append(error.message)
    return tuple(sorted(found, key=rank)), tuple(troubles)


def rank(one: Record) -> tuple[float, str]:
    """The order of claims: the server's clock counts whole seconds, within one the name decides."""
    return one.created, one.name


def _record(there: Object) -> Record:
    metadata, body = there["metadata"], there["spec"]
    annotations = metadata["annotations"]
    holder = _text(body["holderIdentity"], _MAX_HOLDER)
    spec = specs.decode(_text(annotations[SPEC_ANNOTATION], specs.MAX_SPEC))
    owners = [_text(each["uid"], 63) for each in metadata["ownerReferences"]]
    if spec.workload.uid not in owners or spec.workload.namespace != metadata["namespace"]:
        raise ValueError("its workload does not own it")
    if metadata["name"] != name_of(spec):
        raise ValueError("its name does not match its spec")
    return Record(
        spec=spec,
        holder="".join(letter if letter.isprintable() else "?" for letter in holder),
        manager_namespace=_text(annotations.get(MANAGER_ANNOTATION, ""), 63),
        status=_status(_text(annotations.get(STATUS_ANNOTATION, "{}"), _MAX_STATUS)),
        created=_seconds(metadata["creationTimestamp"]),
        name=_text(metadata["name"], 253),
        uid=_text(metadata["uid"], 63),
        version=_text(metadata["resourceVersion"], 63),
        written=_written(metadata),
        duration=_duration(body.get("leaseDurationSeconds")),
    )


def _written(metadata: Object) -> float | None:
    """The newest of the times that the server notes of each writer (metav1.ManagedFieldsEntry)."""
    entries = metadata.get("managedFields")
    times = []
    for entry in entries if isinstance(entries, list) else ():
        with suppress(ValueError, OverflowError, AttributeError):
            times.append(_seconds(entry.get("time")))
    return max(times, default=None)


def _duration(value: object) -> float:
    """Never less than sessions need between two renewals, never more than :data:`_MAX_DURATION`."""
    if isinstance(value, bool) or not isinstance(value, int):
        return EXPIRED_SECONDS
    return float(min(max(value, round(EXPIRED_SECONDS)), round(_MAX_DURATION)))


def _status_text(status: LeaseStatus) -> str:
    fields = dump(status)
    if not status.pending:
        del fields["pending"]
    return json.dumps(fields)


def _status(text: str) -> LeaseStatus:
    return decode(text.encode("utf-8", "surrogatepass"), "its status", lambda found: load(LeaseStatus, found))


def _text(value: object, limit: int) -> str:
    if not isinstance(value, str) or len(value) > limit or "\0" in value:
        raise ValueError("a text is missing, too long or none")
    return value


def _micro_time(seconds: float) -> str:
    """As metav1.MicroTime is written."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _seconds(text: object) -> float:
    moment = datetime.fromisoformat(_text(text, 64))
    if moment.tzinfo is None:
        raise ValueError("a time has no zone")
    return moment.timestamp()


def _name(there: object) -> str:
    metadata = there.get("metadata") if isinstance(there, dict) else None
    name = metadata.get("name") if isinstance(metadata, dict) else None
    return repr(name[:253]) if isinstance(name, str) else "without a name"
