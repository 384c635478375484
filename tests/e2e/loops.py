"""What runs on a laptop while something is broken: requests, status questions, one long connection; and their story.

Each loop is one process on the laptop that prints a line per try; times are the machine's clock (it is one machine).
"""

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from tests.e2e.conftest import Laptop, until

#: Longest time of one request; so an outage may look that much longer than it was.
PATIENCE: Final = 1.0
PAUSE: Final = 0.05

_REQUESTS: Final = f"""
while :; do
  start=$EPOCHREALTIME
  curl -s -o /dev/null --fail --max-time {PATIENCE} "$1"; code=$?
  echo "$start $EPOCHREALTIME $code"
  sleep {PAUSE}
done
"""

_STATUS: Final = """
while :; do
  start=$EPOCHREALTIME
  answer=$(meshdev status -o json | tr -d '\\n')
  echo "$start $EPOCHREALTIME $answer"
done
"""

#: One TCP connection for the whole time: eight bytes there and back, again and again.
_ECHO: Final = """
import socket, sys, time
address = (sys.argv[1], int(sys.argv[2]))
connection = socket.create_connection(address, 10)
connection.settimeout(30)
number = 0
while True:
    start, data, got = time.time(), number.to_bytes(8, "big"), b""
    try:
        connection.sendall(data)
        while len(got) < 8:
            piece = connection.recv(8 - len(got))
            if not piece:
                raise EOFError
            got += piece
    except (OSError, EOFError) as error:
        print(start, time.time(), repr(error), flush=True)
        break
    print(start, time.time(), "0" if got == data else "wrong bytes", flush=True)
    number += 1
    time.sleep(0.05)
"""


@dataclass(frozen=True)
class Try:
    """One try, from *start* to *end*; *said* is "0" where it went well, a status in the status loop."""

    start: float
    end: float
    said: str

    @property
    def ok(self) -> bool:
        return self.said == "0"


class Loop:
    """A running loop and what it has told so far."""

    def __init__(self, laptop: Laptop, *argv: str) -> None:
        self.tries: list[Try] = []
        self._process = laptop.start(*argv)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            start, end, said = line.rstrip("\n").split(" ", 2)
            self.tries.append(Try(float(start), float(end), said))

    @property
    def good(self) -> list[Try]:
        """The tries that went well."""
        return [item for item in list(self.tries) if item.ok]

    @property
    def bad(self) -> list[Try]:
        """The others."""
        return [item for item in list(self.tries) if not item.ok]

    @property
    def alive(self) -> bool:
        """Whether it still tries."""
        return self._process.poll() is None

    def good_since(self, moment: float) -> bool:
        """Whether a try that began after *moment* went well."""
        return any(item.start > moment for item in self.good)

    def well(self, count: int, seconds: float = 20) -> None:
        """Wait until *count* more tries in a row went well."""
        begun = len(self.tries)

        def condition() -> bool:
            fresh = self.tries[begun:]
            return len(fresh) >= count and all(item.ok for item in fresh[-count:])

        until(f"{count} tries in a row go well; the last said {self.tries[-3:]}", condition, seconds)

    def outage(self, since: float) -> tuple[float, float]:
        """The longest time without success after *since*: from the end of one to the end of the next success."""
        ends = [since, *(item.end for item in self.good if item.end > since)]
        return max(pairwise(ends), key=lambda pair: pair[1] - pair[0])

    def close(self) -> None:
        """End it and take its last words."""
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reader.join(10)


class StatusLoop(Loop):
    """``meshdev status -o json``, as often as it goes."""

    def states(self, start: float, end: float) -> list[str]:
        """What was said by questions that were asked and answered within this time."""
        return [json.loads(item.said)["state"] for item in list(self.tries) if start <= item.start and item.end <= end]

    def until_state(self, state: str, since: float, seconds: float) -> float:
        """Wait for *state*; the seconds since *since* at which it was shown."""
        return self.until(f"status says {state}", lambda status: status["state"] == state, since, seconds)

    def until(self, what: str, wanted: Callable[[dict[str, Any]], bool], since: float, seconds: float) -> float:
        """Wait for a status that is *wanted*; the seconds since *since* at which it was shown."""

        def found() -> float | None:
            for item in list(self.tries):
                if item.end > since and wanted(json.loads(item.said)):
                    return item.end - since
            return None

        return float(until(what, found, seconds))


@contextmanager
def requests(laptop: Laptop, url: str = "http://a/") -> Iterator[Loop]:
    """curl in a loop, well when the block begins."""
    yield from _running(Loop(laptop, "bash", "-c", _REQUESTS, "requests", url))


@contextmanager
def echo(laptop: Laptop, host: str = "bulk", port: int = 7003) -> Iterator[Loop]:
    """One connection that goes on through everything, well when the block begins."""
    yield from _running(Loop(laptop, ".venv/bin/python", "-c", _ECHO, host, str(port)))


@contextmanager
def statuses(laptop: Laptop) -> Iterator[StatusLoop]:
    """Questions for the status."""
    loop = StatusLoop(laptop, "bash", "-c", _STATUS)
    try:
        until("the first status", lambda: loop.tries)
        yield loop
    finally:
        loop.close()


def _running(loop: Loop) -> Iterator[Loop]:
    try:
        loop.well(5)
        yield loop
    finally:
        loop.close()


def now() -> float:
    """The loops' clock."""
    return time.time()
