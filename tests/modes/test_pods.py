"""When an intercept is up, and when waiting is of no use: watch and reports together."""

import re
from dataclasses import replace

import pytest

from meshdev.config import CONTROL_PORT, RELAYS_PORT
from meshdev.errors import ClusterError, ImageError, InterceptError, MeshdevError
from meshdev.kube.replicas import Replica, Sidecar
from meshdev.modes.pods import (
    ATTEST_SECONDS,
    FORMER_SECONDS,
    LEFT_SECONDS,
    LISTENER_SECONDS,
    MANAGER_SECONDS,
    SCHEDULE_SECONDS,
    SILENT_SECONDS,
    Pods,
)
from meshdev.wire.counts import InterceptCounts
from meshdev.wire.intercepts import Report

ID = f"{1:032x}"
RUNNING = Sidecar("meshdev-1", "ephemeral", "running", "10.96.0.5:15010", "default", "sidecar:1", workload="w")
ACKED = Report(ID, "b-1", "acked", return_path="open", up=1)


class World:
    """Pods, and a clock that is set."""

    def __init__(self, *replicas: Replica, tcp: bool = True) -> None:
        self.now = 100.0
        self.pods = Pods(lambda: self.now, "10.96.0.5:15010", "w", tcp=tcp)
        self.pods.watched({each.uid: each for each in replicas})

    def left(self) -> tuple[str, ...]:
        """Those that are left out once somebody has looked: a list says what the watch says."""
        if suspects := self.pods.suspects():
            self.pods.listed(self.pods._replicas, suspects)
        return self.pods.left()


def pod(name: str = "b-1", *sidecars: Sidecar, ready: bool = True, leaving: bool = False) -> Replica:
    return Replica("default", name, f"uid-{name}", "10.244.0.9", "node1", ready, leaving, sidecars)


def test_it_waits_step_by_step() -> None:
    world = World(pod())
    pods = world.pods
    assert pods.waiting(1) == "a sidecar in pod b-1"
    pods.watched({"uid-b-1": pod("b-1", replace(RUNNING, state="starting", reason="pulling"))})
    assert pods.waiting(1) == "the sidecar of pod b-1, which is starting: pulling"
    pods.reported(Report(ID, "b-1", "joined", "8080: no-envoy"))
    assert pods.waiting(1) == "pod b-1 to apply the intercept: 8080: no-envoy"
    pods.reported(replace(ACKED, up=0))
    assert pods.waiting(1) == "pod b-1 to apply the intercept"
    pods.reported(replace(ACKED, return_path="untried"))
    assert pods.waiting(1) == "pod b-1 to reach this machine"
    assert (pods.acked(1), pods.total) == (0, 1)
    pods.reported(ACKED)
    assert pods.waiting(1) is None
    assert (pods.acked(1), pods.total) == (1, 1)


def test_refused_is_no_proof_and_no_fault_once_it_was_seen_to_work() -> None:
    world = World(pod())
    world.pods.reported(replace(ACKED, return_path="refused"))
    assert world.pods.waiting(1) == "pod b-1 to reach this machine"
    world.pods.proven = True
    assert world.pods.waiting(1) is None
    assert world.pods.trouble() is None


def test_a_sidecar_of_a_former_manager_is_waited_for() -> None:
    former = replace(RUNNING, name="meshdev-1", manager="10.96.0.4:15010")
    world = World(pod("b-1", replace(RUNNING, name="meshdev-2"), former))
    assert world.pods.trouble() is None
    world.now += FORMER_SECONDS - 1
    assert world.pods.trouble() is None
    world.now += 2
    assert "meshdev-2" in str(world.pods.trouble())
    world.pods.watched({"uid-b-1": pod("b-1", former)})
    assert world.pods.waiting(1) == "a sidecar in pod b-1"


def test_once_the_other_sidecar_has_left_there_is_time_to_reach_the_manager() -> None:
    """What ours waited for it does not count: only now it can have the redirects, and says so to the manager."""
    other = replace(RUNNING, name="meshdev-1", workload="other")
    ours = replace(RUNNING, name="meshdev-2")
    world = World(pod("b-1", ours, other))
    assert world.pods.trouble() is None
    world.now += 30
    assert world.pods.trouble() is None
    world.pods.watched({"uid-b-1": pod("b-1", ours)})
    assert world.pods.trouble() is None
    world.now += MANAGER_SECONDS - 0.1
    assert world.pods.trouble() is None
    world.now += 0.2
    assert "meshdev-2 of pod b-1 runs and does not reach the manager" in str(world.pods.trouble())


