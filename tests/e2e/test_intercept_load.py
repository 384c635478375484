"""Under load: what comes and goes, is scaled, killed and stopped costs no request but those in its own hands."""

import os
import re
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from http.client import OK
from typing import Final

import pytest

from meshdev.config import MANAGER_NAME
from tests.cluster.manifests import HTTP, App
from tests.e2e import pods, workloads
from tests.e2e.conftest import Laptop, control, kubectl, until
from tests.e2e.intercepting import LOCAL, ask, counts, intercepted, local, up
from tests.e2e.loading import Load, Plan, Row, loading
from tests.e2e.workloads import CLIENT, GRPC

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

NAMESPACE: Final = "intercept-load"
B: Final = App("b", ("--name=b", "--port=8080", "--grpc-port=50051"), (HTTP, GRPC), replicas=2)
#: 200 requests a second.
PLAN: Final = Plan(f"b.{NAMESPACE}", new=60, kept=60, pool=60, grpc=20)
#: Issue: 50 busy connections, and nothing else.
BUSY: Final = Plan(f"b.{NAMESPACE}", new=0, kept=100, connections=50, pool=0, grpc=0)
#: No HTTP/2, of which Envoy has all connections.
HTTP1: Final = Plan(f"b.{NAMESPACE}", new=60, kept=60, pool=60, grpc=0)
LOAD_SECONDS: Final = 60.0
#: Issue: how soon what is claimed is served again after what it needs is back.
BACK_SECONDS: Final = 3.0
#: What may fail around a death: what was on its way. Its time is known only so well.
SLACK_SECONDS: Final = 0.1


@pytest.fixture(scope="module")
def there(cluster: None) -> Iterator[str]:  # noqa: ARG001 -- for its effect
    made = workloads.of(B, NAMESPACE)
    with workloads.namespace(NAMESPACE, workloads.says_its_pod(made[0]), made[1]) as name:
        until("kube-proxy knows the pods", lambda: ask(name, (f"http://b.{name}/", {}))[0][0] == OK)
        yield name


def scale(replicas: int) -> None:
    kubectl("-n", NAMESPACE, "scale", "deployment/b", "--replicas", str(replicas))
    kubectl("-n", NAMESPACE, "rollout", "status", "deployment/b", "--timeout=60s")
    until("as many pods as wanted", lambda: len(pods.identities(NAMESPACE, "app=b")) == replicas)


def everybody() -> list[str]:
    """Those that are on their way out, too."""
    return kubectl("-n", NAMESPACE, "get", "pods", "-l", "app=b", "-o", "name").split()


def acked(laptop: Laptop, total: int) -> bool:
    """All pods there are have the route."""
    found = [each["pods"] for each in laptop.status()["intercepts"]]
    return found == [{"acked": total, "total": total}]


@pytest.mark.usefixtures("there")
def test_without_meshdev() -> None:
    """The same scaling: what fails here is not meshdev's."""
    scale(2)
    with loading(CLIENT, NAMESPACE, PLAN) as load:
        load.until_asked(200)
        scale(4)
        load.until_asked(400)
        scale(1)
        until("the others are gone", lambda: len(everybody()) == 1)
        load.until_asked(200)
    print(load.summary())
    # A server of gRPC for Python that stops cancels the calls that it has not begun with.
    assert [row for row in load.failures if not row.said.startswith("!CANCELLED")] == []


@pytest.mark.usefixtures("there")
def test_busy_connections_while_a_sidecar_enters_and_leaves(laptop: Laptop) -> None:
    scale(2)
    with (
        laptop.connected(),
        local(laptop, "--port=8080", "--grpc-port=50051"),
        loading(CLIENT, NAMESPACE, BUSY) as load,
    ):
        with intercepted(laptop, "mesh", "deployment/b", NAMESPACE, "-H", "a=1"):
            assert counts(laptop, "deployment/b")["older"] >= BUSY.connections
            assert not {row.said for row in load.rows} & {LOCAL}
            load.renew()
            through = time.time()
            load.answered(LOCAL, matched=True, since=through, kinds=("kept",))
        load.answered("b", matched=True, since=time.time(), kinds=("kept",))
        load.until_asked(200)
    print(load.summary())
    assert load.failures == []
    assert len({row.connection.partition(".")[0] for row in load.since(through)}) >= BUSY.connections


