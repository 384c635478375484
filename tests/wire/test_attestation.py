"""The announcement in an agent's log and the messages of attestation: literal, in pieces, among noise, hostile."""

import contextlib
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.errors import ProtocolError
from meshdev.wire import attestation
from meshdev.wire.attestation import (
    MAX_LINE,
    AgentAnnouncement,
    AgentLogReader,
    AttestRefusal,
    AttestRequest,
    FromAttestedAgent,
    FromSession,
    IssuedCapability,
    ManagerOffer,
    ManagerVerdict,
    assigned_port,
    parse_announcement,
)
from meshdev.wire.intercepts import MAX_ISSUED, MAX_REQUEST
from meshdev.wire.message import SCHEMAS
from meshdev.wire.objects import MAX_CERTIFICATE
from tests.wire.strategies import beyond, messages

FINGERPRINT = "5f" * 32
LINE = b"meshdev-agent/2 port=16200 certificate=" + FINGERPRINT.encode()
HERE = AgentAnnouncement(16200, FINGERPRINT)
NOISE = st.lists(st.binary(max_size=300).map(lambda line: line.replace(b"\n", b"").replace(b"meshdev-agent/", b"")))


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


# -- the log -----------------------------------------------------------------------------------------------------------


def test_literal() -> None:
    assert str(HERE).encode() == LINE
    assert parse_announcement(LINE) == HERE
    assert parse_announcement(LINE + b" color=blue") == HERE, "it may grow"


@given(NOISE, NOISE, st.integers(1, 65535), st.lists(st.integers(0, 1 << 16)))
def test_it_is_found_among_noise_however_it_arrives(
    before: list[bytes], after: list[bytes], port: int, cuts: list[int]
) -> None:
    here = AgentAnnouncement(port, FINGERPRINT)
    log = b"\n".join([*before, str(here).encode(), *after]) + b"\n"
    reader = AgentLogReader()
    assert [found for piece in pieces(log, cuts) if (found := reader.feed(piece))] == [here]


def test_the_newest_of_those_that_arrive_together_counts() -> None:
    other = AgentAnnouncement(16201, "0" * 64)
    assert AgentLogReader().feed(LINE + b"\n" + str(other).encode() + b"\n") == other


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" " + LINE,
        b"2026-11-28 20:00:00,000 INFO " + LINE,
        b"\r" + LINE,
        LINE + b"\r",
        LINE + b"\0",
        LINE.replace(b"16200", b"0"),
        LINE.replace(b"16200", b"016200"),
        LINE.replace(b"16200", b"65536"),
        LINE.replace(b"16200", b"99999999999999999999"),
        LINE.replace(b"16200", "١٦٢".encode()),
        LINE[:-1],
        LINE[:-1] + b"F",
        LINE + b"f",
        LINE.upper(),
        b"meshdev-agent/2 port= certificate=" + FINGERPRINT.encode(),
        b"meshdev-agent/2 port=16200",
        b"meshdev-agent/ port=16200",
    ],
)
def test_what_is_no_announcement(line: bytes) -> None:
    assert parse_announcement(line) is None


def test_an_agent_of_an_earlier_version_is_reported_as_such() -> None:
    with pytest.raises(ProtocolError, match="the sidecar is of an earlier version of meshdev") as raised:
        AgentLogReader().feed(b"2026 INFO x\nmeshdev-agent/1 token-port=16200\n")
    assert "ends when nobody intercepts" in str(raised.value.hint)


def test_a_later_version_is_reported_as_such() -> None:
    with pytest.raises(ProtocolError, match="announces itself in version 3, this meshdev knows 2"):
        parse_announcement(b"meshdev-agent/3 quic-port=1")


def test_a_line_without_end_takes_no_memory_and_hides_nothing() -> None:
    reader = AgentLogReader()
    for _ in range(1000):
        assert reader.feed(b"x" * 10_000) is None
        assert len(reader._line) <= 256
    assert reader.feed(LINE + b"\n") is None, "the end of that line"
    assert reader.feed(LINE + b"\n") == HERE


@given(st.lists(st.binary(max_size=400) | st.sampled_from([LINE, b"\n", b"meshdev-agent/1 "])))
def test_hostile_logs_raise_nothing_but_a_protocol_error(data: list[bytes]) -> None:
    reader = AgentLogReader()
    with contextlib.suppress(ProtocolError):
        for piece in data:
            reader.feed(piece)
    assert len(reader._line) <= 256


@pytest.mark.parametrize(
    ("text", "port"),
    [("16200", 16200), ("16299", 16299), ("16300", 0), ("16199", 0), ("", 0), ("-1", 0), ("016200", 0), ("१६२००", 0)],
)
def test_an_assigned_port_is_one_of_its_range(text: str, port: int) -> None:
    assert assigned_port(text) == port


