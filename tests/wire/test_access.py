"""Access records: literal JSON both ways, limits and sizes, hostile values."""

import contextlib
import json
from ipaddress import IPv4Address
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.errors import ProtocolError
from meshdev.wire.access import (
    ACCESS_PROTOCOLS,
    MAX_AUTHORITY,
    MAX_HOLDER,
    MAX_METHOD,
    MAX_PATH,
    MAX_REASON,
    MAX_RECORDS,
    SERVED_BY,
    AccessProtocol,
    AccessRecord,
    AccessRecords,
    ServedBy,
    Watch,
)
from meshdev.wire.message import SCHEMAS, decode, dump, load
from tests.wire.strategies import messages
from tests.wire.test_message import json_values

SOURCE: Final = IPv4Address("10.244.0.9")
LEAST: Final = AccessRecord(1_764_400_000_000_000, SOURCE, 8080, "tcp", "original", 250)
FULL: Final = AccessRecord(
    time=1,
    source=SOURCE,
    port=8080,
    protocol="HTTP/1.1",
    served_by="fallback",
    duration=2500,
    method="GET",
    authority="b.default",
    path="/a?token=***",
    status=404,
    request_bytes=3,
    response_bytes=14,
    intercept="0af7",
    reason="fell back: nothing listens on 8080",
    trace_id="ab" * 16,
    span_id="cd" * 8,
    parent_span_id="ef" * 8,
    sampled=True,
)
RECORDS: Final[list[tuple[AccessRecord, dict[str, object]]]] = [
    (
        LEAST,
        {
            "time": 1_764_400_000_000_000,
            "source": "10.244.0.9",
            "port": 8080,
            "protocol": "tcp",
            "served_by": "original",
            "duration": 250,
        },
    ),
    (
        FULL,
        {
            "time": 1,
            "source": "10.244.0.9",
            "port": 8080,
            "protocol": "HTTP/1.1",
            "served_by": "fallback",
            "duration": 2500,
            "method": "GET",
            "authority": "b.default",
            "path": "/a?token=***",
            "status": 404,
            "request_bytes": 3,
            "response_bytes": 14,
            "intercept": "0af7",
            "reason": "fell back: nothing listens on 8080",
            "trace_id": "ab" * 16,
            "span_id": "cd" * 8,
            "parent_span_id": "ef" * 8,
            "sampled": True,
        },
    ),
]


NO_SPANS: Final = ("", "0" * 16, "CD" * 8, "cd" * 7, "cd" * 9, "cd" * 8 + "\n", "g" * 16, "é" * 16, 7, ["cd" * 8])


def read(data: bytes) -> AccessRecords:
    return decode(data, "records", lambda found: load(AccessRecords, found))


def written(message: object) -> bytes:
    return json.dumps(dump(message), separators=(",", ":")).encode("ascii")


@pytest.mark.parametrize(("record", "value"), RECORDS)
def test_literal_json(record: AccessRecord, value: dict[str, object]) -> None:
    assert dump(record) == value
    assert load(AccessRecord, dict(value)) == record
    assert dump(AccessRecords((record,), 3)) == {"records": [value], "dropped": 3}
    assert read(written(AccessRecords((record, record), 3))) == AccessRecords((record, record), 3)


def test_nothing_was_dropped_where_it_is_not_said() -> None:
    assert dump(AccessRecords(())) == {"records": []}
    assert read(b'{"records":[]}') == AccessRecords(())


@pytest.mark.parametrize(
    ("watch", "value"),
    [
        (Watch(), {"on": False}),
        (Watch(on=True), {"on": True}),
        (Watch(on=True, all=True), {"on": True, "all": True}),
        (Watch(on=True, values=True), {"on": True, "values": True}),
    ],
)
def test_what_is_watched(watch: Watch, value: dict[str, object]) -> None:
    assert dump(watch) == value
    assert load(Watch, dict(value)) == watch


@pytest.mark.parametrize("protocol", ACCESS_PROTOCOLS)
@pytest.mark.parametrize("served_by", SERVED_BY)
def test_every_protocol_and_whoever_answered(protocol: AccessProtocol, served_by: ServedBy) -> None:
    record = AccessRecord(0, SOURCE, 1, protocol, served_by, 0)
    assert load(AccessRecord, dump(record)) == record


@given(messages(SCHEMAS[AccessRecords]))
def test_there_and_back(records: AccessRecords) -> None:
    assert read(written(records)) == records


def largest(letter: str) -> AccessRecord:
    return AccessRecord(
        time=1 << 53,
        source=IPv4Address("255.255.255.255"),
        port=65535,
        protocol="HTTP/1.1",
        served_by="original",
        duration=1 << 53,
        method=letter * MAX_METHOD,
        authority=letter * MAX_AUTHORITY,
        path=letter * MAX_PATH,
        status=999,
        request_bytes=1 << 53,
        response_bytes=1 << 53,
        intercept="x" * 32,
        reason=letter * MAX_REASON,
        trace_id="f" * 32,
        holder=letter * MAX_HOLDER,
        span_id="f" * 16,
        parent_span_id="f" * 16,
        sampled=True,
    )