def test_datagrams_alone_have_no_way_to_try() -> None:
    world = World(pod(), tcp=False)
    world.pods.reported(replace(ACKED, return_path="untried"))
    assert world.pods.waiting(1) is None


def test_ready_pods_count_and_where_there_is_none_those_that_stay() -> None:
    world = World(pod("b-1"), pod("b-2", ready=False), pod("b-3", leaving=True))
    world.pods.reported(ACKED)
    assert (world.pods.waiting(1), world.pods.total) == (None, 1)
    world.pods.watched({"uid-b-2": pod("b-2", ready=False)})
    assert world.pods.waiting(1) == "a sidecar in pod b-2"
    world.pods.watched({})
    assert world.pods.waiting(1) == "a pod"


@pytest.mark.parametrize(
    ("sidecar", "report", "seconds", "kind", "words"),
    [
        (RUNNING, None, MANAGER_SECONDS, InterceptError, "does not reach the manager at 10.96.0.5:15010"),
        (
            replace(RUNNING, state="starting", failed=True, reason="image not found", cause="ErrImagePull"),
            None,
            0,
            ImageError,
            "not found",
        ),
        (
            replace(
                RUNNING,
                state="starting",
                failed=True,
                reason="services have not yet been read",
                cause="CreateContainerConfigError",
            ),
            None,
            0,
            ClusterError,
            "cannot start",
        ),
        (RUNNING, replace(ACKED, state="nacked", text="bad re"), 0, InterceptError, "refuses the intercept: bad re"),
        (RUNNING, replace(ACKED, return_path="refused"), SILENT_SECONDS, InterceptError, "are refused there"),
        (
            RUNNING,
            replace(ACKED, return_path="silent"),
            SILENT_SECONDS,
            InterceptError,
            "reaches the manager but not this",
        ),
    ],
)
def test_what_cannot_come_up_is_told_in_time(
    sidecar: Sidecar, report: Report | None, seconds: float, kind: type[Exception], words: str
) -> None:
    world = World(pod("b-1", sidecar))
    if report is not None:
        world.pods.reported(report)
    first = world.pods.trouble()
    assert (first is None) == bool(seconds)
    world.now += max(0.0, seconds - 0.1)
    assert (world.pods.trouble() is None) == bool(seconds)
    world.now += 0.2
    error = world.pods.trouble()
    assert isinstance(error, kind)
    assert words in str(error)


@pytest.mark.parametrize(
    ("report", "ports"),
    [
        (None, {CONTROL_PORT, RELAYS_PORT}),
        (replace(ACKED, return_path="silent"), {RELAYS_PORT}),
        (replace(ACKED, return_path="refused"), {RELAYS_PORT}),
    ],
)
def test_the_ports_that_a_policy_has_to_allow_are_named(report: Report | None, ports: set[int]) -> None:
    world = World(pod("b-1", RUNNING))
    if report is not None:
        world.pods.reported(report)
    assert world.pods.trouble() is None
    world.now += max(MANAGER_SECONDS, SILENT_SECONDS) + 0.1
    error = world.pods.trouble()
    assert isinstance(error, MeshdevError)
    named = {int(number) for number in re.findall(r"\b[0-9]{5}\b", f"{error.message} {error.hint}")}
    assert named == ports


def test_trouble_that_passes_is_forgotten() -> None:
    world = World(pod("b-1", RUNNING))
    assert world.pods.trouble() is None
    world.now += MANAGER_SECONDS - 1
    world.pods.reported(ACKED)
    assert world.pods.trouble() is None
    world.pods.reported(replace(ACKED, state="gone"))
    world.now += 2
    assert world.pods.trouble() is None


