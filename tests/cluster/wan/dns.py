"""The wan's recursive resolver, which knows example.test and that there is nothing else: pure from query to answer
(RFC 1035), over UDP and TCP.

`whoami.example.test` answers the asker's own address: tests see by which way a query came.
"""

import ipaddress
import socket
import socketserver
import struct
from dataclasses import dataclass

A, NS, CNAME, SOA, TXT, AAAA, ANY = 1, 2, 5, 6, 16, 28, 255
_IN = 1
_NOERROR, _FORMERR, _NXDOMAIN = 0, 1, 3
_UDP_LIMIT = 512
_OPT = struct.Struct("!BHHIH")  # RFC 6891 section 6.1.2; the name is the root
_OPT_TYPE = 41
_OUR_PAYLOAD_LIMIT = 1232
_DNSSEC_OK = 0x8000
_TTL = 5
_HEADER = struct.Struct("!HHHHHH")

Records = dict[str, dict[int, list[bytes]]]


@dataclass(frozen=True)
class Query:
    """One question."""

    number: int
    flags: int
    name: str
    kind: int
    question: bytes
    payload_limit: int
    edns: bytes = b""
    """The OPT record of the answer; empty where the question had none."""


class MalformedError(Exception):
    """Not a DNS query."""


def encode_name(name: str) -> bytes:
    """A name in wire form; "" is the root."""
    labels = [label.encode() for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def records(zone: str, dns: str, web: str) -> Records:
    """The zone's content."""
    web4, dns4 = ipaddress.ip_address(web).packed, ipaddress.ip_address(dns).packed
    soa = encode_name(f"ns.{zone}") + encode_name(f"root.{zone}") + struct.pack("!IIIII", 1, 3600, 600, 86400, _TTL)
    long_text = b"".join(bytes([200]) + b"x" * 200 for _ in range(10))
    return {
        zone: {SOA: [soa], NS: [encode_name(f"ns.{zone}")], A: [web4], TXT: [b"\x05hello"]},
        f"ns.{zone}": {A: [dns4]},
        f"www.{zone}": {A: [web4]},
        f"alias.{zone}": {CNAME: [encode_name(f"www.{zone}")]},
        f"dual.{zone}": {A: [web4], AAAA: [ipaddress.ip_address("2001:db8::80").packed]},
        f"large.{zone}": {TXT: [long_text]},  # does not fit UDP: the asker must come back over TCP
    }


def parse(data: bytes) -> Query:
    """The first question of a query; MalformedError for anything else."""
    if len(data) < _HEADER.size:
        raise MalformedError
    number, flags, questions, _, _, additional = _HEADER.unpack_from(data)
    if flags & 0x8000 or questions != 1:
        raise MalformedError
    labels, offset = [], _HEADER.size
    while True:
        if offset >= len(data):
            raise MalformedError
        length = data[offset]
        if length > 63 or offset + 1 + length > len(data):
            raise MalformedError
        offset += 1
        if not length:
            break
        labels.append(data[offset : offset + length].decode("latin-1"))
        offset += length
    if offset + 4 > len(data):
        raise MalformedError
    kind, _ = struct.unpack_from("!HH", data, offset)
    end = offset + 4
    limit, edns = _UDP_LIMIT, b""
    if additional and data[end : end + 3] == b"\0\0\x29" and len(data) >= end + _OPT.size:
        _, _, theirs, extended, _ = _OPT.unpack_from(data, end)
        limit = max(limit, theirs)
        edns = _OPT.pack(0, _OPT_TYPE, _OUR_PAYLOAD_LIMIT, extended & _DNSSEC_OK, 0)
    return Query(number, flags, ".".join(labels).lower(), kind, data[_HEADER.size : end], limit, edns)


def answer(query: Query, zone: str, known: Records, client: str) -> bytes:
    """The whole response."""
    name = query.name
    if name != zone and not name.endswith(f".{zone}"):
        above = not name or zone.endswith(f".{name}")
        return _response(query, _NOERROR if above else _NXDOMAIN, [], authority=[("", SOA, known[zone][SOA][0])])
    found = dict(known.get(name, {}))
    if name == f"whoami.{zone}":
        found = {A: [ipaddress.ip_address(client).packed]}
    if not found:
        return _response(query, _NXDOMAIN, [], authority=_soa(zone, known))
    answers: list[tuple[str, int, bytes]] = []
    if CNAME in found and query.kind != CNAME:
        answers.append((name, CNAME, found[CNAME][0]))
        name = f"www.{zone}"  # the only alias there is
        found = known[name]
    kinds = found if query.kind == ANY else {query.kind}
    answers += [(name, kind, data) for kind in kinds for data in found.get(kind, [])]
    return _response(query, _NOERROR, answers, authority=[] if answers else _soa(zone, known))


def _soa(zone: str, known: Records) -> list[tuple[str, int, bytes]]:
    return [(zone, SOA, known[zone][SOA][0])]


def _response(
    query: Query,
    code: int,
    answers: list[tuple[str, int, bytes]],
    authority: list[tuple[str, int, bytes]] | None = None,
) -> bytes:
    authority = authority or []
    flags = 0x8000 | (query.flags & 0x0100) | 0x0080 | code  # QR, RD as asked, RA, code
    head = _HEADER.pack(query.number, flags, 1, len(answers), len(authority), 1 if query.edns else 0)
    body = b"".join(
        encode_name(name) + struct.pack("!HHIH", kind, _IN, _TTL, len(data)) + data
        for name, kind, data in (*answers, *authority)
    )
    return head + query.question + body + query.edns


def truncated(query: Query, response: bytes) -> bytes:
    """RESPONSE if it fits into the asker's datagram, else an empty one with TC set."""
    if len(response) <= query.payload_limit:
        return response
    (flags,) = struct.unpack_from("!H", response, 2)
    head = _HEADER.pack(query.number, flags | 0x0200, 1, 0, 0, 1 if query.edns else 0)
    return head + query.question + query.edns


class Server:
    """The sockets; serves until the process ends."""

    def __init__(self, address: str, zone: str, web: str) -> None:
        known = records(zone, address, web)

        def respond(data: bytes, client: str, *, over_udp: bool) -> bytes | None:
            try:
                query = parse(data)
            except MalformedError:
                if len(data) < 2:
                    return None
                (number,) = struct.unpack_from("!H", data)
                return _HEADER.pack(number, 0x8000 | _FORMERR, 0, 0, 0, 0)
            response = answer(query, zone, known, client)
            return truncated(query, response) if over_udp else response

        class Datagram(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                data, endpoint = self.request
                response = respond(data, self.client_address[0], over_udp=True)
                if response:
                    endpoint.sendto(response, self.client_address)

        class Stream(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                connection: socket.socket = self.request
                while True:
                    head = connection.recv(2, socket.MSG_WAITALL)
                    if len(head) < 2:
                        return
                    data = connection.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL)
                    response = respond(data, self.client_address[0], over_udp=False)
                    if response is None:
                        return
                    connection.sendall(len(response).to_bytes(2, "big") + response)

        socketserver.ThreadingTCPServer.allow_reuse_address = True
        socketserver.ThreadingTCPServer.daemon_threads = True
        self.servers = (
            socketserver.ThreadingUDPServer((address, 53), Datagram),
            socketserver.ThreadingTCPServer((address, 53), Stream),
        )