@pytest.mark.usefixtures("there")
def test_who_claimed_nothing_does_not_notice_that_envoy_is_killed_again_and_again(laptop: Laptop) -> None:
    scale(2)
    with (
        laptop.connected(),
        local(laptop, "--port=8080", "--grpc-port=50051"),
        loading(CLIENT, NAMESPACE, HTTP1) as load,
        intercepted(laptop, "mesh", "deployment/b", NAMESPACE, "-H", "a=1"),
    ):
        story = Story(load)
        load.renew()
        everybody_is_right(load)
        for pod in 3 * pods.pods(NAMESPACE, "app=b"):
            killed = time.time()
            pods.kill(pod, pods.ENVOY)
            story.died("Envoy", killed, time.time(), matched_only=True)
            load.answered(LOCAL, matched=True, since=time.time())
        killed = time.time()
        pods.kill(pod, pods.WORKER)
        story.died("the worker", killed, time.time(), matched_only=False, pod=pod["metadata"]["name"])
        load.until_asked(400)
        everybody_is_right(load)
    story.judge()


class Story:
    """What happened when: what was killed at which moment, and whose requests that may cost."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self.begun = time.time()
        self._deaths: list[tuple[str, float, float, bool]] = []
        self._ended: list[tuple[str, float, str]] = []

    def say(self, what: str) -> None:
        print(f"{time.time() - self.begun:5.1f} s  {what}")

    def died(self, what: str, after: float, before: float, *, matched_only: bool, pod: str = "") -> None:
        """The death of *what* was between these moments; *pod* is where clients' connections ended with it."""
        self.say(f"{what} is dead")
        self._deaths.append((what, after, before, matched_only))
        if pod:
            self._ended.append((what, before, pod))

    def excused(self, row: Row) -> str | None:
        """The process in whose hands the request was."""
        for what, after, before, matched_only in self._deaths:
            on_its_way = row.start < before + SLACK_SECONDS and row.end > after - SLACK_SECONDS
            if on_its_way and (row.matched or not matched_only):
                return what
        # A connection ends with the process that held it: whoever keeps it learns that once, at the latest by asking.
        for what, before, pod in self._ended:
            number = row.connection.partition(".")[0]
            kept = [each for each in self._load.rows if each.connection.partition(".")[0] == number]
            if row.start > before and any(each.said == pod and each.start < before for each in kept):
                return f"{what} ({row.kind} connection)"
        return None

    def judge(self) -> None:
        """Whatever failed was in a dead process's hands."""
        print(self._load.summary())
        failures = [(self.excused(row), row) for row in self._load.failures]
        for excuse, row in failures:
            before = {
                each.said for each in self._load.rows if each.connection.split(".")[0] == row.connection.split(".")[0]
            }
            print(f"{row.start - self.begun:7.2f}–{row.end - self.begun:.2f} s, {excuse or 'NOBODY'}: {row}", before)
        if any(excuse is None for excuse, _ in failures):
            print(f"it began at {datetime.fromtimestamp(self.begun, UTC).isoformat()}", *pods.logs(NAMESPACE), sep="\n")
        assert [row for excuse, row in failures if excuse is None] == []


@pytest.mark.usefixtures("there")
def test_everything_happens(laptop: Laptop, laptop2: Laptop) -> None:
    """One minute with 200 requests a second."""
    scale(2)
    laptop.meshdev("connect")
    with (
        laptop2.connected(),
        local(laptop, "--port=8080", "--grpc-port=50051") as program,
        local(laptop2, "--port=8080", "--grpc-port=50051", name="local-2"),
        loading(CLIENT, NAMESPACE, PLAN) as load,
    ):
        story = Story(load)
        up(laptop, "mesh", "deployment/b", NAMESPACE, "-H", "a=1")
        story.say("intercepted")
        load.renew()
        everybody_is_right(load)

        program.stop()
        story.say("B' is stopped")
        load.answered("b", matched=True, since=time.time())
        program.start()
        story.say("B' is started")
        everybody_is_right(load)

        with intercepted(laptop2, "mesh", "deployment/b", NAMESPACE, "-H", "a=1", "-H", "b=2"):
            story.say("another one came")
        story.say("the other one left")

        scale(4)
        until("all four are joined", lambda: acked(laptop, 4))
        story.say("4 pods")

        there = pods.pods(NAMESPACE, "app=b")
        killed = time.time()
        pods.kill(there[0], pods.ENVOY)
        story.died("Envoy", killed, time.time(), matched_only=False, pod=there[0]["metadata"]["name"])
        until("Envoy is back", lambda: pods.redirects(there[0]), 15)

        killed = time.time()
        pods.kill(there[1], pods.AGENT)
        story.died("the agent", killed, time.time(), matched_only=False, pod=there[1]["metadata"]["name"])
        until("another one has joined", lambda: sidecar_is_another(there[1]), 20)
        story.say("another one has joined")
        load.renew()  # what was opened in between stays with the original
        everybody_is_right(load)

        scale(1)
        # A request that falls back needs another connection to the app, and one that ends accepts none.
        until("the others are gone", lambda: len(everybody()) == 1)
        story.say("1 pod")

        kill_manager(story)
        until("connected again", lambda: laptop.status()["state"] == "connected", 30)
        until("the pod is joined again", lambda: acked(laptop, 1), 20)
        story.say("connected again")
        everybody_is_right(load)

        killed = time.time()
        os.kill(laptop.status()["pids"]["session"], signal.SIGKILL)
        answered = load.answered("b", matched=True, since=killed, seconds=15)
        # Connections to the laptop are used again: until the manager withdraws its claims, requests may go there.
        story.died("the session", killed, answered, matched_only=True)
        story.say(f"all is at the original, after {answered - killed:.1f} s")
        load.until_asked(400)
        until("it has been long enough", lambda: time.time() > story.begun + LOAD_SECONDS, LOAD_SECONDS)
    story.judge()
    kubectl("-n", NAMESPACE, "delete", "leases", "--all")


