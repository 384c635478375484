"""DNS messages for the forwarder: parse a query, ask under another name, match and classify an answer.

Messages are forwarded as the bytes they came in; only the id is replaced. So EDNS options, DNSSEC bits and the case of
letters (draft-vixie-dnsext-dns0x20) reach the other side unchanged. Header and question are parsed here (all that a
forwarded message needs: 12 bytes and one name); records are left to dnspython, which costs the session 5.8 MB, 70 ms
of import and 80 µs an answer (measured 2026-07, Python 3.11). A codec of our own would save that, but compression, EDNS
and forty types of records are easy to get wrong; 5 % of the memory budget is cheaper.

Answers built here (:func:`empty`, :func:`grafted`) have EDNS exactly when the query did (RFC 6891 section 6.1.1:
systemd-resolved takes a missing OPT for a broken server) and always RA, without which Go takes an empty answer for a
lame referral.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Final

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.IN.A
import dns.rrset
from dns.name import Name
from dns.rdata import Rdata
from dns.rdtypes.svcbbase import MandatoryParam, ParamKey, SVCBBase
from dns.rrset import RRset

#: id, flags, then how many questions, answers, authority and additional records (RFC 1035 section 4.1.1).
_HEADER: Final = struct.Struct("!6H")
_QUESTION_TAIL: Final = struct.Struct("!HH")
#: A record behind its owner: type, class, time to live, length of its data.
_RECORD: Final = struct.Struct("!HHIH")
_POINTER: Final = 0xC000
_ALIAS_OWNER_LENGTH: Final = 2
#: Root name, type OPT, UDP payload size, extended rcode, version, flags, length of options (RFC 6891 section 6.1.2).
_OPT: Final = struct.Struct("!BHHBBHH")
_OPT_TYPE: Final = 41

_QR: Final = 0x8000
_TC: Final = 0x0200
_RD: Final = 0x0100
_RA: Final = 0x0080
_CD: Final = 0x0010
_OPCODE: Final = 0x7800
_RCODE: Final = 0x000F
_DO: Final = 0x8000

#: The largest answer for UDP clients without EDNS (RFC 1035 section 4.2.1), and the size that we advertise (that of DNS
#: flag day 2020, which needs no fragmentation).
PLAIN_PAYLOAD: Final = 512
OUR_PAYLOAD: Final = 1232
#: The longest answer by UDP, whatever a client advertises: the limit of BIND and Unbound.
MAX_PAYLOAD: Final = 4096
MAX_MESSAGE: Final = 65535

#: The forwarder's answer to a probe, with TTL 0: an address of TEST-NET-1 (RFC 5737).
PROBE_ADDRESS: Final = IPv4Address("192.0.2.1")

#: The longest TTL of the alias that :func:`grafted` adds: that of CoreDNS's own records.
_ALIAS_TTL: Final = 5


@dataclass(frozen=True, slots=True)
class Query:
    """A request with exactly one question; ``wire`` is the unchanged message."""

    wire: bytes
    flags: int
    name: Name
    rdtype: int
    rdclass: int
    #: Where the question ends in ``wire``.
    end: int
    #: The client's EDNS: its payload size and flags; None without EDNS.
    edns: tuple[int, int] | None
    #: Only a question and at most an OPT record: it may be asked under another name, unlike a signed one.
    plain: bool

    @property
    def opcode(self) -> int:
        """0 is QUERY; NOTIFY and UPDATE share the layout up to ``end``."""
        return (self.flags & _OPCODE) >> 11

    @property
    def payload(self) -> int:
        """The longest answer that the client accepts by UDP."""
        return min(max(PLAIN_PAYLOAD, self.edns[0]), MAX_PAYLOAD) if self.edns else PLAIN_PAYLOAD


def parse_query(wire: bytes) -> Query | None:
    """The query in *wire*; None where there is none: then :func:`format_error` is the answer."""
    if len(wire) < _HEADER.size:
        return None
    _, flags, questions, answers, authority, additional = _HEADER.unpack_from(wire)
    if flags & _QR or questions != 1:
        return None
    try:
        name, length = dns.name.from_wire(wire, _HEADER.size)
    except dns.exception.DNSException:
        return None
    end = _HEADER.size + length + _QUESTION_TAIL.size
    # The first name cannot have a valid compression pointer; one with a pointer could not be compared as bytes.
    if end > len(wire) or wire[_HEADER.size : _HEADER.size + length] != encoded(name):
        return None
    rdtype, rdclass = _QUESTION_TAIL.unpack_from(wire, end - _QUESTION_TAIL.size)
    edns = None
    if answers == authority == 0 and additional == 1:
        edns = _read_opt(wire, end)
        plain = edns is not None
    else:
        plain = answers == authority == additional == 0 and len(wire) == end
    return Query(wire, flags, name, rdtype, rdclass, end, edns, plain)


def _read_opt(wire: bytes, start: int) -> tuple[int, int] | None:
    if len(wire) < start + _OPT.size:
        return None
    root, rdtype, payload, _, version, flags, length = _OPT.unpack_from(wire, start)
    if (root, rdtype, version) != (0, _OPT_TYPE, 0) or len(wire) != start + _OPT.size + length:
        return None
    return payload, flags


def format_error(wire: bytes) -> bytes | None:
    """FORMERR for what :func:`parse_query` rejects; None where nothing must be sent (too short, or an answer)."""
    if len(wire) < _HEADER.size:
        return None
    message_id, flags, *_ = _HEADER.unpack_from(wire)
    if flags & _QR:
        return None
    return _HEADER.pack(message_id, _QR | flags & (_OPCODE | _RD) | _RA | dns.rcode.FORMERR, 0, 0, 0, 0)


def renamed(query: Query, name: Name, rdtype: int) -> Query:
    """The same query for another *name* and type: flags and EDNS as the client sent them. *query* must be plain."""
    question = encoded(name) + _QUESTION_TAIL.pack(rdtype, query.rdclass)
    wire = query.wire[: _HEADER.size] + question + query.wire[query.end :]
    return Query(wire, query.flags, name, rdtype, query.rdclass, _HEADER.size + len(question), query.edns, query.plain)


def encoded(name: Name) -> bytes:
    """A name in wire format, uncompressed."""
    return b"".join(bytes([len(label)]) + label for label in name.labels)


def with_id(wire: bytes, message_id: int) -> bytes:
    """*wire* under another id."""
    return message_id.to_bytes(2, "big") + wire[2:]


def question(name: Name, message_id: int) -> Query:
    """A question for the IPv4 addresses of *name*, recursion desired."""
    header = _HEADER.pack(message_id, _RD, 1, 0, 0, 0)
    wire = header + encoded(name) + _QUESTION_TAIL.pack(dns.rdatatype.A, dns.rdataclass.IN)
    return Query(wire, _RD, name, dns.rdatatype.A, dns.rdataclass.IN, len(wire), None, True)


def message_id(wire: bytes) -> int:
    """The id of a message of at least two bytes."""
    return int.from_bytes(wire[:2], "big")


def answers(wire: bytes, query: Query) -> bool:
    """Whether *wire* answers *query* by opcode and question; the caller checks id and source.

    Names are compared case-insensitively: servers that answer in lower case worked before, and the client still gets
    the unchanged answer. An error may lack the question (RFC 1035 section 4.1.1 leaves that open).
    """
    if len(wire) < _HEADER.size:
        return False
    _, flags, questions, records, _, _ = _HEADER.unpack_from(wire)
    if not flags & _QR or (flags ^ query.flags) & _OPCODE:
        return False
    if questions == 0:
        return rcode(wire) != dns.rcode.NOERROR and records == 0
    asked, given = query.wire[_HEADER.size : query.end], wire[_HEADER.size : query.end]
    tail = -_QUESTION_TAIL.size  # lower() must not see type and class: HTTPS is 65, and so is "A"
    return questions == 1 and given[:tail].lower() == asked[:tail].lower() and given[tail:] == asked[tail:]


def rcode(wire: bytes) -> int:
    """The response code, without EDNS's upper bits."""
    return wire[3] & _RCODE


