"""What the page is sent, key by key: the page and its tests rely on these."""

from dataclasses import replace
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import Any, cast

from meshdev.intercept.lease import LeaseStatus, Record
from meshdev.intercept.match import HeaderMatch
from meshdev.kube.clients import WorkloadPod
from meshdev.modes.plan import InterceptPlan
from meshdev.modes.state import InterceptState, PodsState
from meshdev.observe.topology import MAX_WORKLOADS, EdgeLoad
from meshdev.session import dashboard_view as view
from meshdev.session.dashboard_view import OtherIntercept, Workloads
from meshdev.wire.intercepts import Report
from meshdev.wire.session_api import CarrierStatus
from tests.intercept.values import B, mesh
from tests.session.test_state import STANDING

ADDRESSES = [IPv4Address(f"10.244.0.{number}") for number in range(1, 6)]
PODS = {
    "default": {
        "1": WorkloadPod((ADDRESSES[0],), "deployment/b", ready=True, counts=True),
        "2": WorkloadPod((ADDRESSES[1],), "deployment/b", ready=False, counts=True),
        "3": WorkloadPod((), "job/done", ready=False, counts=False),
    },
    "team-1": {"4": WorkloadPod((ADDRESSES[2],), "deployment/b", ready=True, counts=True)},
}
WORKLOADS = Workloads.of(PODS, "default")
ID = f"{1:032x}"
REPORTS = (
    Report(ID, "b-2", "acked", pending=("8080",)),
    Report(ID, "b-1", "acked", return_path="silent"),
    Report(ID, "b-3", "nacked", "Envoy says no"),
)
OTHER = OtherIntercept(
    Record(
        mesh(HeaderMatch("a", "exact", "2"), number=2),
        "jane@there",
        "default",
        LeaseStatus("active", 1, 2),
        1.0,
        "name",
        "uid",
        "1",
    ),
    expired=False,
)


def plan(number: int = 1) -> InterceptPlan:
    """What a state shows of one."""
    return cast("InterceptPlan", SimpleNamespace(spec=mesh(number=number), strategy="ephemeral", url=None))


OWN = InterceptState(1.0, plan=plan(), up=True, pods=PodsState(REPORTS, acked=2, total=3))


def test_who_is_connected() -> None:
    assert view.session(STANDING, "ann@x") == {
        "state": "connected",
        "context": "dev",
        "namespace": None,
        "holder": "ann@x",
        "address": "198.18.0.2",
        "manager": "mesh/m-1",
        "notes": ["an overlap"],
    }


def test_the_tunnel() -> None:
    assert view.tunnel(STANDING, 1000.4, 0.0) == {
        "carriers": [
            {"kind": "websocket", "up": False, "rtt_ms": None},
            {"kind": "spdy", "up": True, "rtt_ms": 1.5},
        ],
        "to_cluster": 1000,
        "to_laptop": 0,
    }
    assert view.round_trip(STANDING) == 1.5
    assert view.round_trip(replace(STANDING, carriers=(CarrierStatus("spdy", False, 1.0),))) is None


def test_edges() -> None:
    assert view.edges([EdgeLoad("deployment/a", "deployment/b", 2 / 3, 0.25, 1.23456)]) == [
        {"from": "deployment/a", "to": "deployment/b", "rate": 0.667, "errors": 0.25, "p50_ms": 1.235}
    ]


def test_workloads_by_their_pods() -> None:
    assert WORKLOADS.ready == {"deployment/b": 1, "deployment/b@team-1": 1}
    assert WORKLOADS.total == {"deployment/b": 2, "deployment/b@team-1": 1}
    assert [WORKLOADS.source(each) for each in ADDRESSES[:4]] == [
        "deployment/b",
        "deployment/b",
        "deployment/b@team-1",
        "address/10.244.0.4",
    ]


