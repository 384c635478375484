"""What intercepts are measured on: workloads of the sample in a namespace that goes afterwards, and their processes."""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.ways import kubectl

NAMESPACE: Final = "bench"
CLIENT: Final = "client"
ORIGINAL: Final = "original"
LOCAL: Final = "local"
#: The app listens on both; only the first is intercepted.
INTERCEPTED: Final = 8080
BARE: Final = 8081
#: Of a target with several ports.
PORT_FLAG: Final = f"{INTERCEPTED}:{INTERCEPTED}"

_IMAGE: Final = "localhost/meshdev-sample:1"
_READY_SECONDS: Final = 60.0
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_AGENT: Final = re.compile(r"meshdev\.sidecar\.agent")
_WORKER: Final = re.compile(r"meshdev\.sidecar\.worker")
_ENVOY: Final = re.compile(r"^\S*envoy ")
_APP: Final = re.compile(r"tests\.cluster\.sample")

Object = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod of a workload."""

    name: str
    uid: str
    address: str
    restarts: int


@contextmanager
def namespace(*workloads: tuple[str, int]) -> Iterator[None]:
    """The workloads (name, replicas) and a client, ready; all of it goes with the context."""
    kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found")
    kubectl("create", "namespace", NAMESPACE)
    try:
        items = [_client(), *(_deployment(name, replicas) for name, replicas in workloads)]
        _apply({"apiVersion": "v1", "kind": "List", "items": items})
        wait = ("wait", "-n", NAMESPACE, f"--timeout={_READY_SECONDS:.0f}s", "--for=condition=ready")
        kubectl(*wait, "pod", CLIENT)
        for name, _ in workloads:
            kubectl("-n", NAMESPACE, "rollout", "status", f"deployment/{name}", f"--timeout={_READY_SECONDS:.0f}s")
        yield
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def pods(workload: str | None = None) -> list[Pod]:
    """The pods of a workload, or of all of them."""
    chosen = ("-l", f"app={workload}" if workload else "app")
    items = json.loads(kubectl("-n", NAMESPACE, "get", "pods", *chosen, "-o", "json"))["items"]
    return [
        Pod(
            each["metadata"]["name"],
            each["metadata"]["uid"],
            each["status"]["podIP"],
            sum(state["restartCount"] for state in each["status"]["containerStatuses"]),
        )
        for each in items
    ]


def until(what: str, condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for *condition*. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)


@dataclass(frozen=True)
class Processes:
    """The app and its sidecar. The node is this machine, so they are in /proc here."""

    app: int
    agent: int
    worker: int
    envoy: int

    @classmethod
    def of(cls, pod: Pod) -> "Processes":
        """Those of a pod with a sidecar."""
        found = _processes(pod.uid)

        def one(pattern: re.Pattern[str]) -> int:
            (pid,) = (pid for pid, line in found.items() if pattern.search(line))
            return pid

        return cls(one(_APP), one(_AGENT), one(_WORKER), one(_ENVOY))


def pid_in(pod: str) -> int:
    """A process in the pod of that name, to enter its network by."""
    uid = kubectl("-n", NAMESPACE, "get", "pod", pod, "-o", "jsonpath={.metadata.uid}")
    return next(iter(_processes(uid)))


def listening(pid: int, ports: Iterable[int]) -> bool:
    """Whether somebody listens on all of *ports* in the network of *pid* (proc_net(5): tcp, state 0A)."""
    files = (Path(f"/proc/{pid}/net/{kind}") for kind in ("tcp", "tcp6"))
    words = [line.split() for file in files for line in file.read_text().splitlines()]
    found = {int(each[1].rpartition(":")[2], 16) for each in words if each[3] == "0A"}
    return found.issuperset(ports)


def cpu_seconds(pid: int) -> float:
    """What a process has used (proc(5): utime and stime)."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / _TICKS


def busy_seconds() -> float:
    """What everybody has used of this machine, its kernel too (proc(5), "cpu": all but idle, iowait and guest)."""
    words = Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    return sum(int(word) for number, word in enumerate(words) if number not in {3, 4}) / _TICKS


def image_mb() -> float:
    """The files of the image that manager and sidecars run, in MB."""
    where = ["-n", manager_namespace(), "exec", "deployment/meshdev-traffic-manager", "-c", "tunnel", "--"]
    return int(kubectl(*where, "du", "-sx", "--block-size=1", "/").split()[0]) / 1e6


def manager_namespace() -> str:
    """Where it was installed by ``meshdev connect``: the namespace of the context."""
    return "default"


def _processes(uid: str) -> dict[int, str]:
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if uid in (folder / "cgroup").read_text():
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(folder.name)] = line.decode(errors="replace")
        except OSError:
            continue  # it ended meanwhile
    return found


def _apply(manifest: Object) -> None:
    subprocess.run(
        ["kubectl", "apply", "-f", "-"], input=json.dumps(manifest), text=True, check=True, stdout=subprocess.DEVNULL
    )


def _client() -> Object:
    sleeper = {"name": CLIENT, "image": _IMAGE, "imagePullPolicy": "Never", "command": ["sleep", "infinity"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": CLIENT, "namespace": NAMESPACE},
        "spec": {"enableServiceLinks": False, "terminationGracePeriodSeconds": 0, "containers": [sleeper]},
    }


def _deployment(name: str, replicas: int) -> Object:
    app = {
        "name": "app",
        "image": _IMAGE,
        "imagePullPolicy": "Never",
        "args": [f"--name={ORIGINAL}", f"--port={INTERCEPTED}", f"--port={BARE}"],
        "ports": [{"name": "http", "containerPort": INTERCEPTED}, {"name": "http-bare", "containerPort": BARE}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": BARE}, "periodSeconds": 1},
    }
    spec = {"enableServiceLinks": False, "terminationGracePeriodSeconds": 1, "containers": [app]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
        },
    }
