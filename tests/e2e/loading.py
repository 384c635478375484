"""The test's side of :mod:`tests.e2e.load`: it runs in a pod while things happen, and what came of it."""

import json
import re
import subprocess
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.e2e import load, pods
from tests.e2e.conftest import until

_CODE: Final = Path(load.__file__).read_text()
_CLIENT: Final = re.compile(r"python.* --name=client ")


@dataclass(frozen=True)
class Plan:
    """How much, and of which kind (a second); *matched* of *of* requests carry ``a: 1``."""

    host: str
    port: int = 80
    new: float = 60
    kept: float = 60
    connections: int = 20
    pool: float = 60
    grpc: float = 20
    grpc_port: int = 50051
    matched: int = 1
    of: int = 4


@dataclass(frozen=True)
class Row:
    """One request, from *start* to *end*; *said* is the name that answered, or ``!`` and what went wrong."""

    kind: str
    connection: str
    matched: bool
    start: float
    end: float
    said: str

    @property
    def ok(self) -> bool:
        return not self.said.startswith("!")


class Load:
    """A running load."""

    def __init__(self, client: str, namespace: str, plan: Plan) -> None:
        (pod,) = (each for each in pods.pods(namespace) if each["metadata"]["name"] == client)
        # Not by kubectl exec: what it prints comes through the API server, which tests restart.
        inside = ("nsenter", f"--target={pods.process(pod, _CLIENT)}", "--mount", "--net")
        self.rows: list[Row] = []
        self._process = subprocess.Popen(
            [*inside, "python3", "-c", _CODE, json.dumps(plan.__dict__)],
            start_new_session=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.rows.append(Row(*json.loads(line)))

    def since(self, moment: float) -> list[Row]:
        """The requests that began after *moment*, as far as they are known."""
        return [row for row in list(self.rows) if row.start > moment]

    def until_asked(self, count: int) -> None:
        """Wait until so many more requests were answered, or have failed."""
        known = len(self.rows)
        until(f"{count} more requests", lambda: len(self.rows) >= known + count, 60)

    def renew(self) -> None:
        """Every connection is made anew; what was on its way is answered before."""
        self._write("renew\n")

    def _write(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text)
        self._process.stdin.flush()

    def answered(
        self,
        name: str,
        *,
        matched: bool,
        since: float,
        kinds: tuple[str, ...] = ("new", "kept", "pool"),
        seconds: float = 20,
    ) -> float:
        """Wait until the last ten such requests of each kind were all answered by *name*; when the last ended.

        Pods say their whole names; that of their Deployment is enough.
        """

        def condition() -> list[Row]:
            asked = [row for row in self.since(since) if row.matched == matched]
            last = [row for kind in kinds for row in [row for row in asked if row.kind == kind][-10:]]
            return (
                last
                if len(last) == 10 * len(kinds) and all(f"{row.said}-".startswith(f"{name}-") for row in last)
                else []
            )

        what = f"matched={matched} requests are answered by {name}"
        rows: list[Row] = until(what, condition, seconds)
        return max(row.end for row in rows)

    def close(self) -> None:
        """No new requests; those that are on their way are waited for."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        finally:
            self._process.kill()
            self._reader.join(10)

    @property
    def failures(self) -> list[Row]:
        return [row for row in list(self.rows) if not row.ok]

    def summary(self) -> str:
        """Counts by kind and who answered, for people who read a failed test."""
        return summary(self.rows)


def summary(rows: Iterable[Row]) -> str:
    """Counts by kind and who answered."""
    counts = Counter((row.kind, "a=1" if row.matched else "", row.said[:70]) for row in rows)
    return "\n".join(f"{count:6} {' '.join(key)}" for key, count in sorted(counts.items()))


@contextmanager
def loading(client: str, namespace: str, plan: Plan) -> Iterator[Load]:
    """A load while the block runs; it has begun when that begins."""
    running = Load(client, namespace, plan)
    try:
        until("the first requests", lambda: len(running.rows) > 20)
        yield running
    finally:
        running.close()
