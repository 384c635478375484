"""An OTLP receiver on the testbed: tests/otlp_receiver.py on a laptop, or in a node's network."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from tests.e2e.conftest import CHECKOUT, Laptop, until

HTTP_PORT: Final = 4318
GRPC_PORT: Final = 4317
_MODULE: Final = ("python", "-m", "tests.otlp_receiver")

Json = dict[str, Any]


class Collected:
    """What a running one has printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: list[Json] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        until("the receiver is ready", lambda: self._of("ready"), 30)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(json.loads(line))

    def _of(self, kind: str) -> list[Any]:
        return [each[kind] for each in list(self._lines) if kind in each]

    def spans(self, trace: str = "") -> list[Json]:
        """Of that trace, or all."""
        assert self._of("error") == []
        return [each for each in self._of("span") if trace in {"", each["trace"]}]

    def logs(self) -> list[Json]:
        """All."""
        assert self._of("error") == []
        return self._of("log")

    def authorizations(self) -> set[tuple[str, str | None]]:
        """By which protocol with which header requests came."""
        return {(each["request"], each["authorization"]) for each in list(self._lines) if "request" in each}


@contextmanager
def receiver_on(laptop: Laptop) -> Iterator[Collected]:
    """At 127.0.0.1 of the laptop."""
    command = laptop.command(*_MODULE, "127.0.0.1", str(HTTP_PORT), str(GRPC_PORT))
    with _running(command) as found:
        yield found


@contextmanager
def receiver_on_node() -> Iterator[Collected]:
    """At every address of the first node: for pods."""
    command = [sys.executable, "-m", "tests.cluster", "node", "--", sys.executable, *_MODULE[1:]]
    with _running([*command, "0.0.0.0", str(HTTP_PORT), str(GRPC_PORT)]) as found:
        yield found


@contextmanager
def _running(command: list[str]) -> Iterator[Collected]:
    process = subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Collected(process)
    finally:
        process.terminate()
        process.wait(15)
