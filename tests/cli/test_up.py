"""up and down: real processes, with a session that only speaks; and nothing left afterwards."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Commands, Terminal
from tests.cli.shop import Shop
from tests.cli.test_intercept import state
from tests.loops import DEADLINE_SECONDS


@pytest.fixture
def shop(meshdev: Commands, tmp_path: Path) -> Iterator[Shop]:
    folder = tmp_path / "shop"
    folder.mkdir()
    made = Shop(meshdev, folder)
    yield made
    meshdev("down", "-f", str(made.file))
    assert made.processes() == []


def test_all_is_up_and_ctrl_c_undoes_all_of_it(shop: Shop) -> None:
    process = shop.up()
    assert (shop.folder / "prepared").read_text() == "prepared\n"
    assert len([line for line in shop.meshdev.trace() if line.startswith("up")]) == 2
    process.send_signal(signal.SIGINT)
    ran = shop.meshdev.finish(process)
    assert ran.code == 130
    assert "web     | hello from web\n" in ran.out
    assert "b       | ending by SIGTERM\n" in ran.out
    assert "Traceback" not in ran.out + ran.err
    ended = [line for line in shop.meshdev.trace() if line.startswith("ended")]
    assert sorted(ended) == ["ended deployment/b", "ended deployment/c"]
    assert state(shop.meshdev) == "disconnected"
    assert shop.processes() == []


def test_a_connection_that_was_there_stays(shop: Shop) -> None:
    shop.meshdev("connect")
    process = shop.up()
    process.terminate()
    assert shop.meshdev.finish(process).code == 130
    assert state(shop.meshdev) == "connected"
    shop.edit("intercepts:", "connection: {namespace: team-9}\nintercepts:")
    ran = shop.meshdev.finish(shop.start())
    assert ran.code == 56
    assert "the file wants team-9" in ran.err


def test_a_second_one_changes_nothing_and_an_edit_is_named(shop: Shop) -> None:
    process = shop.up()
    before = shop.processes()
    ran = shop.meshdev.finish(shop.start())
    assert (ran.code, ran.out) == (0, f"Already up (pid {process.pid}): nothing to change\n")
    assert shop.meshdev.finish(shop.start("-o", "json")).json()["changed"] is False
    assert "nothing to change" in shop.meshdev.finish(shop.start("--dry-run")).out
    shop.edit("WHO: web", "WHO: other")
    ran = shop.meshdev.finish(shop.start("-o", "json"))
    assert ran.code == 59
    assert "has changed since: process web changed" in ran.json()["error"]["message"]
    assert "process web changed" in shop.meshdev.finish(shop.start("--dry-run")).out
    assert shop.processes() == before
    down = shop.meshdev("down", "-f", str(shop.file))
    assert (down.code, down.out) == (0, "Ended\n")
    assert shop.meshdev.finish(process).code == 0
    assert shop.meshdev("down", "-f", str(shop.file), "-o", "json").json() == {"ended": False}


def test_two_at_once_wait_for_each_other(shop: Shop) -> None:
    shop.meshdev.plan(hold_intercepts=True)
    first = shop.start()
    shop.meshdev.wait_for_trace("asked")
    second = shop.start()
    shop.meshdev.go()
    shop.until_up(first)
    assert "nothing to change" in shop.meshdev.finish(second).out
    first.terminate()
    shop.meshdev.finish(first)


def test_the_plan_touches_nothing(shop: Shop) -> None:
    ran = shop.meshdev.finish(shop.start("--dry-run"))
    assert (ran.code, ran.err) == (0, "")
    assert [line.split()[:2] for line in ran.out.splitlines()] == [
        ["connect", "the"],
        ["start", "prepare:"],
        ["intercept", "c:"],
        ["start", "b:"],
        ["intercept", "b:"],
        ["start", "web:"],
    ]
    plan = shop.meshdev.finish(shop.start("--dry-run", "-o", "json")).json()
    assert (plan["state"], plan["changes"], len(plan["steps"])) == ("down", [], 6)
    assert shop.meshdev.trace() == []
    assert not (shop.folder / "prepared").exists()


def test_in_the_background(shop: Shop) -> None:
    ran = shop.meshdev.finish(shop.start("--detach"))
    assert ran.code == 0
    assert "Up in the background (pid " in ran.out
    log = Path(ran.out.partition("log: ")[2].splitlines()[0])
    shop.meshdev.wait_for(lambda: "hello from web" in log.read_text())
    assert log.stat().st_mode & 0o777 == 0o600
    assert state(shop.meshdev) == "connected"
    assert shop.meshdev.finish(shop.start("--detach")).out.startswith("Already up")
    assert shop.meshdev("down", "-f", str(shop.file)).out == "Ended\n"
    assert shop.processes() == []
    assert state(shop.meshdev) == "disconnected"


def test_in_the_background_what_fails_is_told(shop: Shop) -> None:
    shop.edit("echo prepared > prepared", "echo no disk; exit 3")
    ran = shop.meshdev.finish(shop.start("--detach"))
    assert ran.code == 58
    assert "prepare | no disk" in ran.err
    assert "meshdev: process prepare exited with 3 before it was ready" in ran.err
    assert state(shop.meshdev) == "disconnected"


def test_in_the_background_ctrl_c_before_it_is_up(shop: Shop) -> None:
    shop.meshdev.plan(hold_intercepts=True)
    process = shop.start("--detach")
    shop.meshdev.wait_for_trace("asked")
    process.send_signal(signal.SIGINT)
    assert shop.meshdev.finish(process).code == 130
    assert state(shop.meshdev) == "disconnected"


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137)])
def test_a_program_runs_when_all_is_up_and_its_code_is_the_commands(shop: Shop, script: str, code: int) -> None:
    ran = shop.meshdev.finish(shop.start("--", "sh", "-c", f"cat {shop.folder}/prepared; {script}"))
    assert (ran.code, ran.out) == (code, "prepared\n")
    assert "web     | hello from web" in ran.err
    assert state(shop.meshdev) == "disconnected"
    assert shop.processes() == []


def test_a_program_for_what_is_up_already_leaves_it(shop: Shop) -> None:
    shop.meshdev.finish(shop.start("--detach"))
    ran = shop.meshdev.finish(shop.start("--", "sh", "-c", "echo mine; exit 4"))
    assert (ran.code, ran.out) == (4, "mine\n")
    assert len(shop.processes()) == 2


def test_codes_of_a_program_that_cannot_run(shop: Shop) -> None:
    for program, code in (("no-such-one", 127), (str(shop.folder), 126)):
        assert shop.meshdev.finish(shop.start("--", program)).code == code
    assert shop.meshdev.trace() == []
    shop.edit("exec sleep 60", "exit 5")
    assert shop.meshdev.finish(shop.start("--", "sleep", "0.3")).code == 125, "web failed meanwhile"
    shop.edit("echo prepared > prepared", "exit 3")
    ran = shop.meshdev.finish(shop.start("--", "echo", "no"))
    assert (ran.code, ran.out) == (125, "")
    assert shop.meshdev.finish(shop.start("--detach", "--", "true")).code == 125


def test_down_ends_a_program_too(shop: Shop) -> None:
    process = shop.start("--", "sh", "-c", f"touch {shop.folder}/runs; exec sleep 60")
    shop.meshdev.wait_for((shop.folder / "runs").exists)
    assert shop.meshdev("down", "-f", str(shop.file)).out == "Ended\n"
    assert shop.meshdev.finish(process).code == 143


def test_a_wrong_file_names_line_and_column(shop: Shop) -> None:
    shop.edit("serves: [b]", "serve: [b]")
    ran = shop.meshdev.finish(shop.start())
    assert ran.code == 12
    assert f"{shop.file}:11:5: processes.b.serve: unknown key, did you mean serves?" in ran.err
    error = shop.meshdev.finish(shop.start("-o", "json")).json()["error"]
    assert error["code"] == "project-file"
    assert shop.meshdev.trace() == []


def test_what_is_not_there_is_found_before_anything_is_touched(shop: Shop) -> None:
    shop.edit("command: echo prepared > prepared", "command: [no-such-program]")
    ran = shop.meshdev.finish(shop.start())
    assert ran.code == 12
    assert ":7:14: processes.prepare.command: no-such-program is no program that can be run" in ran.err
    shop.edit("command: [no-such-program]", "command: echo\n    workingDir: none")
    assert "processes.prepare.workingDir: there is no folder" in shop.meshdev.finish(shop.start()).err
    shop.file.unlink()
    assert "cannot be read: No such file or directory" in shop.meshdev.finish(shop.start()).err
    assert shop.meshdev.trace() == []


def test_what_fails_at_the_start_undoes_everything(shop: Shop) -> None:
    good = shop.file.read_text()
    for old, new, why in (
        ("echo prepared > prepared", "exit 3", "process prepare exited with 3 before it was ready"),
        (
            f'localhost:{shop.port}/", timeout: 10s',
            'localhost:1/", timeout: 300ms',
            "process b is not ready after 0.3 s",
        ),
    ):
        shop.edit(old, new)
        ran = shop.meshdev.finish(shop.start())
        assert ran.code == 58
        assert f"meshdev: {why}" in ran.err
        assert state(shop.meshdev) == "disconnected"
        assert shop.processes() == []
        shop.file.write_text(good)
    shop.meshdev.plan(refuse="deployment/b")
    ran = shop.meshdev.finish(shop.start())
    assert ran.code == 60
    assert "jane@host has it" in ran.err
    assert shop.processes() == []


def test_another_program_on_the_port_is_noticed(shop: Shop) -> None:
    with socket.create_server(("127.0.0.1", shop.port)):
        ran = shop.meshdev.finish(shop.start())
    assert ran.code == 58
    assert f"another program listens on 127.0.0.1:{shop.port} already" in ran.err


def test_one_that_exits_later_is_reported_and_started_again_where_wanted(shop: Shop) -> None:
    shop.edit("serves: [b]", "serves: [b]\n    restart: on-failure")
    process = shop.up()
    first = shop.pid("b")
    os.kill(first, signal.SIGKILL)
    shop.meshdev.wait_for(lambda: shop.pid("b") != first)
    os.kill(shop.pid("web"), signal.SIGKILL)
    shop.meshdev.wait_for(lambda: len(shop.processes()) == 1)
    process.terminate()
    ran = shop.meshdev.finish(process)
    assert ran.code == 130
    assert "process b exited with 137; it starts again in 0.5 s" in ran.err
    assert "process web exited with 137" in ran.err


def test_children_of_processes_end_with_them(shop: Shop) -> None:
    shop.edit("exec sleep 60", "sleep 60 & sleep 60 & wait")
    process = shop.up()
    shop.meshdev.wait_for(lambda: len(shop.processes()) == 4)
    process.terminate()
    assert shop.meshdev.finish(process).code == 130
    assert shop.processes() == []


def test_output_that_cannot_be_written_ends_the_program_too(shop: Shop) -> None:
    shop.edit("exec sleep 60", "while sleep 0.1; do echo again; done")
    process = shop.start(
        "--", "sh", "-c", f"echo $$ > {shop.folder}/new; mv {shop.folder}/new {shop.folder}/program.pid; exec sleep 60"
    )
    shop.meshdev.wait_for((shop.folder / "program.pid").exists)
    assert process.stderr is not None
    process.stderr.close()
    assert process.wait(DEADLINE_SECONDS) != 0
    shop.meshdev.wait_for(lambda: not Path(f"/proc/{shop.pid('program')}").exists())
    assert shop.processes() == []


def test_a_process_that_ignores_sigterm_is_killed(shop: Shop) -> None:
    shop.edit("exec sleep 60", "trap '' TERM; sleep 60")
    shop.edit("env: {WHO: web}", "env: {WHO: web}\n    stopTimeout: 300ms")
    process = shop.up()
    process.terminate()
    ran = shop.meshdev.finish(process)
    assert ran.code == 130
    assert "process web did not end in 0.3 s: killing it" in ran.err
    assert shop.processes() == []


def test_a_command_that_is_killed_takes_its_processes_with_it(shop: Shop) -> None:
    shop.edit("exec sleep 60", "trap '' TERM; sleep 60")
    shop.edit("env: {WHO: web}", "env: {WHO: web}\n    stopTimeout: 500ms")
    process = shop.up()
    shop.meshdev.wait_for(lambda: len(shop.processes()) == 3)
    old = set(shop.processes())
    process.kill()
    process.communicate()
    again = shop.up()
    assert not old & set(shop.processes()), "the new one waited for the end of the old ones"
    again.kill()
    again.communicate()
    assert shop.meshdev("down", "-f", str(shop.file)).out == "Ended\n"
    assert shop.processes() == []
    shop.meshdev.wait_for(lambda: len([word for word in shop.meshdev.trace() if word.startswith("ended")]) == 4)
    shop.meshdev("disconnect")


def test_the_file_from_standard_input(shop: Shop) -> None:
    command = [sys.executable, str(Path(__file__).parent / "driver.py"), "up", "-f", "-", "--dry-run"]
    text = "processes: {b: {command: 3}}"
    ran = subprocess.run(
        command, env=shop.meshdev.environment(), input=text, capture_output=True, text=True, timeout=20, check=False
    )
    assert ran.returncode == 12
    assert ran.stderr.startswith("meshdev: standard input:1:26: processes.b.command: must be a text or a list, not 3")


def test_on_a_terminal_names_are_coloured_and_ctrl_c_reaches_only_the_command(shop: Shop) -> None:
    terminal = Terminal(shop.meshdev, "up", "-f", str(shop.file))
    terminal.read_until("| up")
    terminal.write("\x03")
    assert terminal.finish() == 130
    assert "\x1b[36mprepare | \x1b[0m" in terminal.seen or "\x1b[33mb       | \x1b[0m" in terminal.seen
    assert "ending by SIGTERM" in terminal.seen
    assert "SIGINT" not in terminal.seen


def test_json_when_it_is_up(shop: Shop) -> None:
    process = shop.start("-o", "json")
    shop.until_up(process)
    shop.meshdev("down", "-f", str(shop.file))
    ran = shop.meshdev.finish(process)
    assert ran.code == 0
    found = json.loads(ran.out)
    assert (found["state"], found["changed"], found["processes"]["b"]) == ("up", True, "ready")
