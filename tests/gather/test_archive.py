"""The archive: its owner's, whole, reproducible, and nothing is overwritten."""

import gzip
import json
import os
import stat
import tarfile
from pathlib import Path

import pytest

from meshdev.errors import LaptopError, UsageError
from meshdev.gather.archive import contents, write
from meshdev.gather.masked import Masker
from meshdev.gather.parts import BugReport, Files, Part, Reasons

NOW = 1_767_225_600


async def nothing(_: Reasons) -> Files:
    return {}


def files() -> dict[str, bytes]:
    parts = (Part("status", "what status says", nothing), Part("list", "intercepts", nothing))
    report = BugReport({"b/b.txt": "password=abc\n\n", "a.json": {"x": ["token=abc"]}}, {"list": ("no\nkubeconfig",)})
    return contents(parts, report, Masker())


def test_everything_is_masked_and_described() -> None:
    found = files()
    assert list(found) == ["README.txt", "a.json", "b/b.txt"]
    assert json.loads(found["a.json"]) == {"x": ["token=***"]}
    assert found["b/b.txt"] == b"password=***\n"
    assert "status: what status says\nlist: intercepts\n    missing: no\\nkubeconfig\n" in found["README.txt"].decode()


def test_it_is_its_owners_and_the_same_each_time(tmp_path: Path) -> None:
    former = os.umask(0)
    try:
        for name in ("one.tar.gz", "two.tar.gz"):
            write(tmp_path / name, files(), NOW)
    finally:
        os.umask(former)
    one, two = tmp_path / "one.tar.gz", tmp_path / "two.tar.gz"
    assert stat.S_IMODE(one.stat().st_mode) == 0o600
    assert one.read_bytes() == two.read_bytes()
    with tarfile.open(one) as archive:
        assert [each.name for each in archive] == [f"meshdev-gather/{name}" for name in files()]
        assert {(each.mode, each.uid, each.uname, each.mtime) for each in archive} == {(0o600, 0, "", NOW)}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["one.tar.gz", "two.tar.gz"]
    assert gzip.decompress(one.read_bytes())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "report.tar.gz"
    path.symlink_to(tmp_path / "precious")
    with pytest.raises(UsageError, match="exists"):
        write(path, files(), NOW)
    assert [each.name for each in tmp_path.iterdir()] == ["report.tar.gz"]
    assert path.is_symlink()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LaptopError, match="No such file"):
        write(tmp_path / "missing" / "report.tar.gz", files(), NOW)
