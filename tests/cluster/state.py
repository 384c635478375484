"""What the testbed has done so far: the record that makes `up` idempotent and `down` complete.

One JSON file, replaced atomically after each change, written only under the lock. `facts` are hashes of what was
applied ("network" → the plan's hash); `undo` is what has to be put back on the machine, noted before it is changed.
"""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Self

from tests.cluster.paths import LOCK_FILE, RUN, STATE_FILE
from tests.cluster.run import TestbedError


@dataclass(frozen=True)
class ProcessRecord:
    """A process we started. The start time tells it from a later one with the same number."""

    pid: int
    start_time: int
    fingerprint: str


@dataclass
class State:
    """The whole record."""

    processes: dict[str, ProcessRecord] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    undo: dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls) -> Self:
        """The record on disk, or an empty one."""
        try:
            raw = json.loads(STATE_FILE.read_text())
        except FileNotFoundError:
            return cls()
        processes = {name: ProcessRecord(**fields) for name, fields in raw["processes"].items()}
        return cls(processes, raw["facts"], raw["undo"])

    def save(self) -> None:
        """Replace the record on disk."""
        RUN.mkdir(parents=True, exist_ok=True)
        fresh = STATE_FILE.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self), indent=1))
        fresh.replace(STATE_FILE)

    def set_fact(self, name: str, value: str) -> None:
        """Note that NAME is now as VALUE describes."""
        self.facts[name] = value
        self.save()

    def remember_undo(self, name: str, value: str) -> None:
        """Note how it was, once: a second `up` must not take our own change for the original."""
        if name not in self.undo:
            self.undo[name] = value
            self.save()


@contextmanager
def locked() -> Iterator[State]:
    """The state, with everyone else kept out: `up`, `down` and `restart` take turns."""
    if os.geteuid() != 0:
        raise TestbedError("the testbed makes namespaces and starts a cluster: run it as root")
    descriptor = os.open(LOCK_FILE, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield State.load()
    finally:
        os.close(descriptor)
