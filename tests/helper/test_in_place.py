"""Files that other programs write, too: neither of us writes over what the other has just written."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from meshdev.helper.in_place import change_in_place

FORMER, OURS, OTHERS = b"former, and longer\n", b"ours\n", b"others\n"
#: As shell scripts do: truncate at open, then write.
_WRITER = "import sys; file = open(sys.argv[1], 'wb'); file.write(b'others\\n'); file.close()"


@pytest.fixture
def path() -> Iterator[Path]:
    """On a file system that has leases, as those of laptops have; that of a build's container may have none."""
    with TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder) / "resolv.conf"
        path.write_bytes(FORMER)
        yield path


def _waits(process: "subprocess.Popen[bytes]") -> bool:
    """Whether it is inside open(2), for a lease to be given up (fs/locks.c)."""
    return "break_lease" in Path(f"/proc/{process.pid}/wchan").read_text()


def test_whoever_truncates_the_file_waits_until_ours_is_written(path: Path) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def change(content: bytes) -> bytes:
        started.append(other := subprocess.Popen([sys.executable, "-c", _WRITER, path]))
        deadline = time.monotonic() + 10
        while not _waits(other):
            assert other.poll() is None, "it wrote what we had compared already"
            assert time.monotonic() < deadline
        return content.upper()

    before = signal.getsignal(signal.SIGIO)
    assert change_in_place(path, change)
    assert signal.getsignal(signal.SIGIO) == before
    assert started[0].wait(10) == 0
    assert path.read_bytes() == OTHERS


def test_a_file_that_takes_the_name_meanwhile_is_not_written(path: Path) -> None:
    def change(_content: bytes) -> bytes:
        new = path.with_suffix(".new")
        new.write_bytes(OTHERS)
        new.rename(path)
        return OURS

    assert not change_in_place(path, change)
    assert path.read_bytes() == OTHERS


def test_a_name_that_is_taken_away_meanwhile(path: Path) -> None:
    def change(_content: bytes) -> bytes:
        path.unlink()
        return OURS

    assert not change_in_place(path, change)
    assert not path.exists()


def test_nothing_is_written_where_nothing_shall_be(path: Path) -> None:
    before = path.stat()
    assert not change_in_place(path, lambda _content: None)
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.read_bytes() == FORMER


def test_a_reader_that_stays_keeps_nobody_from_writing(path: Path) -> None:
    with path.open("rb"):
        assert change_in_place(path, lambda _content: OURS)
    assert path.read_bytes() == OURS


def test_the_file_stays_the_same(path: Path) -> None:
    path.chmod(0o640)
    before = path.stat()
    assert change_in_place(path, lambda content: content + OURS)
    after = path.stat()
    assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
    assert path.read_bytes() == FORMER + OURS


def test_a_short_write_is_continued(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: original(fd, data[:7], offset))
    assert change_in_place(path, lambda content: content + content)
    assert path.read_bytes() == 2 * FORMER
