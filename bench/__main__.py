"""``python -m bench``: run on the testbed's laptop 1 (``make bench`` does that)."""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from bench import figures, intercepts, measure, report, ways
from bench.measure import Endpoint

RESULTS: Final = Path(__file__).parent / "results"

Collected = dict[str, dict[str, list[float]]]


def collect(endpoint: Endpoint, figures: dict[str, list[float]], megabytes: int) -> None:
    """One round on one way."""
    size = megabytes * 1_000_000
    for connections in (1, 4):
        plural = "connection" if connections == 1 else "connections"
        figures[f"up, {connections} {plural}, MB/s"].append(measure.throughput(measure.up, endpoint, size, connections))
        figures[f"down, {connections} {plural}, MB/s"].append(
            measure.throughput(measure.down, endpoint, size, connections)
        )
    times = sorted(measure.round_trips(endpoint, 500))
    figures["round trip p50, µs"].append(times[len(times) // 2])
    figures["round trip p99, µs"].append(times[int(len(times) * 0.99)])
    figures["connect + first byte p50, ms"].append(statistics.median(measure.first_bytes(endpoint, 100)))
    figures["HTTP requests/s"].append(measure.requests_per_second(endpoint, 1000))


def run(rounds: int, megabytes: int, console: Console) -> Collected:
    """All rounds, the ways in turn."""
    samples: Collected = {way: defaultdict(list) for way in (ways.KUBECTL, *(f"meshdev {c}" for c in ways.CARRIERS))}
    console.print("connect cold: nothing in the cluster, the image on the node")
    for carrier in ways.CARRIERS:
        ways.meshdev("uninstall", "--force")
        with ways.by_meshdev(carrier) as (_, seconds):
            samples[f"meshdev {carrier}"]["connect cold, s"].append(seconds)
    for number in range(1, rounds + 1):
        console.print(f"round {number} of {rounds}: {ways.KUBECTL}")
        with ways.by_kubectl() as endpoint:
            collect(endpoint, samples[ways.KUBECTL], megabytes)
        for carrier in ways.CARRIERS:
            console.print(f"round {number} of {rounds}: meshdev {carrier}")
            figures = samples[f"meshdev {carrier}"]
            with ways.by_meshdev(carrier) as (endpoint, seconds):
                figures["connect warm, s"].append(seconds)
                collect(endpoint, figures, megabytes)
                pids = ways.status()["pids"]
                resident = [ways.resident_mb(pids[name]) for name in ("session", "helper")]
                figures["session, MB"].append(resident[0])
                figures["helper, MB"].append(resident[1])
                figures["session + helper, MB"].append(sum(resident))
                figures["manager tunnel, MB"].append(ways.manager_resident_mb())
    return samples


def main() -> int:
    """Measure, print the table on stdout, keep the JSON in bench/results/."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=int, default=300, help="of each bulk transfer")
    parser.add_argument("--only", choices=("link", "intercepts"), help="one half of it")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    arguments = parser.parse_args()
    progress = Console(stderr=True)
    machine = ways.machine()
    result: dict[str, object] = {"machine": machine}
    tables: list[Table] = []
    missed: list[str] = []
    if arguments.only != "intercepts":
        with ExitStack() as stack:
            stack.callback(ways.meshdev, "disconnect")
            samples = run(arguments.rounds, arguments.megabytes, progress)
        result |= report.as_json(samples, machine)
        tables.append(report.table(samples, machine))
        missed += report.missed(samples)
    if arguments.only != "link":
        found = intercepts.run(arguments.rounds, progress)
        result["intercepts"] = figures.as_json(found)
        tables.append(figures.table(found, machine))
        missed += figures.missed(found)
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{datetime.now(UTC):%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(result, indent=2))
    if arguments.output == "json":
        print(json.dumps(result))
    else:
        Console(width=None if sys.stdout.isatty() else 180).print(*tables)
        for sentence in missed:
            progress.print(f"goal missed: {sentence}")
    progress.print(f"written to {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
