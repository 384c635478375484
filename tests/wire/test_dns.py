"""DNS messages as the forwarder handles them."""

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshdev.wire import dns as codec

DOMAIN = dns.name.from_text("cluster.local.")
PLAIN = dns.message.make_query("b", "A", id=0x1234)
EDNS = dns.message.make_query("b", "A", id=0x1234, use_edns=0, payload=1400, want_dnssec=True)

ANSWER = """\
id 7
opcode QUERY
rcode NOERROR
flags QR AA RD
;QUESTION
b.default.svc.cluster.local. IN A
;ANSWER
b.default.svc.cluster.local. 30 IN A 10.96.0.7
"""


def parsed(message: dns.message.Message | bytes) -> codec.Query:
    query = codec.parse_query(message if isinstance(message, bytes) else message.to_wire())
    assert query is not None
    return query


def test_query_is_read() -> None:
    query = parsed(bytes.fromhex("1234 0100 0001 0000 0000 0000 0142 00 001c 0001"))
    assert (query.name.to_text(), query.rdtype, query.rdclass, query.opcode) == ("B.", dns.rdatatype.AAAA, 1, 0)
    assert (query.end, query.edns, query.payload, query.plain) == (19, None, 512, True)


def test_edns_is_read() -> None:
    query = parsed(EDNS)
    assert query.edns == (1400, 0x8000)
    assert (query.payload, query.plain) == (1400, True)


@pytest.mark.parametrize(("said", "payload"), [(0, 512), (100, 512), (1232, 1232), (65535, 4096)])
def test_payload_has_sane_limits(said: int, payload: int) -> None:
    assert parsed(dns.message.make_query("b", "A", use_edns=0, payload=said)).payload == payload


def test_edns_of_another_version_is_not_plain() -> None:
    wire = bytearray(EDNS.to_wire())
    wire[parsed(EDNS).end + 6] = 1
    assert not parsed(bytes(wire)).plain, "the answer is BADVERS, whose lower bits look like NOERROR"


def test_signed_query_is_not_plain() -> None:
    message = dns.message.make_query("b", "A")
    message.use_tsig({dns.name.from_text("key."): b"secret" * 6})
    assert not parsed(message).plain


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        ("", "nothing"),
        ("1234 0100 0001 0000 0000 00", "half a header"),
        ("1234 8100 0001 0000 0000 0000 0162 00 0001 0001", "an answer"),
    ],
)
def test_no_query_no_answer(wire: str, why: str) -> None:
    assert codec.parse_query(bytes.fromhex(wire)) is None, why
    assert codec.format_error(bytes.fromhex(wire)) is None, why


@pytest.mark.parametrize(
    ("wire", "why"),
    [
        ("1234 0100 0000 0000 0000 0000", "no question"),
        ("1234 0100 0002 0000 0000 0000 0162 00 0001 0001 0162 00 0001 0001", "two questions"),
        ("1234 0100 0001 0000 0000 0000 0162", "name ends early"),
        ("1234 0100 0001 0000 0000 0000 0162 00 0001", "question ends early"),
        ("1234 0100 0001 0000 0000 0000 c00c 0001 0001", "pointer to itself"),
        ("1234 0100 0001 0000 0000 0000 0162 c00c 0001 0001", "pointer back into the same name"),
        ("1234 0100 0001 0000 0000 0000 c000 0001 0001", "pointer into the header"),
        ("1234 0100 0001 0000 0000 0000 4162 00 0001 0001", "unknown kind of label"),
        (
            "1234 0100 0001 0000 0000 0000" + "3f" + "61" * 63 + ("3f" + "61" * 63) * 3 + "00 0001 0001",
            "257 bytes of name",
        ),
    ],
)
def test_broken_query_is_a_format_error(wire: str, why: str) -> None:
    assert codec.parse_query(bytes.fromhex(wire)) is None, why
    assert codec.format_error(bytes.fromhex(wire)) == bytes.fromhex("1234 8181 0000 0000 0000 0000"), why


@given(st.binary(max_size=600))
def test_random_bytes_are_judged(wire: bytes) -> None:
    query = codec.parse_query(wire)
    codec.format_error(wire)
    codec.read_answer(wire)
    codec.answers(wire, parsed(EDNS))
    if query is not None:
        assert codec.encoded(query.name) == wire[12 : query.end - 4]


