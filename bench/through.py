"""Requests that nobody claims, through the sidecar and to the bare app: two ports of one program in one pod, in turn.

What a sidecar takes is seen by as many requests as possible; what it adds to a request by a load that leaves cores
free. With many connections p50 is the time in the queue for the machine's cores, so that it says no more than requests
per second do. Hence each has its goal where it means something, and all are told. The cores that each took say what was
the limit, those of others whether the machine was free.

Four servers: the sample; nginx, beside which a proxy cannot hide; nginx again with a large body; gRPC, which passes
Envoy, too. Matched requests go from the pod to the laptop; beside them, from the laptop to the pod, as many requests go
the same tunnel as one link. All of them once more while ``meshdev inspect --all --follow`` runs.
"""

import os
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Final

from bench import fast, inside, target, ways
from bench.client import Headers, Pressed, Pressing, calling_from_a_pod, pressing_from_a_pod, pressing_from_here
from bench.figures import Figure
from bench.target import BARE, CLIENT, INTERCEPTED, LOCAL, NAMESPACE, ORIGINAL, Processes, busy_seconds, cpu_seconds
from bench.watching import inspecting
from bench.ways import meshdev

_ORDINARY: Final = (("User-Agent", "bench"), ("Accept", "*/*"))
_MATCHED: Final = (*_ORDINARY, ("a", "1"))
#: Two of the pod's ports that nobody declared; only the first is intercepted.
_CALLED: Final = 50051
_CALLED_BARE: Final = 50052
#: Shorter ones than a second are none to wrk.
_WRK_SECONDS: Final = 1


@dataclass(frozen=True)
class Load:
    """So many connections, and as many requests as possible, or so many a second."""

    name: str
    connections: int
    rate: int = 0


_SOME: Final = Load("16 connections", 16)
LOADS: Final = (
    Load("1 connection", 1),
    _SOME,
    Load("64 connections", 64),
    Load("1,000 a second", 16, rate=1000),
)
_CALLS: Final = Load("16 calls at a time", 16)


@dataclass(frozen=True)
class Way:
    """One of the ways that are compared, and how it is pressed on."""

    name: str
    server: int
    """Its process."""
    press: Callable[[Load], Pressed]
    answered_by: str = ORIGINAL


