"""What the dashboard's page is sent, made of what is known of session and cluster. Pure; the keys are the page's.

``docs/design/0028-dashboard.md`` has the events.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from meshdev.intercept import match
from meshdev.intercept.lease import Record
from meshdev.kube.clients import WorkloadPod
from meshdev.modes.state import InterceptState
from meshdev.observe import topology
from meshdev.observe.topology import MAX_WORKLOADS, EdgeLoad, laptop_node, workload_node
from meshdev.session.state import SessionState
from meshdev.wire.intercepts import Report

Json = dict[str, object]

#: Intercepts of others that are shown.
MAX_OTHERS = 200


@dataclass(frozen=True)
class OtherIntercept:
    """Somebody else's, as its Lease has it."""

    record: Record
    expired: bool


@dataclass
class Workloads:
    """The pods of some namespaces, by node: made again whenever they have changed."""

    ready: dict[str, int] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)
    addresses: dict[IPv4Address, str] = field(default_factory=dict)
    """The workload of each address, as people name it in its own namespace."""
    nodes: dict[IPv4Address, str] = field(default_factory=dict)

    @classmethod
    def of(cls, pods: Mapping[str, Mapping[str, WorkloadPod]], here: str) -> "Workloads":
        """*pods* by namespace and uid; *here* is the connection's namespace."""
        made = cls()
        for namespace, found in pods.items():
            for pod in found.values():
                node = workload_node(pod.workload, namespace, here)
                for address in pod.addresses:
                    made.addresses[address] = pod.workload
                    made.nodes[address] = node
                if pod.counts:
                    made.ready[node] = made.ready.get(node, 0) + pod.ready
                    made.total[node] = made.total.get(node, 0) + 1
        return made

    def source(self, address: IPv4Address) -> str:
        """The node of a client."""
        return self.nodes.get(address) or topology.address_node(address)


def session(state: SessionState, holder: str) -> Json:
    """Who is connected to what."""
    welcome = state.welcome
    status = state.status(state.since)
    return {
        "state": state.phase,
        "context": state.context,
        "namespace": state.namespace,
        "holder": holder,
        "address": str(welcome.address) if welcome else None,
        "manager": f"{welcome.namespace}/{welcome.pod}" if welcome else None,
        "notes": list(status.notes),
    }


def tunnel(state: SessionState, to_cluster: float, to_laptop: float) -> Json:
    """The carriers, and bytes a second of IP packets."""
    carriers = [{"kind": each.kind, "up": each.up, "rtt_ms": each.rtt_ms} for each in state.carriers]
    return {"carriers": carriers, "to_cluster": round(to_cluster), "to_laptop": round(to_laptop)}


def round_trip(state: SessionState) -> float | None:
    """Of the fastest carrier, in milliseconds."""
    return min((each.rtt_ms for each in state.carriers if each.up and each.rtt_ms is not None), default=None)


def edges(loads: Iterable[EdgeLoad]) -> list[Json]:
    """Of the last minute."""
    return [
        {
            "from": each.source,
            "to": each.target,
            "rate": round(each.rate, 3),
            "errors": round(each.errors, 4),
            "p50_ms": round(each.p50_ms, 3),
        }
        for each in loads
    ]


def intercepts(state: SessionState, holder: str, others: Iterable[OtherIntercept], now: float) -> list[Json]:
    """One's own, the oldest first, then those of others. *now* is on the monotonic clock."""
    own = [found for each in state.intercepts if (found := _own(each, holder, now)) is not None]
    known = {each["id"] for each in own}
    rest = [_other(each) for each in others if each.record.spec.id not in known]
    return [*own, *rest[:MAX_OTHERS]]


def _own(one: InterceptState, holder: str, now: float) -> Json | None:
    status = one.status(now, live=True)
    if status is None:
        return None
    return {
        "id": status.id,
        "target": status.target,
        "namespace": status.namespace,
        "mode": status.mode.name,
        "match": status.match,
        "ports": list(status.ports),
        "holder": holder,
        "mine": True,
        "state": status.state,
        "pods": {"acked": status.acked, "total": status.total},
        "reports": [
            {"pod": each.pod, "state": each.state, "detail": _detail(each)}
            for each in sorted(one.pods.reports, key=lambda report: report.pod)
        ],
    }


def _detail(report: Report) -> str:
    """What a pod waits for, or refuses, for people."""
    found = [report.text] if report.text else []
    if report.pending:
        found.append(f"nothing listens in the pod on {', '.join(report.pending)}")
    if report.return_path in {"silent", "refused"}:
        found.append(f"this machine is not reached from the pod ({report.return_path})")
    return "; ".join(found)


def _other(one: OtherIntercept) -> Json:
    spec, status = one.record.spec, one.record.status
    return {
        "id": spec.id,
        "target": str(spec.workload),
        "namespace": spec.workload.namespace,
        "mode": spec.mode.name,
        "match": match.text(spec.match),
        "ports": [f"{port.local}:{port.remote}/{port.protocol}" for port in spec.ports],
        "holder": one.record.holder,
        "mine": False,
        "state": "expired" if one.expired else status.state,
        "pods": {"acked": status.acked, "total": status.total},
        "reports": [],
    }


def nodes(
    workloads: Workloads, shown_intercepts: Iterable[Json], at_edges: Iterable[str], holder: str, here: str
) -> list[Json]:
    """Ends of edges, targets and machines of intercepts, then workloads with pods, up to MAX_WORKLOADS.

    The order is always the same, so that a page need not move what it has drawn.
    """
    held: dict[str, list[object]] = {laptop_node(holder): []}
    pods: dict[str, object] = {}
    for each in shown_intercepts:
        target = workload_node(str(each["target"]), str(each["namespace"]), here)
        held.setdefault(target, []).append(each["id"])
        held.setdefault(laptop_node(str(each["holder"])), [])
        pods[target] = each["pods"]
    shown = dict.fromkeys([*at_edges, *held])
    for node in sorted(workloads.total):
        if len(shown) >= MAX_WORKLOADS:
            break
        shown[node] = None
    return [_node(node, workloads, held.get(node, []), pods.get(node)) for node in sorted(shown)]


def _node(node: str, workloads: Workloads, held: list[object], pods: object) -> Json:
    kind, _, rest = node.partition("/")
    name, at, namespace = rest.partition("@") if kind not in {"laptop", "address"} else (rest, "", "")
    counted: tuple[object, object] = workloads.ready.get(node), workloads.total.get(node)
    if counted == (None, None) and isinstance(pods, Mapping):  # a Service that is the workload: its pods are others'
        counted = pods["total"], pods["total"]
    return {
        "id": node,
        "kind": kind,
        "name": f"{name}.{namespace}" if at else name,
        "ready": counted[0],
        "total": counted[1],
        "intercepts": held,
    }


def unshown(workloads: Workloads, shown: Iterable[Json], uncounted: int) -> Iterator[str]:
    """What there is no room for, as sentences."""
    left = workloads.total.keys() - {str(each["id"]) for each in shown}
    if left:
        yield f"{len(left)} more workloads are not drawn"
    if uncounted:
        yield f"{uncounted:,} requests are on more edges than are drawn"
