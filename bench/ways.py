"""The ways to the cluster that are compared: ``kubectl port-forward``, and meshdev on each carrier."""

import json
import os
import subprocess
import sys
import time
from array import array
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from bench.measure import ECHO, HTTP, PLAIN_SINK, SOURCE, Endpoint

CARRIERS: Final = ("spdy", "websocket")
KUBECTL: Final = "kubectl port-forward"
_READY_SECONDS: Final = 20.0
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_ENTRY: Final = array("Q")
_PRESENT: Final = 1 << 63
_FRAME: Final = (1 << 55) - 1
#: Of user space, in pages: 2^47 bytes.
_ADDRESS_BITS: Final = 47 - 12
_MESHDEV: Final = str(Path(sys.executable).with_name("meshdev"))


def meshdev(*arguments: str) -> str:
    """Run a command of meshdev and return what it prints. Raises RuntimeError with its own words."""
    done = subprocess.run([_MESHDEV, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"meshdev {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def status() -> dict[str, Any]:
    """``meshdev status -o json``."""
    answer: dict[str, Any] = json.loads(meshdev("status", "-o", "json"))
    return answer


def kubectl(*arguments: str) -> str:
    """Run kubectl as the laptop's user."""
    return subprocess.run(["kubectl", *arguments], capture_output=True, text=True, check=True).stdout


@contextmanager
def port_forward(workload: str, ports: tuple[int, ...]) -> Iterator[dict[int, tuple[str, int]]]:
    """Local addresses of *ports* of a workload while the context lasts."""
    command = ["kubectl", "port-forward", workload, *(f":{port}" for port in ports)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            addresses: dict[int, tuple[str, int]] = {}
            deadline = time.monotonic() + _READY_SECONDS
            while process.stdout and len(addresses) < len(ports):
                # Forwarding from 127.0.0.1:40123 -> 7005
                line = process.stdout.readline()
                if not line or time.monotonic() > deadline:
                    raise RuntimeError(f"kubectl port-forward {workload} did not start")
                if line.startswith("Forwarding from 127.0.0.1:"):
                    local, _, remote = line.removeprefix("Forwarding from 127.0.0.1:").partition(" -> ")
                    addresses[int(remote)] = ("127.0.0.1", int(local))
            yield addresses
        finally:
            process.terminate()


@contextmanager
def by_kubectl() -> Iterator[Endpoint]:
    """The endpoint through ``kubectl port-forward``, one process a workload, as a user would start them."""
    with ExitStack() as stack:
        bulk = stack.enter_context(port_forward("deployment/bulk", (PLAIN_SINK, SOURCE, ECHO)))
        web = stack.enter_context(port_forward("deployment/c", (HTTP,)))
        yield Endpoint(bulk | web)


@contextmanager
def by_meshdev(carrier: str) -> Iterator[tuple[Endpoint, float]]:
    """The endpoint by the pods' own addresses through meshdev, and the seconds ``connect`` took."""
    since = time.perf_counter()
    meshdev("connect", "--carrier", carrier)
    seconds = time.perf_counter() - since
    try:
        bulk, web = _pod_address("bulk"), _pod_address("c")
        yield Endpoint({port: (bulk, port) for port in (PLAIN_SINK, SOURCE, ECHO)} | {HTTP: (web, HTTP)}), seconds
    finally:
        meshdev("disconnect")


def _pod_address(app: str) -> str:
    return kubectl("get", "pods", "-l", f"app={app}", "-o", "jsonpath={.items[0].status.podIP}")


def resident_mb(pid: int) -> float:
    """Resident memory of a process of this machine, in MB (proc(5): VmRSS)."""
    return _resident(Path(f"/proc/{pid}/status").read_text())


def together_mb(pids: Iterable[int]) -> float:
    """Resident memory of several processes, each page counted once, in MB. Needs root (proc_pid_pagemap(5))."""
    return len(set().union(*map(_frames, pids))) * _PAGE / 1e6


def _frames(pid: int) -> set[int]:
    """The page frames that a process has mapped and present."""
    found: set[int] = set()
    with Path(f"/proc/{pid}/pagemap").open("rb") as pagemap:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            begin, end = (int(address, 16) // _PAGE for address in line.split()[0].split("-"))
            if begin >> _ADDRESS_BITS:
                continue  # the kernel's vsyscall page
            pagemap.seek(begin * _ENTRY.itemsize)
            entries = array(_ENTRY.typecode, pagemap.read((end - begin) * _ENTRY.itemsize))
            found.update(entry & _FRAME for entry in entries if entry >= _PRESENT)
    return found


def tunnel_packets() -> int:
    """What has passed the laptop's TUN device, in both directions, as large as the kernel makes them (proc_net(5))."""
    lines = [line.split() for line in Path("/proc/net/dev").read_text().splitlines()]
    return sum(int(words[2]) + int(words[10]) for words in lines if words[0].startswith("meshdev"))


def manager_resident_mb() -> float:
    """Resident memory of the manager's tunnel process, in MB."""
    where = ["exec", "deployment/meshdev-traffic-manager", "-c", "tunnel", "--"]
    return _resident(kubectl(*where, "cat", "/proc/1/status"))


def _resident(text: str) -> float:
    (line,) = (line for line in text.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024 / 1e6


def machine() -> str:
    """What the figures were measured on."""
    return f"{os.uname().sysname} {os.uname().release}, {os.cpu_count()} cores, Python {sys.version.split()[0]}"