@given(st.binary(max_size=64), st.integers(0, 60), st.data())
def test_damaged_answers_are_judged(noise: bytes, place: int, data: st.DataObject) -> None:
    good = dns.message.from_text(ANSWER).to_wire()
    wire = good[:place] + noise + good[place + data.draw(st.integers(0, 20)) :]
    answer = codec.read_answer(wire)
    if answer is not None:
        codec.addresses(answer, DOMAIN)
        for query in (parsed(PLAIN), parsed(EDNS)):
            assert codec.parse_query(codec.grafted(query, dns.name.from_text("x.cluster.local."), answer, 512)) is None


def test_renamed_keeps_flags_and_edns() -> None:
    query = codec.renamed(parsed(EDNS), dns.name.from_text("b.ns.svc.cluster.local."), dns.rdatatype.AAAA)
    assert query == parsed(query.wire)
    message = dns.message.from_wire(query.wire)
    assert message.question[0].to_text() == "b.ns.svc.cluster.local. IN AAAA"
    assert (message.payload, message.ednsflags, message.flags) == (1400, dns.flags.DO, EDNS.flags)


def test_ids() -> None:
    wire = codec.with_id(PLAIN.to_wire(), 0xBEEF)
    assert codec.message_id(wire) == 0xBEEF
    assert codec.with_id(wire, 0x1234) == PLAIN.to_wire()


def response(to: dns.message.Message, code: dns.rcode.Rcode = dns.rcode.NOERROR) -> dns.message.Message:
    message = dns.message.make_response(to)
    message.set_rcode(code)
    return message


def test_answers_compares_questions() -> None:
    query = parsed(EDNS)
    assert codec.answers(response(EDNS).to_wire(), query)
    assert codec.answers(response(dns.message.make_query("B", "A")).to_wire(), query), "case does not matter"
    assert not codec.answers(response(dns.message.make_query("c", "A")).to_wire(), query)
    assert not codec.answers(response(dns.message.make_query("b", "AAAA")).to_wire(), query)
    assert not codec.answers(response(dns.message.make_query("b.c", "A")).to_wire(), query)
    assert not codec.answers(EDNS.to_wire(), query), "a query is no answer"
    assert not codec.answers(b"", query)
    https, type_97 = (dns.message.make_query("b", f"TYPE{number}") for number in (65, 97))
    assert not codec.answers(response(https).to_wire(), parsed(type_97)), "65 and 97 are A and a"


def test_errors_may_lack_the_question() -> None:
    assert codec.answers(bytes.fromhex("1234 8181 0000 0000 0000 0000"), parsed(PLAIN))
    assert not codec.answers(bytes.fromhex("1234 8180 0000 0000 0000 0000"), parsed(PLAIN))


def test_negative() -> None:
    assert codec.is_negative(response(PLAIN, dns.rcode.NXDOMAIN).to_wire())
    assert codec.is_negative(response(PLAIN).to_wire())
    assert not codec.is_negative(response(PLAIN, dns.rcode.SERVFAIL).to_wire())
    assert not codec.is_negative(dns.message.from_text(ANSWER).to_wire())
    truncated = response(PLAIN)
    truncated.flags |= dns.flags.TC
    assert not codec.is_negative(truncated.to_wire()), "it says: ask again by TCP"


def test_has_records() -> None:
    assert codec.has_records(dns.message.from_text(ANSWER).to_wire())
    assert not codec.has_records(response(PLAIN).to_wire())


def test_addresses_of_the_domain_only() -> None:
    text = ANSWER + "ext.default.svc.cluster.local. 5 IN CNAME www.example.test.\nwww.example.test. 5 IN A 192.0.2.1\n"
    text += ";ADDITIONAL\nDB-0.db.default.svc.Cluster.Local. 5 IN A 10.244.0.9\nns.example.test. 5 IN A 192.0.2.2\n"
    text += "8-8-4-4.default.pod.cluster.local. 5 IN A 8.8.4.4\nsvc.cluster.local.example.test. 5 IN A 192.0.2.3\n"
    found = codec.addresses(dns.message.from_text(text), DOMAIN)
    assert {(str(named.address), named.service) for named in found} == {
        ("10.96.0.7", True),
        ("10.244.0.9", True),
        ("8.8.4.4", False),
    }
    assert {named.name for named in found if not named.service} == {"8-8-4-4.default.pod.cluster.local"}