def measure(workload: str, rounds: int, seconds: float) -> dict[str, Figure]:
    """Intercept the workload's only pod and press on it, for so many *seconds* a turn."""
    (pod,) = target.pods(workload)
    with ExitStack() as stack:
        inner = target.pid_in(pod.name)
        nginx = stack.enter_context(fast.server(inner))
        called = {port: stack.enter_context(_grpc(inner, port)) for port in (_CALLED, _CALLED_BARE)}
        ports = [f"--port={INTERCEPTED}:{port}" for port in (INTERCEPTED, fast.INTERCEPTED, _CALLED)]
        meshdev("mesh", f"deployment/{workload}", "-n", NAMESPACE, "-H", "a=1", *ports, "--detach")
        measured = _Measured(pod.address, Processes.of(pod))
        pressing = stack.enter_context(pressing_from_a_pod())
        measured.sample(pressing, rounds, seconds)
        measured.nginx(nginx, target.pid_in(CLIENT), max(rounds // 2, 1))
        calling = stack.enter_context(calling_from_a_pod())
        measured.grpc(called, calling, rounds, seconds)
        measured.watched(workload, called[_CALLED], pressing, calling, rounds, seconds)
        measured.to_laptop(pressing, stack.enter_context(pressing_from_here()), rounds, seconds)
    meshdev("leave", f"deployment/{workload}", "-n", NAMESPACE)
    return dict(measured.figures)


@contextmanager
def _grpc(pid: int, port: int) -> Iterator[int]:
    """The sample's gRPC server in the network of *pid*: its own process."""
    argv = (sys.executable, "-m", "tests.cluster.sample", f"--name={ORIGINAL}", f"--grpc-port={port}")
    with subprocess.Popen(inside.command(pid, *argv), stdout=subprocess.DEVNULL) as process:
        try:
            target.until("gRPC is served", lambda: target.listening(pid, [port]))
            yield process.pid
        finally:
            process.kill()


class _Measured:
    def __init__(self, address: str, processes: Processes) -> None:
        self.figures: dict[str, Figure] = defaultdict(Figure)
        self._address = address
        self._processes = processes

    def sample(self, pressing: Pressing, rounds: int, seconds: float) -> None:
        """The sample by its own load generator."""

        def way(name: str, port: int) -> Way:
            press = self._pressing(pressing, (self._address, port), _ORDINARY, seconds)
            return Way(name, self._processes.app, press)

        for load in LOADS:
            for number in range(rounds):
                self._round(way("bare", BARE), way("unmatched", INTERCEPTED), load, "", number)
            self._memory()

    def nginx(self, server: int, client: int, rounds: int) -> None:
        """nginx by wrk, and a large body."""

        def way(name: str, port: int) -> Way:
            address = (self._address, port)
            return Way(name, server, lambda load: fast.press(client, address, load.connections, _WRK_SECONDS))

        for load in LOADS:
            for number in range(0 if load.rate else rounds):
                self._round(way("bare nginx", fast.BARE), way("nginx", fast.INTERCEPTED), load, "nginx, ", number)
        for number in range(rounds):
            ports = (fast.BARE, fast.INTERCEPTED)[:: -1 if number % 2 else 1]
            speed = {port: fast.body(client, (self._address, port)) for port in ports}
            self._note("bare nginx, body of 1 GB, MB/s", speed[fast.BARE])
            self._note("nginx, body of 1 GB, MB/s", speed[fast.INTERCEPTED])
            self._note("body of 1 GB, MB/s ÷ bare", speed[fast.INTERCEPTED] / speed[fast.BARE])

    def grpc(self, servers: Mapping[int, int], calling: Pressing, rounds: int, seconds: float) -> None:
        """Unary calls of gRPC."""

        def way(name: str, port: int) -> Way:
            return Way(name, servers[port], self._pressing(calling, (self._address, port), (), seconds))

        for number in range(rounds):
            self._round(way("bare gRPC", _CALLED_BARE), way("gRPC", _CALLED), _CALLS, "gRPC, ", number)

    def watched(
        self, workload: str, called: int, pressing: Pressing, calling: Pressing, rounds: int, seconds: float
    ) -> None:
        """While somebody looks at every request, and while nobody does."""
        http = self._pressing(pressing, (self._address, INTERCEPTED), _ORDINARY, seconds)
        grpc = self._pressing(calling, (self._address, _CALLED), (), seconds)
        matched = self._pressing(pressing, (self._address, INTERCEPTED), _MATCHED, seconds)
        for way, load, what in (
            (Way("unmatched", self._processes.app, http), _SOME, ""),
            (Way("gRPC", called, grpc), _CALLS, "gRPC, "),
            (Way("matched", os.getpid(), matched, LOCAL), _SOME, "matched, "),
        ):
            for number in range(rounds):
                self._watched(workload, way, load, what, first=bool(number % 2))

    def _watched(self, workload: str, way: Way, load: Load, what: str, *, first: bool) -> None:
        """Once watched and once not, watched *first* or last."""
        came: dict[bool, Pressed] = {}
        for watched in (first, not first):
            if not watched:
                came[watched] = self._press(replace(way, name=f"unwatched {way.name}"), load)
                continue
            with inspecting(workload, lambda: way.press(load)) as shown:
                since, before = time.monotonic(), shown.lines
                came[watched] = self._press(replace(way, name=f"watched {way.name}"), load)
                each = (shown.lines - before) / (time.monotonic() - since)
                self._note(f"watched {way.name}, {load.name}, shown a second", each)
        ratio = came[True].per_second / came[False].per_second
        self._note(f"watched, {what}requests/s ÷ unwatched, {load.name}", ratio, *came.values())

    def to_laptop(self, inner: Pressing, outer: Pressing, rounds: int, seconds: float) -> None:
        """Matched requests, and those of a link."""
        by_link = self._pressing(outer, (self._address, BARE), _ORDINARY, seconds)
        by_relay = self._pressing(inner, (self._address, INTERCEPTED), _MATCHED, seconds)
        link = Way("link", self._processes.app, by_link)
        matched = Way("matched", os.getpid(), by_relay, LOCAL)  # the local program is here
        for number in range(rounds):
            came = self._both(link, matched, _SOME, number, packets=True)
            ratio = came[matched.name].per_second / came[link.name].per_second
            self._note(f"matched, requests/s ÷ link, {_SOME.name}", ratio, *came.values())

    def _pressing(
        self, pressing: Pressing, address: tuple[str, int], headers: Headers, seconds: float
    ) -> Callable[[Load], Pressed]:
        return lambda load: pressing.press(address, headers, load.connections, seconds, load.rate)

    def _round(self, bare: Way, through: Way, load: Load, what: str, number: int) -> None:
        """Both ways, one after the other, and how they compare."""
        came = self._both(bare, through, load, number)
        one, other = came[bare.name], came[through.name]
        if not load.rate:
            ratio = other.per_second / one.per_second
            self._note(f"{what}requests/s ÷ bare, {load.name}", ratio, one, other)
        self._note(f"{what}p50 − bare, {load.name}, ms", other.p50_ms - one.p50_ms, one, other)

    def _both(self, one: Way, other: Way, load: Load, number: int, *, packets: bool = False) -> dict[str, Pressed]:
        """They take turns in being the first: whatever else happens on the machine meets both alike."""
        came = {}
        for way in (other, one) if number % 2 else (one, other):
            before = ways.tunnel_packets()
            came[way.name] = self._press(way, load)
            if packets:
                # Those of the warm-up, too: a figure to compare one way with the other.
                count = (ways.tunnel_packets() - before) / max(came[way.name].requests, 1)
                self._note(f"{way.name}, {load.name}, packets of the tunnel a request", count)
        return came

    def _memory(self) -> None:
        pids = {"agent": self._processes.agent, "worker": self._processes.worker, "Envoy": self._processes.envoy}
        for name, pid in pids.items():
            self._note(f"{name}, MB", ways.resident_mb(pid))
        # The container's memory, as the kernel counts it: agent and worker share Python.
        self._note("sidecar, MB", ways.together_mb(pids.values()))

    def _press(self, way: Way, load: Load) -> Pressed:
        """One piece of work, and the cores that it took."""
        since, before = time.monotonic(), self._used(way)
        came = way.press(load)
        elapsed = time.monotonic() - since
        cores = {name: (seconds - before[name]) / elapsed for name, seconds in self._used(way).items()}
        everybody = cores.pop("all")
        cores["others"] = max(0.0, everybody - sum(cores.values()) - came.cores)
        what = f"{way.name}, {load.name}"
        if not load.rate:
            self._note(f"{what}, requests/s", came.per_second, came)
        self._note(f"{what}, p50 ms", came.p50_ms, came)
        self._note(f"{what}, p99 ms", came.p99_ms, came)
        for name, value in {**cores, "generator": came.cores}.items():
            self._note(f"{what}, cores of {name}", value)
        # Neither the tunnel nor what shows requests is others'.
        if way.answered_by == ORIGINAL and way.name != "link" and not way.name.startswith("watched "):
            self._note("other programs of the machine, cores", cores["others"])
        for name, count in came.said.items():
            if name != way.answered_by:
                self.figures[f"{what}, p50 ms"].wrong[f"answered by {name}"] += count
        return came

    def _used(self, way: Way) -> dict[str, float]:
        each = {"app": way.server, "worker": self._processes.worker, "Envoy": self._processes.envoy}
        return {**{name: cpu_seconds(pid) for name, pid in each.items()}, "all": busy_seconds()}

    def _note(self, name: str, value: float, *came: Pressed) -> None:
        figure = self.figures[name]
        figure.values.append(value)
        figure.requests += sum(each.requests + each.errors for each in came)
        figure.wrong += sum((Counter(each.wrong) for each in came), Counter())