def test_counts_never_go_back() -> None:
    world = World(pod("b-1"), pod("b-2"))
    pods = world.pods
    pods.reported(replace(ACKED, counts=InterceptCounts(5, 1, 2, 3)))
    pods.reported(replace(ACKED, pod="b-2", counts=InterceptCounts(7)))
    assert pods.counts == InterceptCounts(12, 1, 2, 3)
    pods.reported(replace(ACKED, counts=InterceptCounts(1)))  # its Envoy began anew
    assert pods.counts == InterceptCounts(13, 1, 2, 0)
    pods.reported(replace(ACKED, pod="b-2", state="gone"))
    assert pods.counts == InterceptCounts(13, 1, 2, 0)


def test_a_pod_that_is_none_of_its_own_any_more_is_left_out_until_it_is_again() -> None:
    world = World(pod(), pod("b-2"))
    for name in ("b-1", "b-2"):
        world.pods.reported(replace(ACKED, pod=name))
    assert world.pods.left() == ()
    world.pods.watched({"uid-b-1": pod()})
    assert world.left() == ()
    world.now += LEFT_SECONDS
    assert world.left() == ("b-2",)
    world.pods.reported(replace(ACKED, pod="b-2", state="gone"))
    assert world.pods.left() == ("b-2",)
    world.pods.watched({"uid-b-1": pod(), "uid-b-2": pod("b-2")})
    assert world.pods.left() == ()


def test_before_the_watch_has_told_anything_no_pod_is_left_out() -> None:
    pods = Pods(lambda: now, "10.96.0.5:15010", "w", tcp=True)
    now = 0.0
    pods.reported(ACKED)
    assert pods.suspects() == ()
    now = 10 * LEFT_SECONDS
    assert (pods.suspects(), pods.left()) == ((), ())


def test_a_port_without_a_listener_is_waited_for_a_moment_and_then_gone_on_without() -> None:
    world = World(pod(), pod("b-2"))
    world.pods.reported(replace(ACKED, pending=("9999",)))
    world.pods.reported(replace(ACKED, pod="b-2"))
    assert world.pods.waiting(1) == "something to listen on port 9999 of pod b-1"
    assert (world.pods.acked(1), world.pods.pending) == (1, {})
    world.now += LISTENER_SECONDS
    assert world.pods.waiting(1) is None
    assert (world.pods.acked(1), world.pods.total, world.pods.pending) == (1, 2, {"9999": 1})
    assert not world.pods.all_pending({"9999"})
    world.pods.reported(replace(ACKED, pod="b-2", pending=("9999",)))
    world.now += LISTENER_SECONDS
    assert (world.pods.acked(1), world.pods.pending) == (0, {"9999": 2})
    assert world.pods.all_pending({"9999"})
    assert not world.pods.all_pending({"9999", "8080"})
    world.pods.reported(ACKED)  # it listens
    assert (world.pods.acked(1), world.pods.pending) == (1, {"9999": 1})


def test_a_container_that_is_started_again_stays_acknowledged_for_a_moment() -> None:
    world = World(pod())
    world.pods.reported(ACKED)
    world.pods.reported(replace(ACKED, pending=("8080",)))
    world.now += LISTENER_SECONDS / 2
    world.pods.reported(replace(ACKED, pending=("8080",), counts=InterceptCounts(1)))
    assert (world.pods.acked(1), world.pods.pending) == (1, {})
    world.pods.reported(ACKED)
    world.now += LISTENER_SECONDS
    assert (world.pods.acked(1), world.pods.pending) == (1, {})
    world.pods.reported(replace(ACKED, pending=("8080",)))
    world.now += LISTENER_SECONDS
    assert (world.pods.acked(1), world.pods.pending) == (0, {"8080": 1})
    world.pods.reported(replace(ACKED, state="gone", pending=()))
    assert world.pods.pending == {}


def test_hints_fit_what_is_wrong_with_a_sidecar() -> None:
    def hint(*sidecars: Sidecar) -> str:
        world = World(pod("b-1", *sidecars))
        world.pods.trouble()
        world.now += FORMER_SECONDS
        error = world.pods.trouble()
        assert error is not None
        return error.hint or ""

    failed = replace(RUNNING, state="starting", failed=True)
    assert "--image" in hint(replace(failed, reason="no such image", cause="ErrImagePull"))
    assert hint(replace(failed, reason="no services", cause="CreateContainerConfigError")).startswith("kubectl -n def")
    assert "a NetworkPolicy may drop its egress" in hint(RUNNING)
    other = replace(RUNNING, name="meshdev-2", workload="other")
    assert hint(RUNNING, other).startswith("meshdev-2 in the same pod, of another manager or workload, does not end")


