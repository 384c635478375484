"""Pods from outside and from inside: what Kubernetes says of them, and their processes and nft tables on the node.

The node is this machine, so a pod's processes are in /proc here; its kernel tables are read through one of them.
"""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from meshdev.wire.attestation import AgentAnnouncement, parse_announcement
from tests.e2e.conftest import kubectl, until

Pod = dict[str, Any]

_OURS: Final = re.compile(r"meshdev(-[0-9]+)?")
_LISTENERS: Final = re.compile(r"map (tcp|udp)_listeners {.*?elements = {(.*?)}", re.DOTALL)
_LISTENER: Final = re.compile(r"(\d+) : (\d+)")
AGENT: Final = re.compile(r"meshdev\.sidecar\.agent")
ENVOY: Final = re.compile(r"^\S*envoy ")
WORKER: Final = re.compile(r"meshdev\.sidecar\.worker")


def pods(namespace: str, selector: str = "") -> list[Pod]:
    """Those that are not on their way out."""
    chosen = ("-l", selector) if selector else ()
    listed = json.loads(kubectl("-n", namespace, "get", "pods", *chosen, "-o", "json"))["items"]
    return [pod for pod in listed if not pod["metadata"].get("deletionTimestamp")]


def identities(namespace: str, selector: str = "") -> dict[str, tuple[str, int]]:
    """Uid and restarts of each pod, by name: equal when nothing was restarted or replaced."""
    return {
        pod["metadata"]["name"]: (
            pod["metadata"]["uid"],
            sum(each["restartCount"] for each in pod["status"].get("containerStatuses") or []),
        )
        for pod in pods(namespace, selector)
    }


def sidecars(pod: Pod) -> dict[str, str]:
    """Our containers in it: name → waiting, running, terminated."""
    status = pod["status"]
    every = (status.get("ephemeralContainerStatuses") or []) + (status.get("initContainerStatuses") or [])
    return {each["name"]: next(iter(each["state"]), "") for each in every if _OURS.fullmatch(each["name"])}


def running_sidecars(namespace: str, selector: str = "") -> list[str]:
    """``POD/CONTAINER`` of each that runs or is about to."""
    return [
        f"{pod['metadata']['name']}/{name}"
        for pod in pods(namespace, selector)
        for name, state in sidecars(pod).items()
        if state != "terminated"
    ]


def processes(pod: Pod) -> dict[int, str]:
    """pid → command line of everything in the pod."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if pod["metadata"]["uid"] in (folder / "cgroup").read_text():
                found[int(folder.name)] = (
                    (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                )
        except OSError:
            continue  # it ended meanwhile
    return found


def process(pod: Pod, pattern: re.Pattern[str]) -> int:
    """The only process of the pod with that command line."""

    def one() -> int | None:
        found = [pid for pid, line in processes(pod).items() if pattern.search(line)]
        return found[0] if len(found) == 1 else None

    pid: int = until(f"one process {pattern.pattern} in {pod['metadata']['name']}: {processes(pod)}", one, 5)
    return pid


def kill(pod: Pod, pattern: re.Pattern[str]) -> None:
    """SIGKILL."""
    os.kill(process(pod, pattern), signal.SIGKILL)


def inside(pod: Pod, *command: str, stdin: str | None = None) -> str:
    """Run a program of this machine in the pod's network."""
    for pid in processes(pod):  # one of them may end at this very moment
        done = subprocess.run(
            ["nsenter", f"--net=/proc/{pid}/ns/net", *command],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
        if "cannot open /proc" not in done.stderr:
            assert done.returncode == 0, f"{command}: {done.stderr}"
            return done.stdout
    raise AssertionError(f"{pod['metadata']['name']} has no process")


def redirects(pod: Pod) -> dict[str, int]:
    """``8080/tcp`` → the port to which new connections are led; none without a sidecar."""
    found = _LISTENERS.findall(inside(pod, "nft", "list", "ruleset"))
    return {f"{port}/{kind}": int(to) for kind, listeners in found for port, to in _LISTENER.findall(listeners)}


def tables(pod: Pod) -> list[str]:
    """The nft tables in the pod's network."""
    return inside(pod, "nft", "list", "tables").splitlines()


def announcement(pod: Pod) -> AgentAnnouncement:
    """Of the agent in the pod's sidecar that runs, in its log: kubelets know of it up to a second later than we."""
    found: AgentAnnouncement = until("an agent announces itself in a log", lambda: _announced(pod), 5)
    return found


def _announced(pod: Pod) -> AgentAnnouncement | None:
    namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    now = json.loads(kubectl("-n", namespace, "get", "pod", name, "-o", "json"))
    running = [each for each, state in sidecars(now).items() if state == "running"]
    lines = kubectl("-n", namespace, "logs", name, "-c", running[0]).encode().splitlines() if running else []
    return next(filter(None, map(parse_announcement, lines)), None)


def logs(namespace: str) -> Iterator[str]:
    """Of all sidecars there, ended ones too, for people who read a failed test."""
    for pod in pods(namespace):
        for name, state in sidecars(pod).items():
            yield f"--- {pod['metadata']['name']}, {name}, {state}"
            yield kubectl("-n", namespace, "logs", pod["metadata"]["name"], "-c", name, "--timestamps")


def addresses(namespace: str, selector: str = "") -> list[str]:
    """Each pod's."""
    return [pod["status"]["podIP"] for pod in pods(namespace, selector)]


def memory_kib(pod: Pod, pattern: re.Pattern[str]) -> int:
    """Resident memory of the pod's process with that command line."""
    status = Path(f"/proc/{process(pod, pattern)}/status").read_text()
    (resident,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return resident
