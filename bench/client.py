"""The programs that run in the client's pod, seen from here: :mod:`bench.asking`, ``pressing`` and ``calling``."""

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from bench import asking, calling, pressing
from bench.target import CLIENT, NAMESPACE, until

Headers = Sequence[tuple[str, str]]

_END_SECONDS: Final = 15.0
_MOST_SAID: Final = 120


@contextmanager
def _running(program: str, *arguments: str) -> Iterator[tuple[IO[str], IO[str]]]:
    """A Python program in the client's pod, its input and its output; the end of its input ends it."""
    exec_ = ("kubectl", "-n", NAMESPACE, "exec", "-i", CLIENT, "--", "python3", "-c", Path(program).read_text())
    with _piped(*exec_, *arguments) as pipes:
        yield pipes


@contextmanager
def _piped(*command: str) -> Iterator[tuple[IO[str], IO[str]]]:
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("pipes were asked for")
        try:
            yield process.stdin, process.stdout
        finally:
            process.stdin.close()
            try:
                process.wait(_END_SECONDS)
            finally:
                process.kill()


@dataclass(frozen=True)
class Row:
    """One request to the address number *to*; times as of :func:`now` here."""

    to: int
    start: float
    end: float
    said: str
    """Who answered; ``!`` begins what went wrong."""


class Asking:
    """Requests to several addresses that are made while things happen."""

    def __init__(self, addresses: int) -> None:
        self.addresses = addresses
        self.rows: list[Row] = []

    def read(self, output: IO[str]) -> None:
        """Take in what the program tells."""
        for line in output:
            self.rows.append(Row(*json.loads(line)))

    def wait(self, said: str, since: float) -> None:
        """Until every address was answered by *said*, in a request that began after *since*."""

        def everywhere() -> bool:
            right = {row.to for row in list(self.rows) if row.start > since and row.said == said}
            return len(right) == self.addresses

        until(f"every pod's requests are answered by {said}", everywhere)


@contextmanager
def asked(addresses: Sequence[tuple[str, int]], headers: Headers, *, keep: bool, pause: float) -> Iterator[Asking]:
    """Requests to all of *addresses* inside, after the first of each; all rows are known afterwards."""
    plan = {"to": addresses, "headers": headers, "keep": keep, "pause": pause}
    found = Asking(len(addresses))
    with _running(asking.__file__, json.dumps(plan)) as (_input, output):
        reader = threading.Thread(target=found.read, args=(output,), daemon=True)
        reader.start()
        try:
            until("the first requests", lambda: len({row.to for row in list(found.rows)}) == found.addresses)
            yield found
        finally:
            _input.close()
            reader.join(_END_SECONDS)


def wrong(rows: Iterable[Row]) -> Counter[str]:
    """What was said by those that were not answered with 200."""
    return Counter(row.said[1:_MOST_SAID] for row in rows if row.said.startswith("!"))


def effect(rows: Sequence[Row], to: int, since: float, before: float, wanted: str) -> float | None:
    """Seconds from *since* until an address is answered by *wanted* and goes on so until *before*; None: never.

    It ends with the answer to the first request after the last wrong one. Requests that were under way at one of the
    two moments say nothing.
    """
    then = sorted((row for row in rows if row.to == to and row.start >= since and row.end < before), key=_start)
    last = max((number for number, row in enumerate(then) if row.said != wanted), default=-1)
    return then[last + 1].end - since if last + 1 < len(then) else None


def _start(row: Row) -> float:
    return row.start


@dataclass(frozen=True)
class Pressed:
    """What came of one piece of work; *cores* is what the generator itself took."""

    requests: int
    errors: int
    wrong: dict[str, int]
    said: dict[str, int]
    per_second: float
    p50_ms: float
    p99_ms: float
    cores: float


class Pressing:
    """A load generator."""

    def __init__(self, input_: IO[str], output: IO[str]) -> None:
        self._input = input_
        self._output = output

    def press(
        self, address: tuple[str, int], headers: Headers, connections: int, seconds: float, rate: float = 0
    ) -> Pressed:
        """One piece of work; *rate* 0 is as many requests as possible."""
        plan = {"to": address, "headers": headers, "connections": connections, "seconds": seconds, "rate": rate}
        self._input.write(json.dumps(plan) + "\n")
        self._input.flush()
        line = self._output.readline()
        if not line:
            raise ConnectionError("the load generator has ended")
        said: dict[str, Any] = json.loads(line)
        return Pressed(**said)


@contextmanager
def pressing_from_a_pod() -> Iterator[Pressing]:
    """The load generator inside."""
    with _running(pressing.__file__) as (input_, output):
        yield Pressing(input_, output)


@contextmanager
def pressing_from_here() -> Iterator[Pressing]:
    """The same one on the laptop."""
    with _piped(sys.executable, pressing.__file__) as (input_, output):
        yield Pressing(input_, output)


@contextmanager
def calling_from_a_pod() -> Iterator[Pressing]:
    """That of gRPC, inside."""
    with _running(calling.__file__) as (input_, output):
        yield Pressing(input_, output)


def now() -> float:
    """The clock of :class:`Row`: the machine's monotonic one, which containers share."""
    return time.monotonic()
