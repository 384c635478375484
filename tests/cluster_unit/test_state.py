"""The record of what was done, and processes that are ended only when they are the ones meant."""

import subprocess
from pathlib import Path

import pytest

from tests.cluster import processes, state
from tests.cluster.state import ProcessRecord, State


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "RUN", tmp_path)
    monkeypatch.setattr(state, "STATE_FILE", tmp_path / "state.json")


def test_an_empty_record() -> None:
    assert State.load() == State()


def test_what_is_saved_is_loaded() -> None:
    written = State({"etcd": ProcessRecord(1, 2, "x")}, {"network": "y"}, {"tun": "600"})
    written.save()
    assert State.load() == written


def test_the_first_undo_stays() -> None:
    record = State()
    record.remember_undo("tun", "600")
    record.remember_undo("tun", "666")
    assert State.load().undo == {"tun": "600"}


def test_a_process_is_ended_and_waited_for() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        started = processes.start_time(child.pid)
        assert started is not None
        record = ProcessRecord(child.pid, started, "")
        assert processes.is_alive(record)
        processes.end(record, 5)
        assert not processes.is_alive(record)


def test_another_process_with_the_same_number_is_left_alone() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        started = processes.start_time(child.pid)
        assert started is not None
        processes.end(ProcessRecord(child.pid, started - 1, ""), 5)
        assert child.poll() is None
        child.kill()


def test_a_process_that_is_gone() -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()
    processes.end(ProcessRecord(child.pid, 1, ""), 1)
    assert not processes.is_alive(None)
