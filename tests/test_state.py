"""The folders of connections that are one command's own."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from meshdev.errors import LaptopError
from meshdev.state import Paths


def test_runs_that_begin_and_end_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "meshdev")

    def run(_: int) -> Path:
        own, lock = paths.of_run()
        os.close(lock)
        own.remove()
        return own.directory

    with ThreadPoolExecutor(10) as some:
        folders = list(some.map(run, range(300)))
    assert len(set(folders)) == 300
    assert list(paths.runs.iterdir()) == []


def test_a_folder_that_cannot_be_used_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "meshdev")
    paths.prepare()
    paths.runs.touch()
    with pytest.raises(LaptopError, match="runs cannot be used: File exists") as caught:
        paths.of_run()
    assert caught.value.hint is not None
