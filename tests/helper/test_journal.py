"""The journal's file: who may hold it, and that it is whole at any moment."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from meshdev.errors import AlreadyConnectedError, LaptopError
from meshdev.helper import journal as journal_module
from meshdev.helper.journal import JournalFile, read_record, started
from meshdev.helper.restore import leftovers, restore
from meshdev.host.dns import MARKER
from meshdev.host.journal import DeleteDevice, JournalRecord, RestoreFile

FORMER = b"nameserver 192.0.2.1\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for /run/meshdev; a lock that is taken is given up on at once."""
    monkeypatch.setattr(journal_module, "_LOCK_SECONDS", 0)
    return tmp_path / "meshdev"


def _dead(folder: Path, *entries: RestoreFile | DeleteDevice) -> None:
    """A journal whose helper was killed."""
    journal = JournalFile(1000, folder)
    for entry in entries:
        journal.add(entry)
    journal.close()
    process = subprocess.Popen([sys.executable, "-c", ""])
    record = JournalRecord(1000, process.pid, started(process.pid) or 0, entries)
    process.wait()
    (folder / "1000.json").write_bytes(record.encode())


def test_it_is_readable_by_all_and_its_lock_by_its_owner_alone(folder: Path) -> None:
    old = os.umask(0o077)
    try:
        journal = JournalFile(1000, folder)
        journal.add(DeleteDevice("meshdev0", 7))
    finally:
        os.umask(old)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert stat.S_IMODE((folder / "1000.json").stat().st_mode) == 0o644
    assert stat.S_IMODE((folder / "1000.lock").stat().st_mode) == 0o600
    record = read_record(1000, folder)
    assert record is not None
    assert (record.pid, record.started) == (os.getpid(), started(os.getpid()))
    assert record.entries == (DeleteDevice("meshdev0", 7),)
    journal.close()


def test_one_at_a_time(folder: Path) -> None:
    journal = JournalFile(1000, folder)
    with pytest.raises(AlreadyConnectedError):
        JournalFile(1000, folder)
    JournalFile(1001, folder).close()
    journal.close()
    JournalFile(1000, folder).close()


def test_without_entries_there_is_no_file(folder: Path) -> None:
    journal = JournalFile(1000, folder)
    assert read_record(1000, folder) is None
    entry = DeleteDevice("meshdev0", 7)
    journal.add(entry)
    journal.remove(entry)
    journal.remove(entry)
    assert read_record(1000, folder) is None
    journal.close()


def test_a_folder_of_somebody_else_is_refused(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(LaptopError, match="belongs to another user"):
        JournalFile(1000, folder)


def test_a_file_that_is_no_journal_is_an_error_with_a_way_out(folder: Path) -> None:
    folder.mkdir()
    (folder / "1000.json").write_text("{")
    with pytest.raises(LaptopError, match="cannot be read") as caught:
        JournalFile(1000, folder)
    assert "sudo rm" in str(caught.value.hint)
    assert "cannot be read" in leftovers(1000, folder)[0]
    (folder / "1000.json").unlink()
    JournalFile(1000, folder).close()  # nobody has the lock


def test_leftovers_are_what_is_still_there(folder: Path, tmp_path: Path) -> None:
    ours, others = tmp_path / "ours", tmp_path / "others"
    ours.write_text(MARKER + "nameserver 127.0.0.153\n")
    others.write_text("nameserver 192.0.2.9\n")
    entries = (RestoreFile(str(ours), FORMER), RestoreFile(str(others), FORMER), DeleteDevice("no-such", 9))
    _dead(folder, *entries)
    assert leftovers(1000, folder) == [f"the former {ours}"]
    done = restore(1000, folder)
    assert (done.live, done.undone, done.failed) == (False, (f"the former {ours}",), ())
    assert ours.read_bytes() == FORMER
    assert others.read_text() == "nameserver 192.0.2.9\n"
    assert leftovers(1000, folder) == []
    assert restore(1000, folder).undone == ()


def test_a_live_helper_has_no_leftovers_and_is_not_touched(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(MARKER)
    journal = JournalFile(1000, folder)
    journal.add(RestoreFile(str(file), FORMER))
    assert leftovers(1000, folder) == []
    assert restore(1000, folder).live
    assert file.read_text() == MARKER
    journal.close()


def test_one_undo_that_fails_stops_nothing_and_stays(folder: Path, tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text(MARKER)
    bad.mkdir()
    _dead(folder, RestoreFile(str(good), FORMER), RestoreFile(str(bad), FORMER))
    done = restore(1000, folder)
    assert done.undone == (f"the former {good}",)
    assert len(done.failed) == 1
    record = read_record(1000, folder)
    assert record is not None
    assert record.entries == (RestoreFile(str(bad), FORMER),)


@pytest.mark.parametrize("length", [0, 1, 30, len(MARKER), len(MARKER) + 5])
def test_a_half_written_file_is_restored(folder: Path, tmp_path: Path, length: int) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text((MARKER + "nameserver 127.0.0.153\n")[:length])
    _dead(folder, RestoreFile(str(file), FORMER))
    restore(1000, folder)
    assert file.read_bytes() == FORMER


def test_a_process_is_named_by_pid_and_start(tmp_path: Path) -> None:
    assert started(os.getpid()) == started(os.getpid())
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, cwd=tmp_path)
    assert started(process.pid) is not None
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert started(process.pid) is None  # a zombie is at work no more
    process.communicate()
    assert started(process.pid) is None
