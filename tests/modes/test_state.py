"""Views of an intercept's state: `status` and the Lease, which has it first."""

from dataclasses import replace
from typing import Any, cast

import pytest

from meshdev.intercept.lease import LeaseStatus
from meshdev.modes.plan import InterceptPlan
from meshdev.modes.state import InterceptState, PodsState
from meshdev.sidecar.join.container import SidecarSpec
from meshdev.wire.counts import InterceptCounts
from meshdev.wire.intercepts import Report
from meshdev.wire.session_intercepts import LocalPort, PendingListener, PodIdentity
from tests.intercept.values import mesh

NO_CLUSTER = cast("Any", None)
PENDING = (PendingListener(9999, "tcp", 1),)


class Planned(InterceptPlan):
    """One whose workload was not looked for."""

    url = None


PLAN = Planned(NO_CLUSTER, mesh(), SidecarSpec("sidecar:1", "10.96.0.5:15010", "mesh", "w"), "ephemeral", 2)
PODS = PodsState(counts=InterceptCounts(7), acked=1, total=2, pending=PENDING)
UP = InterceptState(100.0, plan=PLAN, proven=True, up=True, local=(LocalPort(8080, "tcp", True),), pods=PODS)


def test_nothing_is_shown_before_it_is_planned() -> None:
    state = InterceptState(100.0)
    assert (state.status(101.0), state.workload, state.local_up) == (None, None, 0)


def test_what_is_shown() -> None:
    status = UP.status(103.26)
    assert status is not None
    assert (status.id, status.target, status.match) == (mesh().id, str(mesh().workload), "a=1")
    assert (status.acked, status.total, status.counts.matched) == (1, 2, 7)
    assert (status.pending_listeners, status.local, status.age_s) == (PENDING, UP.local, 3.3)
    assert (UP.workload, UP.local_up) == (str(mesh().workload), 1)


def test_identities_are_in_a_status_and_not_in_live_events() -> None:
    reports = (
        Report(mesh().id, "b-2", "acked", identity="spiffe://m/b-2"),
        Report(mesh().id, "b-1", "acked", identity="spiffe://m/b-1"),
        Report(mesh().id, "b-3", "joined"),
    )
    state = replace(UP, pods=replace(PODS, reports=reports))
    status, live = state.status(100.0), state.status(100.0, live=True)
    assert status is not None
    assert status.identities == (PodIdentity("b-1", "spiffe://m/b-1"), PodIdentity("b-2", "spiffe://m/b-2"))
    assert live == replace(status, identities=())


@pytest.mark.parametrize(
    ("proven", "up", "idle", "in_lease", "shown"),
    [
        (False, False, False, "pending", "pending"),
        (True, False, False, "active", "pending"),
        (True, True, False, "active", "active"),
        (True, True, True, "pending", "pending"),
    ],
)
def test_the_lease_has_it_first(proven: bool, up: bool, idle: bool, in_lease: Any, shown: str) -> None:
    state = replace(UP, proven=proven, up=up, pods=replace(PODS, idle=idle))
    assert state.lease_status() == LeaseStatus(in_lease, 1, 2, ("9999/tcp",))
    status = state.status(100.0)
    assert status is not None
    assert status.state == shown
