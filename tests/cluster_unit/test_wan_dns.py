"""The wan's DNS: wire bytes in, wire bytes out."""

import struct

import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cluster.wan import dns as wan

ZONE = "example.test"
RECORDS = wan.records(ZONE, "203.0.113.53", "203.0.113.80")
CLIENT = "192.168.77.11"


def ask(name: str, kind: str) -> dns.message.Message:
    """A question by an independent implementation, which also reads the answer."""
    query = dns.message.make_query(name, kind, id=7)
    return dns.message.from_wire(wan.answer(wan.parse(query.to_wire()), ZONE, RECORDS, CLIENT))


def texts(message: dns.message.Message) -> list[str]:
    return [str(record) for records in message.answer for record in records]


def test_literal_query_and_answer() -> None:
    question = bytes.fromhex("03777777 07 6578616d706c65 04 74657374 00 0001 0001".replace(" ", ""))
    query = bytes.fromhex("abcd 0100 0001 0000 0000 0000".replace(" ", "")) + question
    expected = (
        bytes.fromhex("abcd 8180 0001 0001 0000 0000".replace(" ", ""))
        + question
        + question[:-4]
        + bytes.fromhex("0001 0001 00000005 0004 cb007150".replace(" ", ""))
    )
    assert wan.answer(wan.parse(query), ZONE, RECORDS, CLIENT) == expected


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("www.example.test", "A", ["203.0.113.80"]),
        ("WWW.Example.TEST", "A", ["203.0.113.80"]),
        ("ns.example.test", "A", ["203.0.113.53"]),
        ("dual.example.test", "AAAA", ["2001:db8::80"]),
        ("alias.example.test", "A", ["www.example.test.", "203.0.113.80"]),
        ("whoami.example.test", "A", [CLIENT]),
        ("www.example.test", "AAAA", []),
    ],
)
def test_answers(name: str, kind: str, expected: list[str]) -> None:
    message = ask(name, kind)
    assert message.rcode() == dns.rcode.NOERROR
    assert texts(message) == expected


def test_unknown_name_is_denied_with_the_soa() -> None:
    message = ask("nothing.example.test", "A")
    assert message.rcode() == dns.rcode.NXDOMAIN
    assert message.authority


def test_nothing_else_exists() -> None:
    assert ask("a.default.svc.cluster.local", "A").rcode() == dns.rcode.NXDOMAIN
    assert ask("test", "A").rcode() == dns.rcode.NOERROR  # an empty name above the zone


def test_long_answers_are_cut_over_udp_only() -> None:
    query = wan.parse(dns.message.make_query("large.example.test", "TXT").to_wire())
    whole = wan.answer(query, ZONE, RECORDS, CLIENT)
    cut = wan.truncated(query, whole)
    assert len(whole) > 2000
    assert len(cut) <= 512
    assert struct.unpack_from("!H", cut, 2)[0] & 0x0200


def test_edns_raises_the_limit() -> None:
    query = wan.parse(dns.message.make_query("large.example.test", "TXT", use_edns=0, payload=4096).to_wire())
    whole = wan.answer(query, ZONE, RECORDS, CLIENT)
    assert wan.truncated(query, whole) == whole
    assert dns.message.from_wire(whole).edns == 0


@given(st.binary(max_size=64))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    try:
        query = wan.parse(data)
    except wan.MalformedError:
        return
    assert wan.answer(query, ZONE, RECORDS, CLIENT)[:2] == data[:2]