def has_records(wire: bytes) -> bool:
    """Whether an answer has records in its answer section, or is truncated."""
    _, flags, _, records, _, _ = _HEADER.unpack_from(wire)
    return bool(records or flags & _TC)


def is_negative(wire: bytes) -> bool:
    """Whether an answer means NXDOMAIN or NODATA; a truncated one means neither."""
    return rcode(wire) in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN) and not has_records(wire)


def is_truncated(wire: bytes) -> bool:
    """Whether it did not fit a datagram: by TCP there is more."""
    return bool(int.from_bytes(wire[2:4], "big") & _TC)


def read_answer(wire: bytes) -> dns.message.Message | None:
    """The records of an answer; None where they cannot be parsed."""
    try:
        return dns.message.from_wire(wire, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class Named:
    """An address of *name* in cluster DNS; ``service``: the name is a Service's, or below one."""

    address: IPv4Address
    name: str
    service: bool


def addresses(answer: dns.message.Message, domain: Name) -> frozenset[Named]:
    """The answer's addresses of names inside *domain*, also those beside SRV records.

    A CNAME to a name outside the domain (a Service of type ExternalName) leads to addresses that are not the cluster's.
    """
    services = Name((b"svc", *domain.labels))
    return frozenset(
        Named(IPv4Address(record.address), name.to_text(omit_final_dot=True), name.is_subdomain(services))
        for records in (*answer.answer, *answer.additional)
        if (name := records.name).is_subdomain(domain)
        for record in records
        if isinstance(record, dns.rdtypes.IN.A.A)
    )


def drop_ipv6(answer: dns.message.Message, domain: Name) -> bool:
    """Remove IPv6 addresses of names inside *domain* from *answer*; returns whether there were any.

    Names outside that a CNAME leads to are not the cluster's, and are reached as always.
    """
    dropped = False
    for section in (answer.answer, answer.additional):
        for at, records in reversed(list(enumerate(section))):
            if not records.name.is_subdomain(domain):
                continue
            if records.rdtype == dns.rdatatype.AAAA:
                del section[at]
                dropped = True
            elif any(isinstance(record, SVCBBase) and ParamKey.IPV6HINT in record.params for record in records):
                bare = [_without_hint(record) for record in records if isinstance(record, SVCBBase)]
                section[at] = dns.rrset.from_rdata_list(records.name, records.ttl, bare)
                dropped = True
    return dropped


def _without_hint(record: SVCBBase) -> Rdata:
    """*record* (RFC 9460) without ``ipv6hint``, also among the mandatory keys."""
    params = {key: value for key, value in record.params.items() if key != ParamKey.IPV6HINT}
    mandatory = params.get(ParamKey.MANDATORY)
    if mandatory is not None:
        keys = [key for key in mandatory.keys if key != ParamKey.IPV6HINT]
        params.pop(ParamKey.MANDATORY)
        if keys:
            params[ParamKey.MANDATORY] = MandatoryParam(keys)  # type: ignore[no-untyped-call]  # dnspython's
    changed: Rdata = record.replace(params=params)
    return changed


def empty(query: Query, code: int, *, truncated: bool = False) -> bytes:
    """An answer without records: an error, NODATA, or with *truncated* the request to retry by TCP.

    Negative answers of this kind are never cached, since they have no SOA (RFC 2308 section 5).
    """
    flags = _answer_flags(query) | code | (_TC if truncated else 0)
    header = _HEADER.pack(message_id(query.wire), flags, 1, 0, 0, 0 if query.edns is None else 1)
    return header + query.wire[_HEADER.size : query.end] + _our_opt(query)


def probed(query: Query) -> bytes:
    """The answer to a probe: PROBE_ADDRESS with TTL 0; NODATA for other types."""
    if (query.rdtype, query.rdclass) != (dns.rdatatype.A, dns.rdataclass.IN):
        return empty(query, dns.rcode.NOERROR)
    record = _pointer(_HEADER.size) + _RECORD.pack(query.rdtype, query.rdclass, 0, 4) + PROBE_ADDRESS.packed
    header = _HEADER.pack(message_id(query.wire), _answer_flags(query), 1, 1, 0, 0 if query.edns is None else 1)
    return header + query.wire[_HEADER.size : query.end] + record + _our_opt(query)


def has_address(wire: bytes, address: IPv4Address) -> bool:
    """Whether an answer contains *address*, for any name."""
    answer = read_answer(wire)
    return answer is not None and any(named.address == address for named in addresses(answer, dns.name.root))


def ipv4_addresses(wire: bytes) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses that an answer has for whatever its name is an alias of, in their order."""
    answer = read_answer(wire)
    records = (record for records in answer.answer for record in records) if answer is not None else ()
    return tuple(IPv4Address(record.address) for record in records if isinstance(record, dns.rdtypes.IN.A.A))


def _our_opt(query: Query) -> bytes:
    if query.edns is None:
        return b""
    return _OPT.pack(0, _OPT_TYPE, OUR_PAYLOAD, 0, 0, query.edns[1] & _DO, 0)


def grafted(query: Query, name: Name, answer: dns.message.Message, limit: int) -> bytes:
    """Turn *answer*, which is for *name*, into one to *query*: an alias, then the records.

    glibc, c-ares and systemd-resolved need the alias to accept records of another owner; musl and Go do not. Answers
    longer than *limit* become truncated ones.
    """
    if answer.flags & dns.flags.TC:
        return empty(query, dns.rcode.NOERROR, truncated=True)
    if not answer.answer:
        return empty(query, dns.rcode.NOERROR)
    target = encoded(name)
    target_at = query.end + _ALIAS_OWNER_LENGTH + _RECORD.size
    ttl = min(_ALIAS_TTL, *(records.ttl for records in answer.answer))
    alias = _pointer(_HEADER.size) + _RECORD.pack(dns.rdatatype.CNAME, query.rdclass, ttl, len(target)) + target
    return _assembled(query, answer, {name: _pointer(target_at)}, limit, alias)


def rebuilt(query: Query, answer: dns.message.Message, limit: int) -> bytes:
    """Encode *answer* to *query* after records were removed. Without a SOA: no cache keeps a negative answer."""
    if answer.flags & dns.flags.TC:
        return empty(query, dns.rcode.NOERROR, truncated=True)
    return _assembled(query, answer, {query.name: _pointer(_HEADER.size)}, limit)


def _assembled(
    query: Query, answer: dns.message.Message, shortened: Mapping[Name, bytes], limit: int, *before: bytes
) -> bytes:
    records = [*before, *_encoded_records(answer.answer, shortened)]
    extra = list(_encoded_records(answer.additional, shortened))
    # An alias may lead to no name: then NXDOMAIN comes with a CNAME (RFC 6604).
    flags = _answer_flags(query) | answer.rcode() & _RCODE
    header = _HEADER.pack(message_id(query.wire), flags, 1, len(records), 0, len(extra) + (query.edns is not None))
    question = query.wire[_HEADER.size : query.end]
    wire = b"".join((header, question, *records, *extra, _our_opt(query)))
    return wire if len(wire) <= limit else empty(query, dns.rcode.NOERROR, truncated=True)


def _encoded_records(section: Iterable[RRset], shortened: Mapping[Name, bytes]) -> Iterator[bytes]:
    """Records, their data uncompressed: rendering by dnspython takes four times as long."""
    for records in section:
        owner = shortened.get(records.name) or encoded(records.name)
        for record in records:
            data = record.to_generic().data
            yield owner + _RECORD.pack(records.rdtype, records.rdclass, records.ttl, len(data)) + data


def _pointer(offset: int) -> bytes:
    """A pointer to the name at *offset* (RFC 1035 section 4.1.4)."""
    return (_POINTER | offset).to_bytes(2, "big")


def _answer_flags(query: Query) -> int:
    return _QR | query.flags & (_OPCODE | _RD | _CD) | _RA