# -- the channel -------------------------------------------------------------------------------------------------------

LITERAL_FROM_SESSION: list[tuple[FromSession, bytes]] = [
    (AttestRequest(2, "uid-1"), b'{"attest":{"version":2,"uid":"uid-1"}}\n'),
    (
        ManagerOffer(b"\0\1\2", "a" * 64, b"DER"),
        b'{"manager":{"certificate":"AAEC","proof":"' + b"a" * 64 + b'","issued":"REVS"}}\n',
    ),
]
LITERAL_FROM_AGENT: list[tuple[FromAttestedAgent, bytes]] = [
    (IssuedCapability("b" * 64, b"CSR"), b'{"capability":"' + b"b" * 64 + b'","csr":"Q1NS"}\n'),
    (AttestRefusal("no"), b'{"error":"no"}\n'),
    (ManagerVerdict(True), b'{"accepted":true}\n'),
    (ManagerVerdict(False, "another one"), b'{"accepted":false,"reason":"another one"}\n'),
]


@pytest.mark.parametrize(("message", "line"), LITERAL_FROM_SESSION)
def test_literal_lines_of_a_session(message: FromSession, line: bytes) -> None:
    assert attestation.encode(message) == line
    assert attestation.decode_from_session(line) == message


@pytest.mark.parametrize(("message", "line"), LITERAL_FROM_AGENT)
def test_literal_lines_of_an_agent(message: FromAttestedAgent, line: bytes) -> None:
    assert attestation.encode(message) == line
    assert attestation.decode_from_agent(line) == message


@given(st.one_of(*(messages(SCHEMAS[kind]) for kind in (AttestRequest, ManagerOffer))))
def test_what_a_session_sends_arrives(message: FromSession) -> None:
    assert attestation.decode_from_session(attestation.encode(message)) == message


@given(st.one_of(*(messages(SCHEMAS[kind]) for kind in (IssuedCapability, AttestRefusal, ManagerVerdict))))
def test_what_an_agent_sends_arrives(message: FromAttestedAgent) -> None:
    assert attestation.decode_from_agent(attestation.encode(message)) == message


def test_the_longest_line_fits() -> None:
    assert len(attestation.encode(ManagerOffer(b"x" * MAX_CERTIFICATE, "a" * 64, b"y" * MAX_ISSUED))) <= MAX_LINE
    with pytest.raises(ProtocolError, match="certificate"):
        attestation.decode_from_session(attestation.encode(ManagerOffer(b"x" * (MAX_CERTIFICATE + 1), "a" * 64, b"y")))
    with pytest.raises(ProtocolError, match="issued"):
        attestation.decode_from_session(attestation.encode(ManagerOffer(b"x", "a" * 64, b"y" * (MAX_ISSUED + 1))))
    with pytest.raises(ProtocolError, match="csr"):
        attestation.decode_from_agent(attestation.encode(IssuedCapability("a" * 64, b"y" * (MAX_REQUEST + 1))))


@pytest.mark.parametrize("key", ["version", "uid"])
def test_limits_of_a_request(key: str) -> None:
    codec = dict(
        zip(("version", "uid"), (each.codec for each in SCHEMAS[AttestRequest].attributes.members), strict=True)
    )
    for value in beyond(codec[key]):
        line = json.dumps({"attest": {"version": 2, "uid": "x", key: value}}).encode()
        with pytest.raises(ProtocolError, match=key):
            attestation.decode_from_session(line)


@pytest.mark.parametrize("value", ["", "AAE", "AA==\n", "A*AA", "ÄÄÄÄ", 7, None, ["AAEC"]])
@pytest.mark.parametrize("key", ["certificate", "issued"])
def test_what_is_no_certificate(value: Any, key: str) -> None:
    offer = {"certificate": "AAEC", "proof": "a" * 64, "issued": "AAEC"}
    line = json.dumps({"manager": {**offer, key: value}}).encode()
    with pytest.raises(ProtocolError, match=key):
        attestation.decode_from_session(line)


@given(
    st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["attest", "manager", "capability", "csr", "accepted", "error", "uid", "version", "proof", "issued"]
                ),
                inner,
                max_size=3,
            )
        ),
    ).map(lambda value: json.dumps(value).encode())
)
def test_hostile_lines_raise_nothing_but_a_protocol_error(line: bytes) -> None:
    for read in (attestation.decode_from_session, attestation.decode_from_agent):
        with contextlib.suppress(ProtocolError):
            read(line)


def test_a_capability_is_in_no_log() -> None:
    assert "b" * 64 not in repr(IssuedCapability("b" * 64, b"CSR"))
