"""Commands as real processes, each test with a folder of its own for the connection."""

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from meshdev.state import Paths
from tests.schemas.validating import validate

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


@dataclass
class Ran:
    """What a command left."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Commands:
    """Runs ``meshdev`` for one made-up user."""

    home: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def paths(self) -> Paths:
        return Paths(self.home / "meshdev")

    def plan(self, **plan: Any) -> None:
        """How the next sessions behave."""
        self.env["FAKE_SESSION"] = json.dumps(plan)

    def environment(self) -> dict[str, str]:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("FAKE_", "MESHDEV_"))}
        inherited.pop("PYTHONDONTWRITEBYTECODE", None)  # or every process here would compile meshdev anew
        own = {"XDG_RUNTIME_DIR": str(self.home), "HOME": str(self.home), "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}
        own["KUBECONFIG"] = str(self.home / "config")
        return {**inherited, **own, **self.env}

    def start(self, *words: str, pass_fds: tuple[int, ...] = ()) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, str(HERE / "driver.py"), *words],
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            pass_fds=pass_fds,
        )

    def __call__(self, *words: str, seconds: float = 20) -> Ran:
        ran = self.finish(self.start(*words), seconds)
        validate(words, ran.out)
        return ran

    def finish(self, process: "subprocess.Popen[str]", seconds: float = 20) -> Ran:
        """Wait for the end, and for the end of what it printed."""
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return Ran(process.returncode, out, err)

    def trace(self) -> list[str]:
        """What the sessions wrote."""
        with contextlib.suppress(FileNotFoundError):
            return (self.paths.directory / "trace").read_text().splitlines()
        return []

    def wait_for(self, true: Callable[[], Any], seconds: float = 10) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"not in {seconds} s; trace: {self.trace()}"
            time.sleep(0.01)

    def wait_for_trace(self, word: str) -> None:
        """Wait until the session has come to that word."""
        self.wait_for(lambda: any(line.startswith(word) for line in self.trace()))

    def go(self) -> None:
        """A session that holds goes on."""
        self.say("go")

    def say(self, word: str) -> None:
        """A file that the session looks for."""
        (self.paths.directory / word).touch()

    def pids(self) -> list[int]:
        """The sessions that were started."""
        return [int(line.split()[1]) for line in self.trace() if line.startswith("start ")]


@pytest.fixture
def meshdev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    home = tmp_path_factory.mktemp("u")
    home.chmod(0o700)
    commands = Commands(home)
    yield commands
    for pid in commands.pids():
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            if b"fake_session" in Path(f"/proc/{pid}/cmdline").read_bytes():
                os.kill(pid, signal.SIGKILL)


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, commands: Commands, *words: str) -> None:
        self.seen = ""
        self._ours, theirs = pty.openpty()
        command = [sys.executable, str(HERE / "driver.py"), *words]
        self.process = subprocess.Popen(
            command,
            env={**commands.environment(), "TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 -- the only way to a terminal
        )
        os.close(theirs)

    def write(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def read_until(self, text: str, seconds: float = 10) -> None:
        end = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < end, f"no {text!r} in {self.seen!r}"
            if select.select([self._ours], [], [], 0.1)[0] and not self._read():
                break
        assert text in self.seen, self.seen

    def finish(self, seconds: float = 20) -> int:
        """The exit code, with everything seen."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and (select.select([self._ours], [], [], 0.1)[0] or self.process.poll() is None):
            if select.select([self._ours], [], [], 0)[0] and not self._read():
                break
        code = self.process.wait(max(end - time.monotonic(), 0.1))
        os.close(self._ours)
        return code

    def _read(self) -> bool:
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # EIO: nobody has the other side open any more
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)


@pytest.fixture
def sudo(meshdev: Commands) -> Callable[[str], None]:
    """Sets sudo's mood; the commands then think that they are not root."""

    def use(mood: str) -> None:
        folder = meshdev.home / "bin"
        folder.mkdir(exist_ok=True)
        script = folder / "sudo"
        script.write_text(f'#!/bin/sh\nexec {sys.executable} {HERE / "fake_sudo.py"} "$@"\n')
        script.chmod(0o755)
        meshdev.env["FAKE_SUDO"] = mood
        meshdev.env["PATH"] = f"{folder}:{os.environ['PATH']}"

    return use
