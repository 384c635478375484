"""Fixtures of the cluster tests: the testbed, its laptops, and what must be equal before and after."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from meshdev.config import MANAGER_LABELS
from tests.cluster import addresses, kinds
from tests.cluster.paths import NETNS
from tests.cluster.state import State
from tests.e2e.lock import locked_testbed, to_stderr
from tests.schemas.validating import validate

CHECKOUT: Final = Path(__file__).resolve().parents[2]
#: All fixtures of a test together, before it and behind it; not the cluster, whose steps have limits of their own.
FIXTURE_SECONDS: Final = 600.0

#: Everything that meshdev may change on a laptop; equal output means nothing is left.
_SNAPSHOT: Final = """
ip -o address | sed -e 's/valid_lft.*//'
ip route show table all | grep -v ' dev lo ' | sort
ip rule
nft list ruleset
cat /etc/resolv.conf /etc/hosts
ls -l /etc/resolv.conf | cut -d' ' -f1,3,4
command -v resolvectl >/dev/null && pgrep -x systemd-resolve >/dev/null && resolvectl dns && resolvectl domain
true
"""

_LOG: Final = """
from meshdev.state import Paths
print("\\n".join(Paths.locate().log.read_text(errors="replace").splitlines()[-60:]))
"""

_OURS: Final = re.compile(r"-m meshdev\.|^sudo ")


def control(*arguments: str, timeout: float = 120, check: bool = True) -> str:
    """Run the testbed's command and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.cluster", *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert not check or done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


def kubectl(*arguments: str) -> str:
    """The cluster as its administrator."""
    return control("kubectl", *arguments)


def until(what: str, condition: Callable[[], Any], seconds: float = 30) -> Any:
    """The first true value of *condition*; fails when there is none in time."""
    deadline = time.monotonic() + seconds
    while True:
        if value := condition():
            return value
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)  # the other side is a real cluster: there is no event to wait for


@dataclass(frozen=True)
class Laptop:
    """One of the testbed's laptops, as one of its users."""

    number: int = 1
    user: str = "root"

    def command(self, *argv: str) -> list[str]:
        """The command line that runs *argv* there."""
        where = ["--laptop", str(self.number), "--user", self.user]
        return [sys.executable, "-m", "tests.cluster", "exec", *where, "--", *argv]

    def run(
        self, *argv: str, timeout: float = 60, environment: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; what one of meshdev prints with ``-o json`` is valid (docs/schemas)."""
        done = subprocess.run(
            self.command(*argv),
            cwd=CHECKOUT,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        if argv[0] == "meshdev":
            validate(argv[1:], done.stdout)
        return done

    def ok(self, *argv: str, timeout: float = 60) -> str:
        """Run a command that must succeed; what it prints."""
        done = self.run(*argv, timeout=timeout)
        assert done.returncode == 0, f"{argv}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """Start a command as a process group of its own; its output is one pipe."""
        return subprocess.Popen(
            self.command(*argv),
            cwd=CHECKOUT,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def meshdev(self, *arguments: str, timeout: float = 90) -> str:
        """A command of meshdev that must succeed."""
        return self.ok("meshdev", *arguments, timeout=timeout)

    def status(self) -> dict[str, Any]:
        """``meshdev status -o json``."""
        answer: dict[str, Any] = json.loads(self.meshdev("status", "-o", "json"))
        return answer

    def log(self) -> str:
        """The end of the session's log."""
        return self.run("python", "-c", _LOG).stdout

    def processes(self) -> dict[int, str]:
        """meshdev's own processes on this laptop and the sudo before them, whosever: pid → command line."""
        here = (NETNS / addresses.laptop(self.number).namespace).stat().st_ino
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it may end meanwhile
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if "meshdev" in line and (folder / "ns" / "net").stat().st_ino == here:
                    found[int(folder.name)] = line
        return {pid: line for pid, line in found.items() if _OURS.search(line)}

    def clean(self) -> None:
        """End what runs here, whosever it is."""
        for user in ("root", "dev") if self.processes() else ():
            Laptop(self.number, user).run("meshdev", "disconnect")
            Laptop(self.number, user).run("meshdev", "restore")

    def snapshot(self) -> str:
        """Everything on this laptop that meshdev may change."""
        return self.ok("sh", "-c", _SNAPSHOT)

    @contextmanager
    def connected(self, *arguments: str) -> Iterator[None]:
        """Connected inside, and as before afterwards."""
        before = self.snapshot()
        self.meshdev("connect", *arguments)
        try:
            yield
        finally:
            self.run("meshdev", "disconnect")
        assert self.snapshot() == before


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The time limit of a test is its own: the first one waits for the lock and, cold, for the whole cluster."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            marker = item.get_closest_marker("timeout")
            seconds = marker.args[0] if marker else float(config.getini("timeout"))
            item.add_marker(pytest.mark.timeout(seconds, func_only=True), append=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None]:
    """Fixtures have a time limit, too."""
    with _limited("setup"):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None]:
    """As in setup."""
    with _limited("teardown"):
        return (yield)


