"""Root for the helper: without a word where that is allowed, by one question on the terminal, or a clear no."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import ROOT, Commands, Terminal

Sudo = Callable[[str], None]
PROMPT = "[meshdev] password for "


def test_sudo_without_a_password_asks_nothing(meshdev: Commands, sudo: Sudo) -> None:
    sudo("free")
    assert meshdev("connect").code == 0


def test_without_a_terminal_nobody_is_asked(meshdev: Commands, sudo: Sudo) -> None:
    sudo("password")
    ran = meshdev("connect", "-o", "json")
    assert ran.code == 52
    assert "a password is required" in ran.json()["error"]["message"]
    assert "sudoers" in ran.json()["error"]["hint"]
    assert meshdev.trace()[-1] == "undone"


def test_who_may_not_is_told(meshdev: Commands, sudo: Sudo) -> None:
    sudo("refused")
    ran = meshdev("connect")
    assert ran.code == 52
    assert "dev is not in the sudoers file" in ran.err


def test_code_that_others_can_write_gets_no_root(meshdev: Commands, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(ROOT / "meshdev", copy / "meshdev")
    meshdev.env["PYTHONPATH"] = f"{copy}:{ROOT}"
    (copy / "meshdev" / "wire").chmod(0o777)
    ran = meshdev("connect")
    assert ran.code == 50
    assert f"{copy}/meshdev/wire: everyone can write to it" in ran.err
    assert "install meshdev where only root or you can write" in ran.err
    assert not meshdev.paths.helper_log.exists()  # nothing was started
    (copy / "meshdev" / "wire").chmod(0o755)
    assert meshdev("connect").code == 0


def test_no_sudo_at_all(meshdev: Commands, sudo: Sudo) -> None:
    sudo("free")
    meshdev.env["PATH"] = str(meshdev.home)
    ran = meshdev("connect")
    assert ran.code == 52
    assert "sudo is not installed" in ran.err


def test_the_password_is_asked_for_once_the_cluster_answers(meshdev: Commands, sudo: Sudo) -> None:
    sudo("password")
    terminal = Terminal(meshdev, "connect")
    terminal.read_until(PROMPT)
    assert "value 0" in terminal.seen
    terminal.write("secret\n")
    assert terminal.finish() == 0, terminal.seen
    assert terminal.seen.count(PROMPT) == 1
    assert "value 1" in terminal.seen
    assert "Connected to dev" in terminal.seen


def test_a_session_without_an_early_step_is_no_deadlock(meshdev: Commands, sudo: Sudo) -> None:
    sudo("password")
    meshdev.env["FAKE_SHORT"] = "1"
    meshdev.plan(step_before_helper=False)
    terminal = Terminal(meshdev, "connect")
    terminal.read_until(PROMPT)
    terminal.write("secret\n")
    assert terminal.finish() == 0, terminal.seen


def test_nobody_types_a_password_for_an_error(meshdev: Commands, sudo: Sudo) -> None:
    sudo("password")
    meshdev.plan(fail_after=0)
    terminal = Terminal(meshdev, "connect")
    assert terminal.finish() == 34
    assert PROMPT not in terminal.seen
    assert "the pod does not start" in terminal.seen


def test_a_wrong_password_undoes_everything(meshdev: Commands, sudo: Sudo) -> None:
    sudo("password")
    terminal = Terminal(meshdev, "connect")
    terminal.read_until(PROMPT)
    terminal.write("wrong\n")
    assert terminal.finish() == 52, terminal.seen
    assert "1 incorrect password attempt" in terminal.seen
    assert meshdev.trace()[-1] == "undone"


def test_ctrl_c_at_the_prompt_undoes_everything(meshdev: Commands, sudo: Sudo) -> None:
    sudo("password")
    terminal = Terminal(meshdev, "connect")
    terminal.read_until(PROMPT)
    terminal.write("\x03")
    assert terminal.finish() == 130, terminal.seen
    # The terminal's signal ends sudo, too: the session hears first of whichever is quicker, and undoes for either.
    assert meshdev.trace()[-1] == "undone"


def test_ctrl_c_on_a_terminal_spares_the_session(meshdev: Commands) -> None:
    """It is the session that undoes: it must not be hit itself, so it is in a session of its own."""
    meshdev.plan(hold="step0", undo_seconds=0.5)
    terminal = Terminal(meshdev, "connect")
    terminal.read_until("value 0")
    terminal.write("\x03")
    assert terminal.finish() == 130, terminal.seen
    assert meshdev.trace()[-2:] == ["cancelled", "undone"]


def test_a_closed_terminal_ends_the_connect_not_the_connection(meshdev: Commands) -> None:
    terminal = Terminal(meshdev, "connect")
    assert terminal.finish() == 0, terminal.seen
    assert Path(f"/proc/{meshdev.pids()[0]}").exists()
    assert os.getsid(meshdev.pids()[0]) != terminal.process.pid
