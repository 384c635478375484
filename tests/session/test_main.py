"""The session's process: why it ended reaches whoever asks, also where nothing can be written."""

import argparse
import logging
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshdev.cli.launch import session_command
from meshdev.errors import MeshdevError, TunnelError
from meshdev.session import __main__ as main
from meshdev.session.supervisor import Supervisor
from meshdev.state import Paths
from meshdev.wire.session_api import ConnectOptions, Failed, parse_event
from tests.waiting import until


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    return Paths(tmp_path)


@pytest.fixture
def caller(paths: Paths) -> Iterator[tuple[socket.socket, argparse.Namespace]]:
    """The end of the ``connect`` that waits, and what it starts a session with."""
    (caller, progress), (helper, theirs) = socket.socketpair(), socket.socketpair()
    caller.settimeout(5)
    caller.sendall(ConnectOptions().encode())
    descriptors = {"progress": progress.detach(), "helper": helper.detach()}
    arguments = argparse.Namespace(**descriptors, ssh=None, folder=paths.directory)
    with caller, theirs:
        yield caller, arguments


def _broken(path: Path, error: MeshdevError, monkeypatch: pytest.MonkeyPatch, *, full: bool) -> None:
    """The connection stands and breaks; meanwhile the disk may have become full."""

    def harm() -> None:
        assert not path.exists()
        if full:
            path.symlink_to("/dev/full")
            monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)

    async def run(supervisor: Supervisor, _api: Path) -> int:
        harm()
        supervisor.broken = error
        return error.exit_code

    monkeypatch.setattr(Supervisor, "run", run)


async def test_why_it_ended_is_kept_for_status(
    paths: Paths, caller: tuple[socket.socket, argparse.Namespace], monkeypatch: pytest.MonkeyPatch
) -> None:
    paths.ended.write_text("a former reason")
    error = TunnelError("every carrier is gone")
    _broken(paths.ended, error, monkeypatch, full=False)
    assert await main.session(caller[1]) == error.exit_code
    assert paths.ended.read_text().endswith(": every carrier is gone\n")


async def test_a_full_disk_hides_neither_reason_nor_exit_code(
    paths: Paths,
    caller: tuple[socket.socket, argparse.Namespace],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = TunnelError("every carrier is gone")
    _broken(paths.ended, error, monkeypatch, full=True)
    with caplog.at_level(logging.WARNING):
        assert await main.session(caller[1]) == error.exit_code
    assert "No space left on device; it was: every carrier is gone" in caplog.text


async def test_whoever_waits_is_told_that_the_session_cannot_listen(
    paths: Paths, caller: tuple[socket.socket, argparse.Namespace]
) -> None:
    paths.socket.mkdir()
    code = await main.session(caller[1])
    told = parse_event(caller[0].recv(65536).rstrip(b"\n"))
    assert isinstance(told, Failed)
    assert "cannot listen at" in told.message
    assert code == told.exit_code


async def test_the_stacks_of_a_session_that_hangs_are_logged(tmp_path: Path) -> None:
    log, (caller, inherited) = tmp_path / "session.log", socket.socketpair()
    with caller, inherited:
        process = _started(inherited, log)
        try:
            await until(lambda: _catches(process.pid, signal.SIGUSR1))
            process.send_signal(signal.SIGUSR1)
            await until(lambda: "in main" in log.read_text())
            assert process.poll() is None, "it goes on"
        finally:
            process.kill()
            process.wait()


def _started(stdin: socket.socket, log: Path) -> subprocess.Popen[bytes]:
    """A session that waits for its options, from its stdin."""
    inherited = ("--helper", "0", "--progress", "0", "--lock", "0", "--folder", str(log.parent))
    with log.open("wb") as output:
        return subprocess.Popen([*session_command(), *inherited], stdin=stdin.fileno(), stdout=output, stderr=output)


def _catches(pid: int, number: int) -> bool:
    """Whether the process has a handler for that signal (proc(5), "SigCgt")."""
    status = Path(f"/proc/{pid}/status").read_text()
    caught = next(line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught, 16) >> (number - 1) & 1)
