"""The sample application over real local sockets: what other tests take for granted about it."""

import hashlib
import json
import socket
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cluster.sample import bulk, pattern
from tests.cluster.sample.app import App
from tests.cluster.sample.http1 import Server
from tests.cluster.sample.listeners import Handler, Listener

HOST = "127.0.0.1"


class Service:
    """A running service and connections to it."""

    def __init__(self, name: str, following: str = "") -> None:
        self.server = Server(App(name, following))
        self.listener = Listener(0, self.server.serve, HOST)

    def connect(self) -> socket.socket:
        return connect(self.listener.port)

    def ask(self, request: bytes) -> bytes:
        with self.connect() as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            return read_all(connection)


def connect(port: int) -> socket.socket:
    return socket.create_connection((HOST, port), timeout=10)


def read_all(connection: socket.socket) -> bytes:
    found = b""
    while piece := connection.recv(65536):
        found += piece
    return found


def read_answer(connection: socket.socket) -> bytes:
    """One answer with a content-length."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service("x")
    yield made
    made.listener.stop_accepting()


def test_keep_alive_and_pipelining(service: Service) -> None:
    answers = service.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
    assert answers.count(b"HTTP/1.1 200 OK") == 3


def test_http_1_0_ends_after_one_answer(service: Service) -> None:
    with service.connect() as connection:
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert read_all(connection).endswith(b"connection: close\r\n\r\nx")


def test_the_request_comes_back_as_it_was(service: Service) -> None:
    raw = b"PuT /request?q=1 HTTP/1.1\r\nhost: X\r\nB: 2\r\na: 1\r\nB:  3\r\nContent-Length: 3\r\n\r\nabc"
    described = json.loads(service.ask(raw).partition(b"\r\n\r\n")[2])
    assert described["method"] == "PuT"
    assert described["target"] == "/request?q=1"
    assert described["headers"] == [["host", "X"], ["B", "2"], ["a", "1"], ["B", "3"], ["Content-Length", "3"]]
    assert described["body_length"] == 3
    assert described["client"] == HOST


def test_chunks_and_trailers(service: Service) -> None:
    head = b"POST /request HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = service.ask(head + b"3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Sum: 5\r\n\r\n")
    described = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert (described["body_length"], described["trailers"]) == (5, [["X-Sum", "5"]])


def test_head_has_a_length_and_no_body(service: Service) -> None:
    answer = service.ask(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"content-length: 1\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


def test_expect_continue(service: Service) -> None:
    with service.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"four")
        assert read_answer(connection).endswith(b"\r\n\r\n4")


@pytest.mark.parametrize("raw", [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"GET / SPDY/3\r\n\r\n"])
def test_not_http_is_refused(service: Service, raw: bytes) -> None:
    assert service.ask(raw).startswith(b"HTTP/1.1 400 Bad Request")


def test_the_chain_propagates_its_headers_in_order() -> None:
    last = Service("last")
    url = f"http://{HOST}:{last.listener.port}/request"
    answer = Service("first", url).ask(
        b"GET / HTTP/1.1\r\nHost: x\r\nTraceparent: t\r\nx: no\r\na: 1\r\nBaggage: k=v\r\n\r\n"
    )
    name, _, described = answer.partition(b"\r\n\r\n")[2].decode().partition(">")
    assert name == "first"
    headers = [pair for pair in json.loads(described)["headers"] if pair[0] != "Host"]
    assert headers == [["Traceparent", "t"], ["a", "1"], ["Baggage", "k=v"]]


def test_a_dead_next_is_part_of_the_answer() -> None:
    with socket.socket() as unused:
        unused.bind((HOST, 0))
        port = unused.getsockname()[1]
    assert b"x>error(" in Service("x", f"http://{HOST}:{port}/").ask(b"GET / HTTP/1.1\r\n\r\n")


def test_two_hundred_connections_at_once(service: Service) -> None:
    together = threading.Barrier(200)

    def one(_: int) -> bytes:
        with service.connect() as connection:
            together.wait(20)
            connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            return read_answer(connection)

    with ThreadPoolExecutor(200) as pool:
        assert all(answer.endswith(b"\r\n\r\nx") for answer in pool.map(one, range(200)))


def test_drain_tells_who_asks_and_closes_who_waits(service: Service) -> None:
    with service.connect() as idle, service.connect() as asks, service.connect() as busy:
        for waiting in (idle, asks):
            waiting.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            read_answer(waiting)
        busy.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        busy.recv(100)
        service.listener.stop_accepting()
        with pytest.raises(ConnectionRefusedError):
            service.connect()
        service.server.drain()
        asks.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"connection: close" in read_all(asks)
        assert not service.listener.wait_idle(0)
        service.server.close_waiting()
        assert idle.recv(1) == b""
        busy.sendall(b"ab")
        assert b"connection: close" in read_all(busy)
    assert service.listener.wait_idle(5)


def test_websocket_echo(service: Service) -> None:
    key = "dGhlIHNhbXBsZSBub25jZQ=="  # the example of RFC 6455, section 1.3
    with service.connect() as connection:
        connection.sendall(
            "GET /any HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in connection.recv(4096)
        masked = bytes.fromhex("818537fa213d7f9f4d5158")  # "Hello", section 5.7
        connection.sendall(masked)
        assert connection.recv(100) == bytes.fromhex("810548656c6c6f")
        connection.sendall(bytes.fromhex("888000000000"))
        assert connection.recv(100) == bytes.fromhex("8800")


def _listen(handler: Handler) -> int:
    return Listener(0, handler, HOST).port


def test_sink_counts_and_hashes() -> None:
    data = pattern.pattern(0, 3_000_000)
    with connect(_listen(bulk.HANDLERS[7001])) as connection:
        connection.sendall(struct.pack("!Q", len(data)) + data)
        answer = connection.recv(40, socket.MSG_WAITALL)
    assert answer == struct.pack("!Q", len(data)) + hashlib.sha256(data).digest()


def test_source_sends_the_pattern() -> None:
    with connect(_listen(bulk.HANDLERS[7002])) as connection:
        connection.sendall(struct.pack("!Q", 2_500_000))
        connection.shutdown(socket.SHUT_WR)
        data = read_all(connection)
    assert hashlib.sha256(data).digest() == pattern.pattern_sha256(2_500_000)


def test_half_close_keeps_the_other_direction() -> None:
    with connect(_listen(bulk.HANDLERS[7004])) as connection:
        connection.sendall(b"abc")
        connection.shutdown(socket.SHUT_WR)
        assert read_all(connection) == b"abcbye:3\n"


def test_the_pattern_has_no_equal_kilobytes() -> None:
    pieces = {bytes(pattern.BLOCK[start : start + 1024]) for start in range(0, pattern.BLOCK_SIZE, 1024)}
    assert len(pieces) == pattern.BLOCK_SIZE // 1024
    assert pattern.pattern(pattern.BLOCK_SIZE - 2, 4) == pattern.BLOCK[-2:] + pattern.BLOCK[:2]
