"""Progress: one line a step on stderr, with the seconds it took."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tests.cluster.run import TestbedError

_WIDTH = 58


@contextmanager
def step(text: str) -> Iterator[None]:
    """Print TEXT now and the seconds when the block ends."""
    started = time.monotonic()
    sys.stderr.write(f"{text} ".ljust(_WIDTH, ".") + " ")
    sys.stderr.flush()
    try:
        yield
    except BaseException:
        sys.stderr.write("failed\n")
        raise
    sys.stderr.write(f"{time.monotonic() - started:5.1f} s\n")


def note(text: str) -> None:
    """A line without a duration."""
    sys.stderr.write(f"{text}\n")


def wait_for(what: str, condition: Callable[[], bool], seconds: float, interval: float = 0.1) -> None:
    """Poll CONDITION, for things that announce themselves in no other way; TestbedError after SECONDS."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TestbedError(f"{what}: not within {seconds:g} s")
        time.sleep(interval)