@contextmanager
def _limited(what: str) -> Iterator[None]:
    """By the signal that pytest-timeout uses for the test itself, between the two."""

    def expired(*_: object) -> None:
        pytest.fail(f"no end of the fixtures' {what} within {FIXTURE_SECONDS:g} s")

    former = signal.signal(signal.SIGALRM, expired)
    timer = signal.setitimer(signal.ITIMER_REAL, FIXTURE_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, former)


@pytest.fixture(scope="session", autouse=True)
def cluster(request: pytest.FixtureRequest) -> Iterator[None]:
    """The testbed is up and nobody else's tests use it."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    capture = request.config.pluginmanager.getplugin("capturemanager")

    def say(text: str) -> None:
        with capture.global_and_fixture_disabled():
            to_stderr(f"\n{text}")

    with locked_testbed(say):
        options = shlex.split(os.environ.get(kinds.VARIABLE, ""))
        wanted = kinds.ClusterKind(**kinds.parse(options))
        before = kinds.running(State.load().facts)
        if options and before not in {None, wanted}:
            control("down")
        control("up", *options, timeout=1500)
        # A running manager of the same protocol is used as it is: one of former sources is not what is tested.
        ours = ",".join(f"{key}={value}" for key, value in MANAGER_LABELS.items())
        kubectl("delete", "deployments", "--all-namespaces", "-l", ours, "--wait=false")
        signal.setitimer(signal.ITIMER_REAL, FIXTURE_SECONDS)
        yield
        # Who comes next without a wish for a kind expects the usual one.
        if options and wanted not in {before, kinds.DEFAULT}:
            control("down")


@pytest.fixture
def laptop() -> Iterator[Laptop]:
    """Laptop 1 (its resolv.conf is a plain file), disconnected before and after."""
    yield from _disconnected(Laptop(1))


@pytest.fixture
def dev() -> Iterator[Laptop]:
    """The developer on laptop 1, disconnected before and after."""
    laptop = Laptop(1, "dev")
    laptop.clean()
    yield laptop
    laptop.clean()


@pytest.fixture
def laptop2() -> Iterator[Laptop]:
    """Laptop 2 (systemd-resolved), disconnected before and after."""
    yield from _disconnected(Laptop(2))


@pytest.fixture(params=[(1, "root"), (1, "dev"), (2, "root"), (2, "dev")], ids=lambda at: f"{at[1]}@laptop{at[0]}")
def anyone(request: pytest.FixtureRequest) -> Iterator[Laptop]:
    """Every user on every laptop, disconnected before and after."""
    yield from _disconnected(Laptop(*request.param))


def _disconnected(laptop: Laptop) -> Iterator[Laptop]:
    laptop.clean()
    yield laptop
    laptop.clean()


@pytest.fixture
def connected(laptop: Laptop) -> Iterator[Laptop]:
    """Laptop 1, connected to namespace default."""
    with laptop.connected():
        yield laptop