@pytest.mark.usefixtures("there")
def test_parts_of_the_manager_and_the_api_server_end(laptop: Laptop) -> None:
    """What is claimed may fail with the relay that had it; nothing else does, and all is back soon after its part."""
    scale(2)
    with (
        laptop.connected(),
        local(laptop, "--port=8080", "--grpc-port=50051"),
        loading(CLIENT, NAMESPACE, PLAN) as load,
    ):
        story = Story(load)
        up(laptop, "mesh", "deployment/b", NAMESPACE, "-H", "a=1")
        load.renew()
        everybody_is_right(load)
        for part in ("relay", "control"):
            (pod,) = pods.pods("default", f"app.kubernetes.io/name={MANAGER_NAME}")
            killed = time.time()
            pods.kill(pod, re.compile(rf"meshdev\.manager\.{part}"))
            story.died(f"the container {part}", killed, time.time(), matched_only=True)
            runs = until(f"{part} runs again", partial(has_another, pod, part, killed), 30)
            load.answered(LOCAL, matched=True, since=runs, seconds=BACK_SECONDS)
            until("both pods are reported", partial(acked, laptop, 2), 10)
            story.say(f"{part} is back")
        control("restart", "apiserver", timeout=120)
        story.say("the API server was restarted")
        everybody_is_right(load)
        assert acked(laptop, 2)
    story.judge()


def has_another(pod: pods.Pod, container: str, since: float) -> float | None:
    """When the container was found to run again."""
    (now,) = pods.pods("default", f"app.kubernetes.io/name={MANAGER_NAME}")
    assert now["metadata"]["uid"] == pod["metadata"]["uid"]
    (status,) = (each for each in now["status"]["containerStatuses"] if each["name"] == container)
    started = (status["state"].get("running") or {}).get("startedAt", "")
    runs = bool(started) and datetime.fromisoformat(started).timestamp() >= int(since)
    return time.time() if runs and status["restartCount"] else None


def everybody_is_right(load: Load) -> None:
    """Requests that begin now: with the header the laptop, without it the original."""
    since = time.time()
    load.answered(LOCAL, matched=True, since=since)
    load.answered("b", matched=False, since=since)


def sidecar_is_another(pod: pods.Pod) -> bool:
    """Its rules are there, and they are not the dead one's."""
    (now,) = (each for each in pods.pods(NAMESPACE, "app=b") if each["metadata"]["uid"] == pod["metadata"]["uid"])
    running = [name for name, state in pods.sidecars(now).items() if state == "running"]
    return running not in ([], ["meshdev-1"]) and bool(pods.redirects(pod))


def kill_manager(story: Story) -> None:
    (pod,) = pods.pods("default", f"app.kubernetes.io/name={MANAGER_NAME}")
    running = pods.processes(pod)
    killed = time.time()
    kubectl("delete", "pod", pod["metadata"]["name"], "--wait=false")
    until("the manager's processes are gone", lambda: not pods.processes(pod).keys() & running.keys(), 15)
    story.died("the manager", killed, time.time(), matched_only=True)
