"""Ctrl-C at any moment of a connect leaves nothing: not on the laptop, and of what this run made not in the cluster."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from meshdev.config import MANAGER_NAME
from meshdev.errors import Cancelled
from tests.e2e.conftest import Laptop, kubectl, until

pytestmark = pytest.mark.cluster

#: Namespaces whose manager no other test needs: one has a manager all the time, the other has none before each test.
WARM: Final = "team-2"
COLD: Final = "team-1"
#: What a person is willing to wait after Ctrl-C.
UNDONE_SECONDS: Final = 5.0
STEPS: Final = ("cluster", "helper", "manager", "tunnel", "routes", "names", "check")
COLD_STEPS: Final = ("cluster", "helper", "waiting: creating", "waiting: ", "manager", "tunnel", "names")


def cluster_objects(namespace: str = COLD) -> str:
    """The manager's objects there."""
    return kubectl("get", "deployments,replicasets", "-n", namespace, "-o", "name").strip()


def interrupt(connect: "subprocess.Popen[str]") -> tuple[int, str]:
    """What Ctrl-C does: SIGINT to the whole group. The exit code and what was printed from then on."""
    start = time.monotonic()
    os.killpg(connect.pid, signal.SIGINT)
    said, _ = connect.communicate(timeout=UNDONE_SECONDS + 10)
    assert time.monotonic() - start < UNDONE_SECONDS
    return connect.returncode, said


@contextmanager
def connecting(laptop: Laptop, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A connect under way; killed at the end should it still run."""
    with laptop.start("meshdev", "connect", *arguments) as connect:
        try:
            yield connect
        finally:
            connect.kill()


def interrupted_at(laptop: Laptop, step: str, *arguments: str) -> tuple[int, str]:
    """A connect that is interrupted as soon as it says that *step* is done (or begins)."""
    with connecting(laptop, *arguments) as connect:
        assert connect.stdout is not None
        said = ""
        for line in connect.stdout:
            said += line
            if line.startswith(step):
                break
        else:
            pytest.fail(f"never said {step}:\n{said}")
        return interrupt(connect)


def assert_nothing_left(laptop: Laptop, before: str, ended: tuple[int, str]) -> None:
    """After an interrupted connect. Its last step may have been done already: then it is connected."""
    code, said = ended
    if code == 0:
        assert laptop.status()["state"] == "connected"
        laptop.meshdev("disconnect")
    else:
        # Python itself ends by the signal, or with a KeyboardInterrupt, until meshdev's first line runs.
        too_early = code == -signal.SIGINT or (code == 1 and "KeyboardInterrupt" in said)
        assert code == Cancelled.exit_code or too_early, (code, said)
    until("the helper's keeper has seen it exit", lambda: laptop.processes() == {}, 1)
    assert laptop.snapshot() == before


@pytest.fixture(scope="module")
def manager() -> Iterator[None]:
    """A manager in WARM that no interrupted run has made."""
    Laptop(1).meshdev("connect", "-n", WARM)
    Laptop(1).meshdev("disconnect")
    yield
    assert f"deployment.apps/{MANAGER_NAME}" in cluster_objects(WARM)
    Laptop(1).meshdev("uninstall", "-n", WARM)


@pytest.mark.usefixtures("manager")
@pytest.mark.parametrize("anyone", [(1, "dev"), (2, "root")], ids=["dev@laptop1", "root@laptop2"], indirect=True)
@pytest.mark.parametrize("step", STEPS)
def test_after_each_step(anyone: Laptop, step: str) -> None:
    before = anyone.snapshot()
    ended = interrupted_at(anyone, step, "-n", WARM)
    assert ended[0] != 0 or step in STEPS[-2:]
    assert_nothing_left(anyone, before, ended)


@pytest.mark.timeout(300)  # one connect for each tenth of a second: a busy machine takes longer and needs more of them
@pytest.mark.usefixtures("manager")
@pytest.mark.parametrize("anyone", [(1, "root"), (2, "dev")], ids=["root@laptop1", "dev@laptop2"], indirect=True)
def test_every_tenth_of_a_second(anyone: Laptop) -> None:
    before, delay, ended = anyone.snapshot(), 0.0, (-1, "")
    while ended[0] != 0:
        with connecting(anyone, "-n", WARM) as connect:
            threading.Event().wait(delay)  # the moment is the point: there is nothing to wait for
            ended = interrupt(connect)
        assert_nothing_left(anyone, before, ended)
        delay += 0.1
    print(f"{delay / 0.1:.0f} interrupted")


def test_twice_is_at_once(laptop: Laptop) -> None:
    """Whoever presses Ctrl-C again does not want to wait; everything is undone all the same."""
    before = laptop.snapshot()
    with connecting(laptop, "-n", COLD) as connect:
        assert connect.stdout is not None
        connect.stdout.readline()
        os.killpg(connect.pid, signal.SIGINT)
        code, said = interrupt(connect)
    assert code == Cancelled.exit_code, said
    until("everything is undone", lambda: not laptop.processes(), UNDONE_SECONDS)
    assert laptop.snapshot() == before
    until("nothing in the cluster", lambda: not cluster_objects(), UNDONE_SECONDS)


@pytest.mark.parametrize("step", COLD_STEPS)
def test_what_this_run_made_in_the_cluster_goes(laptop: Laptop, step: str) -> None:
    before = laptop.snapshot()
    until("no manager", lambda: not cluster_objects(), 20)
    start = time.monotonic()
    ended = interrupted_at(laptop, step, "-n", COLD)
    print(f"{step!r}: {time.monotonic() - start:.1f} s")
    assert_nothing_left(laptop, before, ended)
    if ended[0] == 0:
        laptop.meshdev("uninstall", "-n", COLD)
    until("nothing in the cluster", lambda: not cluster_objects(), UNDONE_SECONDS)


def test_a_killed_connect_is_undone_too(laptop: Laptop) -> None:
    """Nobody is left to wait; the session notices that its caller is gone."""
    before = laptop.snapshot()
    with connecting(laptop, "-n", COLD) as connect:
        assert connect.stdout is not None
        connect.stdout.readline()
        connect.kill()
    until("everything is undone", lambda: not laptop.processes(), UNDONE_SECONDS)
    assert laptop.snapshot() == before
    until("nothing in the cluster", lambda: not cluster_objects(), UNDONE_SECONDS)
