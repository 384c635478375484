"""run: the program's own exit code, input, output and signals; and nothing left afterwards."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import HERE, Commands, Terminal
from tests.cli.test_intercept import state, until_up

#: Waits for a signal, says which one came, and ends with 7.
WAITS = (
    "import signal, sys, pathlib\n"
    "def on(number, _):\n    print('got', signal.Signals(number).name, flush=True); sys.exit(7)\n"
    "for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):\n"
    "    assert signal.getsignal(number) is not signal.SIG_IGN; signal.signal(number, on)\n"
    "pathlib.Path(sys.argv[1]).touch(); signal.pause()\n"
)


def until_there(meshdev: Commands, path: Path) -> None:
    meshdev.wait_for(path.exists)


@pytest.mark.parametrize("connected", [True, False])
def test_the_exit_code_is_the_programs_and_nothing_is_left(meshdev: Commands, connected: bool) -> None:
    if connected:
        meshdev("connect")
    words = ["--proxy", "deploy/c", "--mesh", "deploy/b", "--header", "a=1"]
    for program, code in ((["true"], 0), (["sh", "-c", "exit 3"], 3), (["sh", "-c", "kill -9 $$"], 137)):
        ran = meshdev("run", *words, "--", *program)
        assert (ran.code, ran.out) == (code, "")
        # They are left at once, in no order.
        ended = [line for line in meshdev.trace() if line.startswith("ended")]
        assert set(ended[-2:]) == {"ended deploy/c", "ended deploy/b"}
        assert state(meshdev) == ("connected" if connected else "disconnected")


def test_input_and_output_are_the_programs(meshdev: Commands) -> None:
    ran = subprocess.run(
        [sys.executable, str(HERE / "driver.py"), "run", "--mesh", "deploy/b", "-H", "a=1", "cat", "-"],
        env=meshdev.environment(),
        input=b"\x00raw\xff\n",
        capture_output=True,
        timeout=20,
        check=True,
    )
    assert ran.stdout == b"\x00raw\xff\n"
    assert b"deploy/b, 2 pods" in ran.stderr


def test_a_full_disk_behind_stderr_is_the_programs_business(meshdev: Commands) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, str(HERE / "driver.py"), "run", "--", "sh", "-c", "exit 3"]
        assert subprocess.run(command, env=meshdev.environment(), stderr=full, timeout=20, check=False).returncode == 3


def test_words_of_the_program_are_not_ours(meshdev: Commands) -> None:
    for words in (("--", "echo", "-o", "json", "--help"), ("echo", "-o", "json", "--help")):
        ran = meshdev("run", *words)
        assert (ran.code, ran.out) == (0, "-o json --help\n")
    assert meshdev("run", "echo", "--", "a").out == "-- a\n"


def test_it_runs_while_everything_is_up(meshdev: Commands) -> None:
    script = "test -S $XDG_RUNTIME_DIR/meshdev/session.sock && grep -c ^up $XDG_RUNTIME_DIR/meshdev/trace"
    ran = meshdev("run", "--proxy", "deploy/b", "--", "sh", "-c", script)
    assert (ran.code, ran.out) == (0, "1\n")


def test_what_cannot_be_run(meshdev: Commands, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_text("true")
    for program, code in ((str(plain), 126), (str(tmp_path), 126), (str(tmp_path / "none"), 127), ("no-such-one", 127)):
        ran = meshdev("run", "--proxy", "deploy/b", "--", program)
        assert (ran.code, ran.out) == (code, "")
        assert f"cannot run {program}" in ran.err
    assert meshdev.trace() == [], "it was looked at before anything was touched"
    plain.chmod(0o755)  # no "#!" and no ELF: the kernel refuses it
    ran = meshdev("run", "--proxy", "deploy/b", "--", str(plain))
    assert ran.code == 126
    assert state(meshdev) == "disconnected"


def test_meshdevs_own_failure_is_125(meshdev: Commands) -> None:
    meshdev.plan(refuse="deploy/b")
    ran = meshdev("run", "--proxy", "deploy/c", "--mesh", "deploy/b", "-H", "a=1", "--", "echo", "no")
    assert (ran.code, ran.out) == (125, "")
    assert "jane@host has it" in ran.err
    assert "ended deploy/c" in meshdev.trace()
    assert state(meshdev) == "disconnected"
    meshdev.plan(fail_after=1)
    assert meshdev("run", "--", "true").code == 125


@pytest.mark.parametrize(("ends_with", "code"), [(0, 125), (3, 3)])
def test_an_intercept_that_is_lost_meanwhile(meshdev: Commands, tmp_path: Path, ends_with: int, code: int) -> None:
    go = tmp_path / "go"
    script = f"until test -e {go}; do sleep 0.05; done; echo done; exit {ends_with}"
    process = meshdev.start("run", "--proxy", "deploy/b", "--", "sh", "-c", script)
    until_up(meshdev)
    meshdev.say("lose")
    assert process.stderr is not None
    seen = ""
    while "lost" not in seen:
        seen += process.stderr.readline()
    assert "meshdev: the intercept of deploy/b is lost: taken over by jane@host" in seen
    go.touch()
    ran = meshdev.finish(process)
    assert (ran.code, ran.out) == (code, "done\n")
    assert state(meshdev) == "disconnected"


def test_a_connection_that_is_lost_meanwhile(meshdev: Commands) -> None:
    # kill(2) returns before the process is dead; a zombie has closed everything.
    script = "pid=$(sed -n 's/^start //p' $XDG_RUNTIME_DIR/meshdev/trace); kill -9 $pid; "
    script += "while grep -qs '^State:.[^ZX]' /proc/$pid/status; do sleep 0.01; done"
    ran = meshdev("run", "--", "sh", "-c", script)
    assert ran.code == 125
    assert "the connection was lost" in ran.err


def test_what_cannot_be_undone_afterwards(meshdev: Commands) -> None:
    meshdev.plan(leave_fails=True)
    for program, code in (("true", 125), ("false", 1)):
        ran = meshdev("run", "--proxy", "deploy/b", "--", program)
        assert ran.code == code
        assert "the Lease is still there" in ran.err
        assert state(meshdev) == "disconnected"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_signals_go_to_the_program(meshdev: Commands, tmp_path: Path, number: signal.Signals) -> None:
    ready = tmp_path / "ready"
    process = meshdev.start("run", "--proxy", "deploy/b", "--", sys.executable, "-c", WAITS, str(ready))
    until_there(meshdev, ready)
    process.send_signal(number)
    ran = meshdev.finish(process)
    assert (ran.code, ran.out) == (7, f"got {number.name}\n")
    assert "Traceback" not in ran.err
    assert state(meshdev) == "disconnected"


def test_the_keys_of_a_terminal_reach_it_once(meshdev: Commands, tmp_path: Path) -> None:
    counts = (
        "import signal, sys, pathlib, os\n"
        "signal.signal(signal.SIGINT, lambda *_: print('got one', flush=True))\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))\n"
        "assert os.tcgetpgrp(0) == os.getpgrp()\n"
        "pathlib.Path(sys.argv[1]).touch()\n"
        "while True: signal.pause()\n"
    )
    ready = tmp_path / "ready"
    terminal = Terminal(meshdev, "run", "--proxy", "deploy/b", "--", sys.executable, "-c", counts, str(ready))
    until_there(meshdev, ready)
    terminal.write("\x03")
    terminal.read_until("got one")
    terminal.write("\x03")
    terminal.process.terminate()
    assert terminal.finish() == 7
    assert terminal.seen.count("got one") <= 2
    assert state(meshdev) == "disconnected"


@pytest.mark.parametrize("moment", ["asked", "step0"])
def test_interrupted_before_the_program_runs(meshdev: Commands, moment: str) -> None:
    meshdev.plan(hold_intercepts=True, hold=moment)
    process = meshdev.start("run", "--proxy", "deploy/b", "--", "echo", "no")
    meshdev.wait_for_trace(moment)
    process.send_signal(signal.SIGINT)
    ran = meshdev.finish(process)
    assert (ran.code, ran.out) == (130, "")
    assert state(meshdev) == "disconnected"
