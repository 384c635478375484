"""Our lines in resolv.conf: whatever fails, the former file stands there or can be put back."""

import errno
import itertools
import os
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from meshdev.errors import DnsError
from meshdev.helper.journal import JournalFile, read_record
from meshdev.helper.resolv_conf import OwnResolvConf
from meshdev.host.journal import Entry, RestoreFile
from meshdev.wire.resolv_conf import ResolvConf

FORMER = b"nameserver 192.0.2.1\nsearch home.example\n"
SERVER = IPv4Address("127.0.0.153")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[JournalFile]:
    journal = JournalFile(1000, tmp_path / "meshdev", patience=0)
    yield journal
    journal.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "resolv.conf"
    path.write_bytes(FORMER)
    return path


def _limit_writes(monkeypatch: pytest.MonkeyPatch, size: int, *, refused: int = 0) -> None:
    """Each write takes *size* bytes at most, as where a disk fills up; the one of number *refused* finds it full."""
    count = 0

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        nonlocal count
        count += 1
        if count == refused:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(fd, data[:size], offset)

    original = os.pwrite
    monkeypatch.setattr(os, "pwrite", pwrite)


def test_nothing_is_written_that_the_journal_could_not_note(path: Path, journal: JournalFile) -> None:
    own = OwnResolvConf(journal, path)
    (journal.folder / "1000.new").mkdir()  # the journal cannot be written
    for _ in range(2):  # the second beat is no bolder than the first
        with pytest.raises(DnsError, match="journal cannot be written"):
            own.write(SERVER, ())
        assert path.read_bytes() == FORMER
        assert not own.written
    (journal.folder / "1000.new").rmdir()
    own.write(SERVER, ())
    record = read_record(1000, journal.folder)
    assert record is not None
    assert len(record.entries) == 1
    own.withdraw()
    assert path.read_bytes() == FORMER


def test_half_of_ours_does_not_stay(path: Path, journal: JournalFile, monkeypatch: pytest.MonkeyPatch) -> None:
    own = OwnResolvConf(journal, path)
    _limit_writes(monkeypatch, 400, refused=2)
    with pytest.raises(DnsError, match="No space left"):
        own.write(SERVER, tuple(f"namespace-{number}.example" for number in range(40)))
    assert path.read_bytes() == FORMER
    assert not own.written
    assert read_record(1000, journal.folder) is None


def test_without_a_file_there_is_no_former_one(tmp_path: Path, journal: JournalFile) -> None:
    own = OwnResolvConf(journal, tmp_path / "none")
    assert own.former() == ResolvConf(ResolvConf().asked, (), ())
    with pytest.raises(DnsError, match="cannot be read"):
        own.write(SERVER, ())


def test_a_loop_of_links_is_an_error_of_ours(tmp_path: Path, journal: JournalFile) -> None:
    path = tmp_path / "loop"
    path.symlink_to(path)
    with pytest.raises(DnsError, match="cannot be read"):
        OwnResolvConf(journal, path).write(SERVER, ())


OTHERS = b"nameserver 192.0.2.77\n"


def test_what_another_program_writes_just_before_ours_is_the_former_file(
    path: Path, journal: JournalFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, add = OwnResolvConf(journal, path), journal.add

    def slow(entry: Entry) -> None:
        add(entry)
        monkeypatch.setattr(journal, "add", add)
        path.write_bytes(OTHERS)

    monkeypatch.setattr(journal, "add", slow)
    own.write(SERVER, ())
    assert own.former().nameservers == (IPv4Address("192.0.2.77"),)
    record = read_record(1000, journal.folder)
    assert record is not None
    assert [entry.former for entry in record.entries if isinstance(entry, RestoreFile)] == [OTHERS]
    assert b"127.0.0.153" in path.read_bytes()
    own.withdraw()
    assert path.read_bytes() == OTHERS


@pytest.mark.parametrize("renamed", [True, False])
def test_other_names_are_not_written_over_what_another_program_wrote(
    path: Path, journal: JournalFile, renamed: bool
) -> None:
    own = OwnResolvConf(journal, path)
    own.write(SERVER, ())
    if renamed:
        (path.parent / "new").write_bytes(OTHERS)
        (path.parent / "new").rename(path)
    else:
        path.write_bytes(OTHERS)
    own.write(SERVER, ("more.example",))
    assert b"more.example" in path.read_bytes()
    own.withdraw()
    assert path.read_bytes() == OTHERS


def test_a_link_that_leads_elsewhere_meanwhile(path: Path, journal: JournalFile) -> None:
    link, other = path.parent / "link", path.parent / "other"
    link.symlink_to(path)
    own = OwnResolvConf(journal, link)
    own.write(SERVER, ())
    other.write_bytes(OTHERS)
    link.unlink()
    link.symlink_to(other)
    own.write(SERVER, ())
    assert path.read_bytes() == FORMER
    assert b"127.0.0.153" in other.read_bytes()
    own.withdraw()
    assert other.read_bytes() == OTHERS


def test_a_fight_ends(path: Path, journal: JournalFile, monkeypatch: pytest.MonkeyPatch) -> None:
    own, add, count = OwnResolvConf(journal, path), journal.add, itertools.count()

    def fought(entry: Entry) -> None:
        add(entry)
        path.write_bytes(b"nameserver 192.0.2.%d\n" % next(count))

    monkeypatch.setattr(journal, "add", fought)
    with pytest.raises(DnsError, match="keeps writing it"):
        own.write(SERVER, ())
    assert not own.written
    assert path.read_bytes() == b"nameserver 192.0.2.%d\n" % (next(count) - 1)
    assert read_record(1000, journal.folder) is None
