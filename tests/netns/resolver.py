"""A DNS server that signs every answer with its name, and a client that says who answered."""

import selectors
import socket
import threading

import dns.message
import dns.rdatatype
import dns.rrset


class Resolver:
    """Answers every question over UDP and TCP with TXT *name*, in a thread until :meth:`close`. Owns the sockets."""

    def __init__(self, name: str, udp: socket.socket, tcp: socket.socket) -> None:
        self.name = name
        self._selector = selectors.DefaultSelector()
        self._selector.register(udp, selectors.EVENT_READ, self._datagram)
        self._selector.register(tcp, selectors.EVENT_READ, self._connection)
        self._stop, waker = socket.socketpair()
        self._selector.register(waker, selectors.EVENT_READ, None)
        self._sockets = [udp, tcp, waker]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def close(self) -> None:
        """Stop answering."""
        self._stop.close()
        self._thread.join()
        self._selector.close()
        for sock in self._sockets:
            sock.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                key.data(key.fileobj)

    def _datagram(self, sock: socket.socket) -> None:
        data, client = sock.recvfrom(4096)
        sock.sendto(self._answer(data), client)

    def _connection(self, sock: socket.socket) -> None:
        connection, _ = sock.accept()
        with connection:
            connection.settimeout(2)
            length = int.from_bytes(connection.recv(2), "big")
            answer = self._answer(connection.recv(length))
            connection.sendall(len(answer).to_bytes(2, "big") + answer)

    def _answer(self, data: bytes) -> bytes:
        query = dns.message.from_wire(data)
        answer = dns.message.make_response(query)
        answer.answer.append(dns.rrset.from_text(query.question[0].name, 1, "IN", "TXT", f'"{self.name}"'))
        return answer.to_wire()


def listening(address: str, port: int = 53) -> tuple[socket.socket, socket.socket]:
    """UDP and TCP sockets for a Resolver, in the namespace of the caller."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    udp, tcp = socket.socket(family, socket.SOCK_DGRAM), socket.socket(family)
    udp.bind((address, port))
    tcp.bind((address, port))
    tcp.listen()
    return udp, tcp


def ask_udp(sock: socket.socket, server: str | None = None, seconds: float = 0.5) -> str:
    """Who answers on that UDP socket; "nobody" when nobody does. Without *server*: a connected socket."""
    sock.settimeout(seconds)
    query = dns.message.make_query("b.", dns.rdatatype.TXT).to_wire()
    try:
        sock.send(query) if server is None else sock.sendto(query, (server, 53))
        return _signature(sock.recv(4096))
    except (TimeoutError, ConnectionError):
        return "nobody"


def ask_tcp(sock: socket.socket, server: str) -> str:
    """Who answers on that unconnected TCP socket, which is closed then."""
    with sock:
        sock.settimeout(1)
        query = dns.message.make_query("b.", dns.rdatatype.TXT).to_wire()
        try:
            sock.connect((server, 53))
            sock.sendall(len(query).to_bytes(2, "big") + query)
            return _signature(sock.recv(4096)[2:])
        except OSError:
            return "nobody"


def _signature(data: bytes) -> str:
    return str(dns.message.from_wire(data).answer[0][0]).strip('"')
