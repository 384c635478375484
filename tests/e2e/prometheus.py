"""Debian's Prometheus on a laptop: it scrapes what it is told to, and answers queries."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from tests.cluster.packages import unpacked
from tests.e2e.conftest import until

ADDRESS: Final = "127.0.0.1:19090"
SCRAPE_SECONDS: Final = 1
_START_SECONDS: Final = 30.0

_CONFIG: Final = """
global: {{scrape_interval: {seconds}s, scrape_timeout: {seconds}s}}
scrape_configs:
{jobs}
"""
_JOB: Final = """\
- job_name: {name}
  static_configs: [{{targets: ["{target}"]}}]
"""


class Machine(Protocol):
    """Where it runs: a laptop."""

    def start(self, *argv: str) -> subprocess.Popen[str]: ...
    def ok(self, *argv: str, timeout: float = 60) -> str: ...


class Prometheus:
    """A running one, by its HTTP API."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Labels and value of each series now."""
        found = self._ask("query", query=expression)
        return [(each["metric"], float(each["value"][1])) for each in found["result"]]

    def value(self, expression: str) -> float | None:
        """Of an expression with at most one series."""
        found = self.query(expression)
        assert len(found) <= 1, found
        return found[0][1] if found else None

    def label_values(self, series: str, label: str) -> list[str]:
        """What Grafana's ``label_values`` gives."""
        found: list[str] = self._ask(f"label/{label}/values", **{"match[]": series})
        return found

    def metadata(self) -> Mapping[str, Any]:
        """Type and help by metric."""
        found: dict[str, Any] = self._ask("metadata")
        return found

    def healthy(self) -> dict[str, str]:
        """The last error by job; empty where it was scraped well."""
        return {each["labels"]["job"]: each["lastError"] for each in self._ask("targets")["activeTargets"]}

    def _ask(self, path: str, **parameters: str) -> Any:
        words = [word for name, value in parameters.items() for word in ("--data-urlencode", f"{name}={value}")]
        said = self._machine.ok(
            "curl", "-sSG", "--fail-with-body", "--max-time", "10", f"http://{ADDRESS}/api/v1/{path}", *words
        )
        answer = json.loads(said)
        assert answer["status"] == "success", answer
        return answer["data"]


@contextmanager
def prometheus(machine: Machine, folder: Path, targets: Mapping[str, str]) -> Iterator[Prometheus]:
    """One that has scraped each of *targets* (address by job) when the block begins."""
    program = unpacked("prometheus") / "usr" / "bin" / "prometheus"
    config = folder / "prometheus.yml"
    jobs = "".join(_JOB.format(name=name, target=target) for name, target in targets.items())
    config.write_text(_CONFIG.format(seconds=SCRAPE_SECONDS, jobs=jobs))
    process = machine.start(
        str(program),
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={ADDRESS}",
        "--log.level=warn",
    )
    try:
        found = Prometheus(machine)
        until("each target is scraped", lambda: _scraped(found, process, set(targets)), _START_SECONDS)
        yield found
    finally:
        process.terminate()
        process.wait(15)


def _scraped(found: Prometheus, process: subprocess.Popen[str], jobs: set[str]) -> bool:
    if process.poll() is not None:
        assert process.stdout is not None
        raise AssertionError(process.stdout.read())
    try:
        up = {labels["job"] for labels, value in found.query("up") if value == 1}
    except AssertionError:  # it does not listen yet, or answers 503 while it starts
        return False
    return up == jobs
