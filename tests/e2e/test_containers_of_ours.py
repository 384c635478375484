"""The containers that meshdev brings into a cluster: what they may, and what becomes of one that hangs."""

import os
import re
import signal
import time
from pathlib import Path
from typing import Final

import pytest

from meshdev.config import MANAGER_NAME
from tests.e2e import pods, workloads
from tests.e2e.conftest import Laptop, kubectl, until
from tests.e2e.intercepting import A1, LOCAL, answers, ask, intercepted, local
from tests.e2e.workloads import http, of

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

NAMESPACE: Final = "hardened"
_NET_ADMIN: Final = 1 << 12
TUNNEL: Final = re.compile(r"meshdev\.manager\.tunnel")
CONTROL: Final = re.compile(r"meshdev\.manager\.control")
RELAY: Final = re.compile(r"meshdev\.manager\.relay")
#: Three probes ten seconds apart, the last of which may wait ten seconds for its answer; then the restart.
RESTART_SECONDS: Final = 75.0
AGAIN_SECONDS: Final = 20.0


def manager() -> pods.Pod:
    (pod,) = pods.pods("default", f"app.kubernetes.io/name={MANAGER_NAME}")
    return pod


def capabilities(pod: pods.Pod, pattern: re.Pattern[str]) -> list[int]:
    """Effective, permitted and inheritable ones of the pod's process with that command line, as the kernel has them."""
    status = Path(f"/proc/{pods.process(pod, pattern)}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    lines = dict(line.split(":", 1) for line in status.splitlines())
    return [int(lines[name], 16) for name in ("CapEff", "CapPrm", "CapInh")]


def root_is_read_only(pod: pods.Pod, pattern: re.Pattern[str]) -> bool:
    """Of the container with that process."""
    mounts = Path(f"/proc/{pods.process(pod, pattern)}/mounts").read_text().splitlines()
    (options,) = (fields[3] for fields in map(str.split, mounts) if fields[1] == "/")
    return "ro" in options.split(",")


@pytest.mark.parametrize("strategy", ["ephemeral", "patch"])
def test_each_has_what_it_needs_and_writes_nowhere_else(laptop: Laptop, strategy: str) -> None:
    with workloads.namespace(NAMESPACE, *of(http("b", 1), NAMESPACE)), local(laptop), laptop.connected():
        flags = ("-H", "a=1", "--strategy", strategy)
        with intercepted(laptop, "mesh", "deploy/b", NAMESPACE, *flags):
            # After a rollout the nodes may lead to the former pod for a moment.
            answers(NAMESPACE, f"http://b.{NAMESPACE}/", A1, [LOCAL])
            (joined,) = pods.pods(NAMESPACE, "app=b")
            found = {
                "tunnel": capabilities(manager(), TUNNEL),
                "control": capabilities(manager(), CONTROL),
                "relay": capabilities(manager(), RELAY),
                "agent": capabilities(joined, pods.AGENT),
                "envoy": capabilities(joined, pods.ENVOY),
            }
            assert found["tunnel"] == found["agent"] == [_NET_ADMIN, _NET_ADMIN, 0]
            assert found["control"] == found["relay"] == found["envoy"] == [0, 0, 0]
            for pod, pattern in (*((manager(), each) for each in (TUNNEL, CONTROL, RELAY)), (joined, pods.AGENT)):
                assert root_is_read_only(pod, pattern)


def restarts(container: str) -> int:
    found: list[int] = [
        each["restartCount"] for each in manager()["status"]["containerStatuses"] if each["name"] == container
    ]
    return found[0]


@pytest.mark.parametrize(("container", "pattern"), [("tunnel", TUNNEL), ("control", CONTROL), ("relay", RELAY)])
def test_one_that_hangs_is_restarted_and_everything_goes_on(
    laptop: Laptop, container: str, pattern: re.Pattern[str]
) -> None:
    with workloads.namespace(NAMESPACE, *of(http("b", 1), NAMESPACE)), local(laptop), laptop.connected():
        address, pod = laptop.status()["address"], manager()["metadata"]["name"]
        with intercepted(laptop, "mesh", "deploy/b", NAMESPACE, "-H", "a=1"):
            url = f"http://b.{NAMESPACE}/"
            assert ask(NAMESPACE, (url, A1)) == [(200, LOCAL)]
            before, began = restarts(container), time.monotonic()
            os.kill(pods.process(manager(), pattern), signal.SIGSTOP)
            until(f"{container} is restarted", lambda: restarts(container) > before, RESTART_SECONDS)
            print(f"\n{container} is restarted after {time.monotonic() - began:.1f} s")
            assert ask(NAMESPACE, (url, {})) == [(200, "b")]
            until("connected", lambda: laptop.status()["state"] == "connected", AGAIN_SECONDS)
            until("the laptop answers", lambda: ask(NAMESPACE, (url, A1)) == [(200, LOCAL)], AGAIN_SECONDS)
            print(f"the laptop answers again after {time.monotonic() - began:.1f} s")
            assert (laptop.status()["address"], manager()["metadata"]["name"]) == (address, pod)
        events = kubectl("get", "events", "--field-selector", f"involvedObject.name={pod}")
        assert f"Container {container} failed liveness probe" in events
