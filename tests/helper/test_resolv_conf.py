"""Our lines in resolv.conf: whatever fails, the former file stands there or can be put back."""

import errno
import os
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from meshdev.errors import DnsError
from meshdev.helper.dns import write_in_place
from meshdev.helper.journal import Journal, read_record
from meshdev.helper.resolv_conf import OwnResolvConf
from meshdev.host.dns import ResolvConf

FORMER = b"nameserver 192.0.2.1\nsearch home.example\n"
SERVER = IPv4Address("127.0.0.153")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(1000, tmp_path / "meshdev", patience=0)
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


def test_a_short_write_is_continued(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _limit_writes(monkeypatch, 7)
    content = b"nameserver 192.0.2.7\n# and more\n"
    write_in_place(path, content)
    assert path.read_bytes() == content


def test_nothing_is_written_that_the_journal_could_not_note(path: Path, journal: Journal) -> None:
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


def test_half_of_ours_does_not_stay(path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    own = OwnResolvConf(journal, path)
    _limit_writes(monkeypatch, 400, refused=2)
    with pytest.raises(DnsError, match="No space left"):
        own.write(SERVER, tuple(f"namespace-{number}.example" for number in range(40)))
    assert path.read_bytes() == FORMER
    assert not own.written
    assert read_record(1000, journal.folder) is None


def test_without_a_file_there_is_no_former_one(tmp_path: Path, journal: Journal) -> None:
    own = OwnResolvConf(journal, tmp_path / "none")
    assert own.former() == ResolvConf(ResolvConf().asked, (), ())
    with pytest.raises(DnsError, match="cannot be read"):
        own.write(SERVER, ())


def test_a_loop_of_links_is_an_error_of_ours(tmp_path: Path, journal: Journal) -> None:
    path = tmp_path / "loop"
    path.symlink_to(path)
    with pytest.raises(DnsError, match="cannot be read"):
        OwnResolvConf(journal, path).write(SERVER, ())
