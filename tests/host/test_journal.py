"""The journal's format: literal, round trip, hostile."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.errors import ProtocolError
from meshdev.host.journal import DeleteDevice, DeleteTable, Entry, JournalRecord, RestoreFile, table_name

RECORD = JournalRecord(
    1000,
    77,
    4711,
    (DeleteDevice("meshdev0", 7), DeleteTable("meshdev_1000"), RestoreFile("/etc/resolv.conf", b"\xffold\n")),
)
LINE = (
    b'{"journal":1,"uid":1000,"pid":77,"started":4711,"entries":['
    b'{"undo":"device","name":"meshdev0","index":7},'
    b'{"undo":"table","name":"meshdev_1000"},'
    b'{"undo":"file","path":"/etc/resolv.conf","former":"/29sZAo="}]}\n'
)


def test_both_directions() -> None:
    assert RECORD.encode() == LINE
    assert JournalRecord.parse(LINE) == RECORD
    assert table_name(1000) == "meshdev_1000"


def test_entries_are_told_to_people() -> None:
    assert list(map(str, RECORD.entries)) == [
        "network device meshdev0",
        "nft table inet meshdev_1000",
        "the former /etc/resolv.conf",
    ]


_entries: st.SearchStrategy[Entry] = st.one_of(
    st.builds(DeleteDevice, st.from_regex(r"[a-z0-9]{1,15}", fullmatch=True), st.integers(1, 1 << 30)),
    st.builds(DeleteTable, st.integers(0, 1 << 32).map(table_name)),
    st.builds(RestoreFile, st.just("/etc/resolv.conf"), st.binary(max_size=500)),
)


@given(st.lists(_entries, max_size=8).map(tuple))
def test_round_trip(entries: tuple[Entry, ...]) -> None:
    record = JournalRecord(0, 1, 0, entries)
    assert JournalRecord.parse(record.encode()) == record


@pytest.mark.parametrize(
    "entry",
    [
        {"undo": "shell", "command": "reboot"},
        {"undo": "device", "name": "../x", "index": 7},
        {"undo": "device", "name": "x" * 16, "index": 7},
        {"undo": "device", "name": "meshdev0", "index": 0},
        {"undo": "device", "name": "meshdev0"},
        {"undo": "device", "name": "meshdev0", "index": 7, "more": 1},
        {"undo": "table", "name": "filter"},
        {"undo": "table", "name": "meshdev_1; flush ruleset"},
        {"undo": "file", "path": "etc/passwd", "former": ""},
        {"undo": "file", "path": "/etc/passwd", "former": "!"},
        {"undo": "file", "path": "/etc/passwd", "former": 5},
        7,
    ],
    ids=str,
)
def test_refused_entries(entry: Any) -> None:
    value = json.loads(LINE)
    value["entries"] = [entry]
    with pytest.raises(ProtocolError):
        JournalRecord.parse(json.dumps(value).encode())


@pytest.mark.parametrize(("key", "value"), [("journal", 2), ("uid", -1), ("pid", 0), ("entries", {}), ("extra", 1)])
def test_refused_records(key: str, value: Any) -> None:
    with pytest.raises(ProtocolError):
        JournalRecord.parse(json.dumps({**json.loads(LINE), key: value}).encode())


@given(st.integers(0, len(LINE) - 3))
def test_a_cut_file_is_refused(length: int) -> None:
    with pytest.raises(ProtocolError):
        JournalRecord.parse(LINE[:length])
