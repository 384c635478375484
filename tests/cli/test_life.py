"""status, disconnect, restore: with a session, without one, and with one that hangs."""

import json
import os
import signal
import time
from collections.abc import Callable

import pytest

from meshdev.helper.journal import started
from meshdev.host.journal import DeleteTable, JournalRecord, RestoreFile
from tests.cli.conftest import Commands


def test_nothing_to_do_is_no_error(meshdev: Commands) -> None:
    for words, text in ((("disconnect",), "Not connected"), (("restore",), "Nothing to restore")):
        ran = meshdev(*words)
        assert (ran.code, ran.out.strip(), ran.err) == (0, text, "")
    ran = meshdev("status")
    assert (ran.code, ran.out, ran.err) == (0, "Disconnected\n", "")
    assert not meshdev.paths.directory.exists()


def test_status_is_the_sessions(meshdev: Commands) -> None:
    meshdev.plan(status={"address": "198.18.0.1", "routes": ["10.96.0.0/16"]})
    meshdev("connect")
    status = meshdev("status", "-o", "json").json()
    assert status["state"] == "connected"
    assert status["address"] == "198.18.0.1"
    text = meshdev("status").out
    assert "198.18.0.1" in text
    assert "10.96.0.0/16" in text


def test_status_while_connecting(meshdev: Commands) -> None:
    meshdev.plan(start_seconds=0.3, hold="step0")
    process = meshdev.start("connect")
    meshdev.wait_for_trace("start")
    assert meshdev("status", "-o", "json").json()["state"] == "connecting"
    meshdev.go()
    assert meshdev.finish(process).code == 0


def test_disconnect_waits_for_the_end(meshdev: Commands) -> None:
    meshdev.plan(undo_seconds=0.5)
    meshdev("connect")
    ran = meshdev("disconnect")
    assert (ran.code, ran.out) == (0, "Disconnected\n")
    assert meshdev.trace()[-2:] == ["disconnect", "undone"]
    assert meshdev("status", "-o", "json").json()["state"] == "disconnected"
    assert meshdev("connect").code == 0


@pytest.fixture
def hung(meshdev: Commands) -> int:
    """A session that does not answer."""
    assert meshdev("connect").code == 0
    pid = meshdev.pids()[0]
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_a_session_that_hangs_is_never_called_connected(meshdev: Commands, hung: int) -> None:
    started = time.monotonic()
    ran = meshdev("status", "-o", "json")
    assert time.monotonic() - started < 4
    assert ran.code == 0
    assert ran.json()["state"] == "reconnecting"
    assert ran.json()["pids"]["session"] == hung
    assert "meshdev disconnect" in ran.json()["notes"][0]
    meshdev.env["FAKE_SHORT"] = "1"
    assert meshdev("connect").code == 56


def test_disconnect_ends_a_session_that_hangs(meshdev: Commands, hung: int) -> None:
    meshdev.env["FAKE_SHORT"] = "1"
    ran = meshdev("disconnect")
    assert (ran.code, ran.out) == (0, "Disconnected\n")
    assert meshdev("status", "-o", "json").json()["state"] == "disconnected"
    assert hung in meshdev.pids()


def test_a_killed_session_is_gone(meshdev: Commands) -> None:
    meshdev("connect")
    os.kill(meshdev.pids()[0], signal.SIGKILL)
    assert meshdev("status", "-o", "json").json()["state"] == "disconnected"
    assert meshdev("disconnect").code == 0
    assert meshdev("connect").code == 0


def _journal(meshdev: Commands, pid: int, began: int) -> None:
    folder = meshdev.home / "run"
    folder.mkdir()
    entries = (DeleteTable("meshdev_0"), RestoreFile("/nowhere/resolv.conf", b""))
    (folder / f"{os.getuid()}.json").write_bytes(JournalRecord(os.getuid(), pid, began, entries).encode())


def test_what_a_dead_helper_left_is_told_and_restored(meshdev: Commands) -> None:
    _journal(meshdev, pid=os.getpid(), began=1)  # a pid that is in use again, by a younger process
    status = meshdev("status", "-o", "json").json()
    assert (status["state"], status["leftovers"]) == ("disconnected", ["nft table inet meshdev_0"])
    assert "`meshdev restore` removes it" in meshdev("status").out
    assert meshdev("disconnect").out.splitlines() == [
        "Not connected",
        "Something is left over: `meshdev restore` removes it",
    ]
    ran = meshdev("restore")
    assert (ran.code, ran.out) == (0, "Restored: nft table inet meshdev_0\n")
    assert meshdev("restore").out == "Nothing to restore\n"


def test_what_stays_is_told(meshdev: Commands) -> None:
    _journal(meshdev, pid=os.getpid(), began=1)
    meshdev.env["FAKE_HELPER_STUCK"] = "1"
    ran = meshdev("restore")
    assert ran.code == 50
    assert "still there: nft table inet meshdev_0" in ran.err


def test_why_it_could_not_be_undone_is_told(meshdev: Commands) -> None:
    _journal(meshdev, pid=os.getpid(), began=1)
    error = {"code": "laptop", "message": "not everything could be undone: read-only", "hint": None}
    meshdev.env["FAKE_HELPER_FAILS"] = json.dumps({"error": error})
    ran = meshdev("restore")
    assert (ran.code, ran.err) == (50, "meshdev: not everything could be undone: read-only\n")


def test_restore_needs_root_only_for_what_is_there(meshdev: Commands, sudo: Callable[[str], None]) -> None:
    sudo("refused")
    assert meshdev("restore").code == 0
    _journal(meshdev, pid=os.getpid(), began=1)
    ran = meshdev("restore")
    assert ran.code == 52
    assert "not in the sudoers file" in ran.err


def test_a_live_helper_is_left_alone_and_not_called_disconnected(meshdev: Commands) -> None:
    _journal(meshdev, pid=os.getpid(), began=started(os.getpid()) or 0)
    status = meshdev("status", "-o", "json").json()
    assert (status["state"], status["leftovers"]) == ("reconnecting", [])
    assert status["pids"]["helper"] == os.getpid()
    assert meshdev("restore").out == "Nothing to restore\n"


def test_a_reader_that_leaves_is_no_error(meshdev: Commands) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = meshdev.start("status")
    process.stdout.close()  # type: ignore[union-attr]  # start() makes it a pipe
    assert "Traceback" not in process.stderr.read()  # type: ignore[union-attr]  # the same
    process.wait(10)
    os.close(writer)


def test_why_a_connection_ended_is_told_until_the_user_knows(meshdev: Commands) -> None:
    folder = meshdev.home / "meshdev"
    folder.mkdir(mode=0o700)
    (folder / "ended").write_text("16:10:03: the TUN device is gone\n")
    assert (
        meshdev("status").out == "Disconnected\nnote: the last connection ended at 16:10:03: the TUN device is gone\n"
    )
    assert meshdev("disconnect").out == "Not connected\n"
    assert meshdev("status").out == "Disconnected\n"
