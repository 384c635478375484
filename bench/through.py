"""Requests that nobody claims, through the sidecar and to the bare app: two ports of one program in one pod, in turn.

What a sidecar takes is seen by as many requests as possible; what it adds to a request by a load that leaves cores
free. With one connection there is one request under way, so that requests per second say no more than p50 does; with
many, p50 is the time in the queue for the machine's cores, so that it says no more than requests per second do. Hence
each has its goal where it means something, and all are told. Matched requests go the whole way to the laptop and back,
for comparison. The cores that each took say what was the limit, those of others whether the machine was free.
"""

import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Final

from bench import target, ways
from bench.client import Headers, Pressed, Pressing, pressing_from_a_pod
from bench.figures import Figure
from bench.target import BARE, INTERCEPTED, LOCAL, NAMESPACE, ORIGINAL, PORT_FLAG, Processes, busy_seconds, cpu_seconds
from bench.ways import meshdev

_ORDINARY: Final = (("User-Agent", "bench"), ("Accept", "*/*"))
_MATCHED: Final = (*_ORDINARY, ("a", "1"))


@dataclass(frozen=True)
class Load:
    """So many connections, and as many requests as possible, or so many a second."""

    name: str
    connections: int
    rate: int = 0


LOADS: Final = (
    Load("1 connection", 1),
    Load("16 connections", 16),
    Load("64 connections", 64),
    Load("1,000 a second", 16, rate=1000),
)


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


def measure(workload: str, rounds: int, seconds: float) -> dict[str, Figure]:
    """Intercept the workload's only pod and press on it."""
    meshdev("mesh", f"deployment/{workload}", "-n", NAMESPACE, "-H", "a=1", "--port", PORT_FLAG, "--detach")
    (pod,) = target.pods(workload)
    measured = _Measured(pod.address, Processes.of(pod), seconds)
    with pressing_from_a_pod() as pressing:
        for load in LOADS:
            for number in range(rounds):
                measured.round(pressing, load, bare_first=bool(number % 2))
        for _ in range(rounds):
            measured.to_laptop(pressing, LOADS[1])
    meshdev("leave", f"deployment/{workload}", "-n", NAMESPACE)
    return dict(measured.figures)


class _Measured:
    def __init__(self, address: str, processes: Processes, seconds: float) -> None:
        self.figures: dict[str, Figure] = defaultdict(Figure)
        self._address = address
        self._processes = processes
        self._seconds = seconds

    def round(self, pressing: Pressing, load: Load, *, bare_first: bool) -> None:
        """Both ways, one after the other, and how they compare."""
        pair = (_BARE, _UNMATCHED) if bare_first else (_UNMATCHED, _BARE)
        came = {way.name: self._press(pressing, way, load) for way in pair}
        bare, through = came[_BARE.name], came[_UNMATCHED.name]
        if not load.rate:
            self._note(f"requests/s ÷ bare, {load.name}", through.per_second / bare.per_second, bare, through)
        self._note(f"p50 − bare, {load.name}, ms", through.p50_ms - bare.p50_ms, bare, through)
        agent, envoy = (ways.resident_mb(pid) for pid in (self._processes.agent, self._processes.envoy))
        for name, value in (("agent, MB", agent), ("Envoy, MB", envoy), ("sidecar, MB", agent + envoy)):
            self._note(name, value)

    def to_laptop(self, pressing: Pressing, load: Load) -> None:
        """For information."""
        self._press(pressing, _TO_LAPTOP, load)

    def _press(self, pressing: Pressing, way: Way, load: Load) -> Pressed:
        """One piece of work, and the cores that it took."""
        since, before = time.monotonic(), self._used()
        came = pressing.press((self._address, way.port), way.headers, load.connections, self._seconds, load.rate)
        elapsed = time.monotonic() - since
        cores = {name: (seconds - before[name]) / elapsed for name, seconds in self._used().items()}
        cores["others"] = max(0.0, cores.pop("all") - cores["app"] - cores["Envoy"] - came.cores)
        what = f"{way.name}, {load.name}"
        if not load.rate:
            self._note(f"{what}, requests/s", came.per_second, came)
        self._note(f"{what}, p50 ms", came.p50_ms, came)
        self._note(f"{what}, p99 ms", came.p99_ms, came)
        for name, value in {**cores, "generator": came.cores}.items():
            self._note(f"{what}, cores of {name}", value)
        self._note("load generator, cores", came.cores)
        if way is not _TO_LAPTOP:
            self._note("other programs of the machine, cores", cores["others"])
        for name, count in came.said.items():
            if name != way.answered_by:
                self.figures[f"{what}, p50 ms"].wrong[f"answered by {name}"] += count
        return came

    def _used(self) -> dict[str, float]:
        app, envoy = cpu_seconds(self._processes.app), cpu_seconds(self._processes.envoy)
        return {"app": app, "Envoy": envoy, "all": busy_seconds()}

    def _note(self, name: str, value: float, *came: Pressed) -> None:
        figure = self.figures[name]
        figure.values.append(value)
        figure.requests += sum(each.requests + each.errors for each in came)
        figure.wrong += sum((Counter(each.wrong) for each in came), Counter())