@pytest.mark.parametrize("letter", ['"', "\\", "x"])
def test_the_largest_records_of_a_message_fit_a_frame_also_as_a_text_within_json(letter: str) -> None:
    records = AccessRecords((largest(letter),) * MAX_RECORDS, 1 << 53)
    data = written(records)
    assert read(data) == records
    within = json.dumps({"id": "f" * 32, "pod": "p" * 253, "body": data.decode()})
    assert len(within) <= (64 << 10) - 4, "a frame of the tunnel, and a datagram"
    assert len(json.dumps(written(largest(letter)).decode())) <= 5 * 1024
    with pytest.raises(ProtocolError, match="more than 12 entries"):
        read(written(AccessRecords((LEAST,) * (MAX_RECORDS + 1))))


def test_texts_become_one_line_of_ascii_of_the_length_they_may_have() -> None:
    odd = AccessRecord(
        *(0, SOURCE, 1, "HTTP/1.1", "original", 0),
        method="G\r\nET\0",
        authority="é.example",
        path="/\ud800\U0001f600\x7f" + "x" * 600,
        reason="a=\x1b[2J, not a=1\n",
    )
    record = read(written(AccessRecords((odd,)))).records[0]
    assert (record.method, record.authority, record.reason) == ("G ET?", "?.example", "a=?[2J, not a=1")
    assert record.path == "/???" + "x" * (MAX_PATH - 4)


def test_more_than_can_be_counted_is_capped() -> None:
    counted = AccessRecord(0, SOURCE, 1, "tcp", "original", 1 << 60, request_bytes=1 << 60, response_bytes=1 << 60)
    records = read(written(AccessRecords((counted,), 1 << 60)))
    assert records.dropped == records.records[0].duration == records.records[0].request_bytes == 1 << 53


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("time", -1), ("time", (1 << 53) + 1), ("time", 1.0), ("time", None), ("source", "::1"), ("source", "b")),
        *(
            ("source", 7),
            ("port", 0),
            ("port", 65536),
            ("port", "80"),
            ("protocol", "HTTP/3"),
            ("protocol", "http/1.1"),
        ),
        *(("served_by", "Original"), ("served_by", ""), ("duration", -1), ("duration", True)),
        *(("method", "x" * (MAX_METHOD + 1)), ("method", "G\n"), ("method", None), ("method", "É")),
        *(("authority", "x" * (MAX_AUTHORITY + 1)), ("authority", "\x1b[2J"), ("authority", "é")),
        *(("path", "x" * (MAX_PATH + 1)), ("path", "/\0"), ("path", "/\u202e"), ("path", None), ("path", 7)),
        *(("status", -1), ("status", 1000), ("status", "200"), ("status", 200.0)),
        *(("request_bytes", -1), ("response_bytes", (1 << 53) + 1), ("response_bytes", "1")),
        *(("intercept", ""), ("intercept", "x" * 33), ("intercept", "a b"), ("intercept", "é"), ("intercept", 7)),
        *(("reason", "x" * (MAX_REASON + 1)), ("reason", "\r"), ("reason", [])),
        *(("trace_id", "AB" * 16), ("trace_id", "ab" * 15), ("trace_id", "ab" * 17), ("trace_id", "ab" * 16 + "\n")),
        *((key, value) for key in ("span_id", "parent_span_id") for value in NO_SPANS),
        *(("sampled", 1), ("sampled", "true"), ("sampled", None)),
    ],
)
def test_wrong_values_are_refused(key: str, value: Any) -> None:
    whole = {**dump(FULL), key: value}
    with pytest.raises(ProtocolError, match=key):
        read(json.dumps({"records": [whole]}).encode())


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", "null", '{"records":{}}', '{"records":null}', '{"records":[null]}', '{"records":[[]]}'),
        *('{"records":[{}]}', '{"records":[],"dropped":-1}', '{"records":[],"dropped":null}', "[" * 100_000),
    ],
)
def test_what_are_no_records(text: str) -> None:
    with pytest.raises(ProtocolError):
        read(text.encode())


@pytest.mark.parametrize("key", ["time", "source", "port", "protocol", "served_by", "duration"])
def test_what_every_record_has(key: str) -> None:
    less = {name: value for name, value in dump(FULL).items() if name != key}
    with pytest.raises(ProtocolError, match=f"has no {key}"):
        read(json.dumps({"records": [less]}).encode())


@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
def test_hostile_bytes_raise_protocol_errors_only(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        read(data)


@given(st.sampled_from(sorted(dump(FULL))), json_values)
def test_hostile_fields_raise_protocol_errors_only(key: str, value: Any) -> None:
    with contextlib.suppress(ProtocolError):
        read(json.dumps({"records": [{**dump(FULL), key: value}]}).encode())
