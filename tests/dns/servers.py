"""DNS servers on loopback for the forwarder's tests: real sockets, answers out of a table, faults on demand."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
from dns.message import Message

Records = Mapping[tuple[str, str], list[str]]


def udp_socket(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    sock.bind((host, port))
    return sock


def tcp_socket(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setblocking(False)
    sock.bind((host, port))
    sock.listen(64)
    return sock


def socket_pair() -> tuple[socket.socket, socket.socket]:
    """UDP and TCP on one port."""
    for _ in range(50):
        udp = udp_socket()
        try:
            return udp, tcp_socket(port=udp.getsockname()[1])
        except OSError:
            udp.close()
    raise OSError("no port that is free for UDP and TCP")


@dataclass
class FakeServer(asyncio.DatagramProtocol):
    """Knows the names of *records*; every other name is NXDOMAIN, with a SOA as real servers give one."""

    records: Records = field(default_factory=dict)
    delay: float = 0.0
    silent: bool = False
    #: Whether TCP is answered; else it is refused.
    tcp: bool = True
    code: dns.rcode.Rcode | None = None
    #: Changes an answer before it leaves; gives every datagram to send in its place.
    tamper: Callable[[bytes], list[bytes]] | None = None
    seen: list[str] = field(default_factory=list)
    wires: list[bytes] = field(default_factory=list)
    port: int = 0
    _transport: asyncio.DatagramTransport | None = None
    _known: dict[tuple[bytes, str, dns.rcode.Rcode | None], tuple[str, bytes]] = field(default_factory=dict)

    def respond(self, wire: bytes, way: str) -> bytes | None:
        """The answer to a query; the same to the same one, which is kept."""
        key = (wire[2:], way, self.code)
        if key not in self._known:
            self._known[key] = self._answered(dns.message.from_wire(wire), way)
        asked, answer = self._known[key]
        self.wires.append(wire)
        self.seen.append(f"{way} {asked}")
        return None if self.silent else wire[:2] + answer[2:]

    def _answered(self, query: Message, way: str) -> tuple[str, bytes]:
        """What was asked, and the answer."""
        question = query.question[0]
        answer = dns.message.make_response(query, recursion_available=True)
        self._fill(answer, question.name, dns.rdatatype.to_text(question.rdtype))
        if self.code is not None:
            answer.set_rcode(self.code)
        limit = 65535 if way == "tcp" else max(512, query.payload if query.edns >= 0 else 512)
        try:
            reply: bytes = answer.to_wire(max_size=limit)
        except dns.exception.TooBig:
            answer.answer = []
            answer.flags |= dns.flags.TC
            reply = answer.to_wire()
        return f"{question.name.to_text()} {dns.rdatatype.to_text(question.rdtype)}", reply

    def _fill(self, answer: Message, name: dns.name.Name, rdtype: str) -> None:
        text = name.to_text().lower()
        owners = {owner for owner, _ in self.records}
        if (text, "CNAME") in self.records and rdtype != "CNAME":
            (target,) = self.records[text, "CNAME"]
            answer.answer.append(dns.rrset.from_text(name, 5, "IN", "CNAME", target))
            self._fill(answer, dns.name.from_text(target), rdtype)
        elif (text, rdtype) in self.records:
            answer.answer.append(dns.rrset.from_text(name, 30, "IN", rdtype, *self.records[text, rdtype]))
        else:
            zone = text.partition(".")[2] or "."
            answer.authority.append(dns.rrset.from_text(zone, 3600, "IN", "SOA", "ns. root. 1 2 3 4 3600"))
            if text not in owners:
                answer.set_rcode(dns.rcode.NXDOMAIN)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)  # by class only since Python 3.12

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self.respond(data, "udp")
        if answer is None:
            return
        loop = asyncio.get_running_loop()
        for datagram in self.tamper(answer) if self.tamper else [answer]:
            loop.call_later(self.delay, self._send, datagram, addr)

    def _send(self, data: bytes, addr: tuple[str, int]) -> None:
        assert self._transport is not None
        self._transport.sendto(data, addr)

    async def serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                wire = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                answer = self.respond(wire, "tcp")
                if answer is None:
                    continue
                await asyncio.sleep(self.delay)
                for message in self.tamper(answer) if self.tamper else [answer]:
                    writer.write(len(message).to_bytes(2, "big") + message)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator["FakeServer"]:
        udp, tcp = socket_pair()
        self.port = udp.getsockname()[1]
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=udp)
        server = await asyncio.start_server(self.serve_stream, sock=tcp)
        if not self.tcp:
            server.close()
        try:
            yield self
        finally:
            server.close()
            transport.close()


class Asker(asyncio.DatagramProtocol):
    """A stub resolver: sends queries to one server and matches answers by id."""

    def __init__(self, host: str, port: int) -> None:
        self.server = (host, port)
        self.waiting: dict[int, asyncio.Future[bytes]] = {}

    async def raw(self, wire: bytes, seconds: float = 5.0) -> bytes:
        """Sends one datagram and gives the answer that has its id."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: self, remote_addr=self.server)
        future: asyncio.Future[bytes] = loop.create_future()
        self.waiting[int.from_bytes(wire[:2], "big")] = future
        try:
            transport.sendto(wire)
            async with asyncio.timeout(seconds):
                return await future
        finally:
            transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        assert addr == self.server, "answers come from the address that was asked"
        future = self.waiting.get(int.from_bytes(data[:2], "big"))
        if future is not None and not future.done():
            future.set_result(data)

    async def ask(self, name: str, rdtype: str = "A", *, edns: bool = False, tcp: bool = False) -> Message:
        query = dns.message.make_query(name, rdtype, use_edns=0 if edns else None)
        request: bytes = query.to_wire()
        wire = await (self.stream(request) if tcp else self.raw(request))
        answer = dns.message.from_wire(wire)
        assert query.is_response(answer), "id and question as asked"
        return answer

    async def stream(self, *wires: bytes) -> bytes:
        """The first answer to *wires*, sent in one piece over TCP."""
        async with asyncio.timeout(5.0):
            reader, writer = await asyncio.open_connection(*self.server)
            try:
                writer.write(b"".join(len(wire).to_bytes(2, "big") + wire for wire in wires))
                return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
            finally:
                writer.close()


def lines(answer: Message) -> list[str]:
    """Code and answer section as text."""
    records = [line for records in answer.answer for line in records.to_text().splitlines()]
    return [dns.rcode.to_text(answer.rcode()), *sorted(records)]