def test_intercepts() -> None:
    state = replace(STANDING, intercepts=(OWN, InterceptState(2.0)))
    own, other = view.intercepts(state, "ann@x", [OTHER, replace(OTHER, record=replace(OTHER.record, spec=mesh()))], 5)
    assert own == {
        "id": ID,
        "target": "deployment/b",
        "namespace": "default",
        "mode": "mesh",
        "match": "a=1",
        "ports": ["8080:8080/http"],
        "holder": "ann@x",
        "mine": True,
        "state": "active",
        "pods": {"acked": 2, "total": 3},
        "reports": [
            {"pod": "b-1", "state": "acked", "detail": "this machine is not reached from the pod (silent)"},
            {"pod": "b-2", "state": "acked", "detail": "nothing listens in the pod on 8080"},
            {"pod": "b-3", "state": "nacked", "detail": "Envoy says no"},
        ],
    }
    assert other == {
        **own,
        "id": f"{2:032x}",
        "match": "a=2",
        "holder": "jane@there",
        "mine": False,
        "pods": {"acked": 1, "total": 2},
        "reports": [],
    }
    (expired,) = view.intercepts(STANDING, "ann@x", [replace(OTHER, expired=True)], 5)
    assert expired["state"] == "expired"


def nodes(workloads: Workloads, intercepts: list[view.Json], *at_edges: str) -> dict[str, Any]:
    return {str(each["id"]): each for each in view.nodes(workloads, intercepts, at_edges, "ann@x", "default")}


def test_nodes() -> None:
    state = replace(STANDING, intercepts=(OWN,))
    found = nodes(WORKLOADS, view.intercepts(state, "ann@x", [OTHER], 5), "address/1.2.3.4", "job/done")
    assert list(found) == sorted(found)
    assert found == {
        "address/1.2.3.4": {
            "id": "address/1.2.3.4",
            "kind": "address",
            "name": "1.2.3.4",
            "ready": None,
            "total": None,
            "intercepts": [],
        },
        "deployment/b": {
            "id": "deployment/b",
            "kind": "deployment",
            "name": "b",
            "ready": 1,
            "total": 2,
            "intercepts": [ID, f"{2:032x}"],
        },
        "deployment/b@team-1": {
            "id": "deployment/b@team-1",
            "kind": "deployment",
            "name": "b.team-1",
            "ready": 1,
            "total": 1,
            "intercepts": [],
        },
        "job/done": {"id": "job/done", "kind": "job", "name": "done", "ready": None, "total": None, "intercepts": []},
        "laptop/ann@x": {
            "id": "laptop/ann@x",
            "kind": "laptop",
            "name": "ann@x",
            "ready": None,
            "total": None,
            "intercepts": [],
        },
        "laptop/jane@there": {
            "id": "laptop/jane@there",
            "kind": "laptop",
            "name": "jane@there",
            "ready": None,
            "total": None,
            "intercepts": [],
        },
    }


def test_a_service_that_is_the_workload_has_the_pods_of_its_intercept() -> None:
    there = replace(OTHER.record, spec=mesh(workload=replace(B, kind="service", name="x")))
    found = nodes(Workloads(), view.intercepts(STANDING, "ann@x", [OtherIntercept(there, expired=False)], 5))
    assert (found["service/x"]["ready"], found["service/x"]["total"]) == (2, 2)


def test_many_workloads() -> None:
    """What is at edges comes first; the page is told how many are left out."""
    pods = {str(number): WorkloadPod((), f"deployment/w{number:03}", ready=True, counts=True) for number in range(300)}
    workloads = Workloads.of({"default": pods}, "default")
    found = nodes(workloads, [], "deployment/w299")
    assert len(found) == MAX_WORKLOADS
    assert {"deployment/w299", "deployment/w000"} <= found.keys()
    assert list(view.unshown(workloads, found.values(), 0)) == ["101 more workloads are not drawn"]
    assert list(view.unshown(Workloads(), [], 1234)) == ["1,234 requests are on more edges than are drawn"]
    assert list(view.unshown(WORKLOADS, nodes(WORKLOADS, []).values(), 0)) == []