@pytest.mark.parametrize("asked", [PLAIN, EDNS])
def test_grafted_answer(asked: dns.message.Message) -> None:
    name = dns.name.from_text("b.default.svc.cluster.local.")
    reply = dns.message.from_wire(codec.grafted(parsed(asked), name, dns.message.from_text(ANSWER), 512))
    assert reply.id == 0x1234
    assert [record.to_text() for record in reply.question] == ["b. IN A"]
    assert [record.to_text() for record in reply.answer] == [
        "b. 5 IN CNAME b.default.svc.cluster.local.",
        "b.default.svc.cluster.local. 30 IN A 10.96.0.7",
    ]
    assert reply.flags == dns.flags.QR | dns.flags.RD | dns.flags.RA
    assert reply.edns == asked.edns
    assert reply.ednsflags == asked.ednsflags


def test_grafted_srv_with_addresses_beside_it() -> None:
    text = """\
id 7
flags QR AA RD
;QUESTION
_http._tcp.b.ns.svc.cluster.local. IN SRV
;ANSWER
_http._tcp.b.ns.svc.cluster.local. 30 IN SRV 0 100 80 b.ns.svc.cluster.local.
;ADDITIONAL
b.ns.svc.cluster.local. 30 IN A 10.96.0.7
"""
    query = parsed(dns.message.make_query("_http._tcp.b", "SRV", use_edns=0))
    name = dns.name.from_text("_http._tcp.b.ns.svc.cluster.local.")
    reply = dns.message.from_wire(codec.grafted(query, name, dns.message.from_text(text), 512))
    assert [str(records) for records in reply.answer] == [
        "_http._tcp.b. 5 IN CNAME _http._tcp.b.ns.svc.cluster.local.",
        "_http._tcp.b.ns.svc.cluster.local. 30 IN SRV 0 100 80 b.ns.svc.cluster.local.",
    ]
    assert [str(records) for records in reply.additional] == ["b.ns.svc.cluster.local. 30 IN A 10.96.0.7"]


def test_grafted_alias_that_leads_nowhere() -> None:
    text = "id 7\nrcode NXDOMAIN\nflags QR\n;QUESTION\nx.cluster.local. IN A\n;ANSWER\n"
    text += "x.cluster.local. 5 IN CNAME gone.test.\n"
    wire = codec.grafted(parsed(PLAIN), dns.name.from_text("x.cluster.local."), dns.message.from_text(text), 512)
    reply = dns.message.from_wire(wire)
    assert (reply.rcode(), len(reply.answer)) == (dns.rcode.NXDOMAIN, 2)


def test_grafted_keeps_the_case_of_the_question() -> None:
    query = parsed(bytes.fromhex("1234 0100 0001 0000 0000 0000 0142 00 0001 0001"))
    wire = codec.grafted(query, dns.name.from_text("B.default.svc.cluster.local."), dns.message.from_text(ANSWER), 512)
    assert wire[12 : query.end] == query.wire[12 : query.end]


def test_grafted_answer_too_long_is_truncated() -> None:
    lines = "".join(f"b.default.svc.cluster.local. 30 IN A 10.244.1.{host}\n" for host in range(100))
    answer = dns.message.from_text(ANSWER + lines)
    name = dns.name.from_text("b.default.svc.cluster.local.")
    short = dns.message.from_wire(codec.grafted(parsed(PLAIN), name, answer, 512))
    assert short.flags & dns.flags.TC
    assert not short.answer
    assert len(dns.message.from_wire(codec.grafted(parsed(PLAIN), name, answer, 65535)).answer[1]) == 101


def test_grafted_passes_truncation_on() -> None:
    answer = dns.message.from_text(ANSWER)
    answer.flags |= dns.flags.TC
    wire = codec.grafted(parsed(EDNS), dns.name.from_text("b.default.svc.cluster.local."), answer, 4096)
    assert dns.message.from_wire(wire).flags & dns.flags.TC


def test_empty_answers() -> None:
    assert codec.empty(parsed(PLAIN), dns.rcode.SERVFAIL) == bytes.fromhex(
        "1234 8182 0001 0000 0000 0000 0162 00 0001 0001"
    )
    reply = dns.message.from_wire(codec.empty(parsed(EDNS), dns.rcode.NXDOMAIN))
    assert (reply.rcode(), reply.edns, reply.ednsflags, reply.payload) == (dns.rcode.NXDOMAIN, 0, dns.flags.DO, 1232)
    assert EDNS.is_response(reply)
