"""Requests that nobody claims, through the sidecar and to the bare app: two ports of one program in one pod, in turn.

The app is Python and takes most of the time, so the ratio says what a sidecar costs an app like it; the cores that app,
Envoy and load generator took say what was the limit. Matched requests go the whole way to the laptop and back.
"""

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bench import target, ways
from bench.client import Headers, Pressed, Pressing, pressing_from_a_pod
from bench.figures import Figure
from bench.target import BARE, INTERCEPTED, LOCAL, NAMESPACE, ORIGINAL, PORT_FLAG, Processes, cpu_seconds
from bench.ways import meshdev

CONNECTIONS: Final = (1, 16, 64)
_ORDINARY: Final = (("User-Agent", "bench"), ("Accept", "*/*"))
_MATCHED: Final = (*_ORDINARY, ("a", "1"))


@dataclass(frozen=True)
class Way:
    """One of the ways that are compared."""

    name: str
    port: int
    headers: Headers
    answered_by: str


_BARE: Final = Way("bare", BARE, _ORDINARY, ORIGINAL)
_UNMATCHED: Final = Way("unmatched", INTERCEPTED, _ORDINARY, ORIGINAL)
_TO_LAPTOP: Final = Way("matched", INTERCEPTED, _MATCHED, LOCAL)


def measure(workload: str, rounds: int, seconds: float, connections: Sequence[int] = CONNECTIONS) -> dict[str, Figure]:
    """Intercept the workload's only pod and press on it."""
    flags = ("-n", NAMESPACE, "-H", "a=1", "--port", PORT_FLAG, "--detach")
    meshdev("mesh", f"deployment/{workload}", *flags)
    (pod,) = target.pods(workload)
    processes = Processes.of(pod)
    figures: dict[str, Figure] = defaultdict(Figure)
    with pressing_from_a_pod() as pressing:
        for many in connections:
            for number in range(rounds):
                pair = [_BARE, _UNMATCHED] if number % 2 else [_UNMATCHED, _BARE]
                came = {
                    path.name: _press(pressing, pod.address, path, many, seconds, processes, figures)
                    for path in (*pair, _TO_LAPTOP)
                }
                _compare(came, many, figures)
                if many == max(connections):
                    _memory(processes, figures)
    meshdev("leave", f"deployment/{workload}", "-n", NAMESPACE)
    return dict(figures)


def _press(
    pressing: Pressing,
    address: str,
    path: Way,
    many: int,
    seconds: float,
    processes: Processes,
    figures: dict[str, Figure],
) -> Pressed:
    watched = {"app": processes.app, "Envoy": processes.envoy}
    since, before = time.monotonic(), {name: cpu_seconds(pid) for name, pid in watched.items()}
    came = pressing.press((address, path.port), path.headers, many, seconds)
    elapsed = time.monotonic() - since
    cores = {name: (cpu_seconds(pid) - before[name]) / elapsed for name, pid in watched.items()}
    wrong = sum(count for name, count in came.said.items() if name != path.answered_by)
    values = {
        f"{path.name}, {many}, requests/s": came.per_second,
        f"{path.name}, {many}, p50 ms": came.p50_ms,
        f"{path.name}, {many}, p99 ms": came.p99_ms,
        **{f"{path.name}, {many}, {name} cores": value for name, value in cores.items()},
        f"{path.name}, {many}, generator cores": came.cores,
    }
    for name, value in values.items():
        figures[name].values.append(value)
        figures[name].requests += came.requests
        figures[name].errors += came.errors + wrong
    return came


def _compare(came: dict[str, Pressed], many: int, figures: dict[str, Figure]) -> None:
    bare, through = came[_BARE.name], came[_UNMATCHED.name]
    for name, value in (
        (f"requests/s ÷ bare, {many}", through.per_second / bare.per_second),
        (f"p50 − bare, {many}, ms", through.p50_ms - bare.p50_ms),
    ):
        figures[name].values.append(value)
        figures[name].requests += through.requests + bare.requests
        figures[name].errors += through.errors + bare.errors


def _memory(processes: Processes, figures: dict[str, Figure]) -> None:
    agent, envoy = (ways.resident_mb(pid) for pid in (processes.agent, processes.envoy))
    for name, value in (("agent, MB", agent), ("Envoy, MB", envoy), ("sidecar, MB", agent + envoy)):
        figures[name].values.append(value)
