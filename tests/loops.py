"""Driving a packet loop from the test's own thread, round by round, with a clock the test sets."""

import time
from collections.abc import Callable
from pathlib import Path

from meshdev.pump.loop import Loop

#: No condition of a test takes this long where nothing is wrong.
DEADLINE_SECONDS = 10.0


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def open_descriptors() -> set[str]:
    """What this process has open, as text: number and target."""
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{link.name} {link.readlink()}")
        except FileNotFoundError:  # the listing's own descriptor
            continue
    return found


def one_round(loop: Loop) -> None:
    """Whatever is ready now, and due timers."""
    loop._running = True
    loop.post(loop.stop)
    loop.run()


def until(loop: Loop, condition: Callable[[], object]) -> None:
    """Rounds until *condition* holds."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        one_round(loop)


def pass_time(loop: Loop, clock: Clock, seconds: float, step: float = 0.5) -> None:
    """Let *seconds* pass in small steps, each with its rounds."""
    target = clock.now + seconds
    while clock.now < target:
        clock.now = min(target, clock.now + step)
        one_round(loop)
        one_round(loop)