def test_pods_that_get_no_node_are_told_and_not_waited_for_long() -> None:
    stuck = replace(pod(ready=False), node="", stuck="it is not scheduled: 0/1 nodes are available")
    world = World(stuck)
    assert world.pods.waiting(1) == "pod b-1 to get a node; it is not scheduled: 0/1 nodes are available"
    assert world.pods.trouble() is None
    world.now += SCHEDULE_SECONDS
    error = world.pods.trouble()
    assert error is not None
    assert "no pod runs; of pod b-1: it is not scheduled" in error.message
    assert error.hint == "kubectl -n default describe pod b-1"
    world.pods.watched({"1": stuck, "2": pod("b-2")})  # one that counts is enough
    assert world.pods.trouble() is None
    assert World().pods.waiting(1) == "a pod"


def test_why_a_container_does_not_listen() -> None:
    world = World(replace(pod(), stuck="its container b waits: CrashLoopBackOff"))
    world.pods.reported(replace(ACKED, pending=("8080",)))
    assert world.pods.stuck() == ""
    world.now += LISTENER_SECONDS
    assert world.pods.stuck() == "pod b-1: its container b waits: CrashLoopBackOff"
    world.pods.reported(ACKED)
    assert world.pods.stuck() == ""


def test_while_the_watch_is_interrupted_no_more_pods_are_left_out() -> None:
    world = World(pod(), pod("b-2"))
    for name in ("b-1", "b-2"):
        world.pods.reported(replace(ACKED, pod=name))
    world.pods.watched({"uid-b-1": pod()})
    world.left()
    world.now += LEFT_SECONDS
    assert world.left() == ("b-2",)
    world.pods.unwatched()
    world.pods.reported(replace(ACKED, pod="b-3"))  # a new one of the workload's, as far as anybody knows
    assert world.left() == ("b-2",)
    world.now += 10 * LEFT_SECONDS
    assert world.left() == ("b-2",)
    world.pods.watched({"uid-b-1": pod()})
    assert world.left() == ("b-2",)
    world.now += LEFT_SECONDS
    assert world.left() == ("b-2", "b-3")


def test_a_pod_of_which_a_dead_watch_does_not_tell_is_not_left_out() -> None:
    world = World(pod())
    for name in ("b-1", "b-2", "b-3"):
        world.pods.reported(replace(ACKED, pod=name))
    assert world.pods.suspects() == ()
    world.now += LEFT_SECONDS
    assert world.pods.suspects() == ("b-2", "b-3")
    assert world.pods.left() == (), "nobody has looked"
    world.pods.reported(replace(ACKED, pod="b-4"))  # after the list began
    world.pods.listed({each.uid: each for each in (pod(), pod("b-2"))}, ("b-2", "b-3"))
    assert world.pods.left() == ("b-3",)
    assert (world.pods.suspects(), world.pods.acked(1), world.pods.total) == ((), 2, 2)


def test_an_agent_that_is_not_attested_is_told_with_the_reason() -> None:
    world = World(pod("b-1", RUNNING))
    world.pods.unknown({"b-1": ""})
    assert world.pods.waiting(1) == "the sidecar of pod b-1, which is running"
    world.pods.unknown({"b-1": "port 16200 does not answer"})
    assert world.pods.waiting(1) == "the sidecar of pod b-1, which is running: port 16200 does not answer"
    assert world.pods.trouble() is None
    world.now += ATTEST_SECONDS
    error = world.pods.trouble()
    assert error is not None
    assert "b-1 runs, and its agent is not attested: port 16200 does not answer" in error.message
    assert error.hint == "kubectl -n default logs b-1 -c meshdev-1"
    world.pods.unknown({})  # from now on it has its time to reach the manager
    assert world.pods.trouble() is None
    world.now += MANAGER_SECONDS
    assert "does not reach the manager" in str(world.pods.trouble())
