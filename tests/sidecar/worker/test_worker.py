"""The worker between real sockets: what client and app see of each other is what they would see without it."""

import contextlib
import errno
import hashlib
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from meshdev.sidecar.worker import worker as module
from meshdev.sidecar.worker.connection import ClientConnection
from tests.sidecar.worker.world import CLAIMED, GET, OK, SECONDS, Port, World, answers
from tests.sockets import everything, exactly, reset


def test_each_request_meets_its_end(world: World) -> None:
    world.start(answers(b"ap"), answers(b"en"))
    client = world.client()
    for request, body in ((GET, b"ap"), (CLAIMED, b"en"), (CLAIMED, b"en"), (GET, b"ap")):
        client.sendall(request)
        assert exactly(client, len(OK) + 2) == OK + body
    client.sendall(GET + CLAIMED + GET + CLAIMED)
    assert exactly(client, 4 * (len(OK) + 2)) == OK + b"ap" + OK + b"en" + OK + b"ap" + OK + b"en"


def test_ten_clients_at_once(world: World) -> None:
    world.start(answers(b"ap"), answers(b"en"))

    def ask(number: int) -> bool:
        client = world.client()
        for turn in range(50):
            claimed = (number + turn) % 3 == 0
            client.sendall(CLAIMED if claimed else GET)
            if exactly(client, len(OK) + 2) != OK + (b"en" if claimed else b"ap"):
                return False
        return True

    with ThreadPoolExecutor(10) as pool:
        assert all(pool.map(ask, range(10)))


@pytest.mark.parametrize("whole", [False, True], ids=["app", "envoy"])
def test_much_goes_both_ways_at_once_and_arrives(world: World, whole: bool) -> None:
    size = 20 << 20

    def echo(sock: socket.socket) -> None:
        while piece := sock.recv(1 << 18):
            sock.sendall(piece)
        sock.shutdown(socket.SHUT_WR)

    world.start(echo, echo, whole=whole)
    client = world.client()
    block = b"\0" + os.urandom((1 << 20) - 1)
    sent = hashlib.sha256()

    def push() -> None:
        for _ in range(size >> 20):
            client.sendall(block)
            sent.update(block)
        client.shutdown(socket.SHUT_WR)

    pushing = threading.Thread(target=push)
    pushing.start()
    got, total = hashlib.sha256(), 0
    while piece := client.recv(1 << 16):
        got.update(piece)
        total += len(piece)
    pushing.join(SECONDS)
    assert (total, got.digest()) == (size, sent.digest())
    client.close()
    world.until(lambda: world.worker.open == 0)


def test_a_client_that_does_not_read_holds_up_its_app_only(world: World) -> None:
    sent, stands = 0, threading.Event()

    def serve(sock: socket.socket) -> None:
        nonlocal sent
        if sock.recv(100) != b"\0flood":
            sock.sendall(b"here")
            return
        sock.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            while True:
                sent += sock.send(b"x" * 65536)
        stands.set()
        everything(sock)

    world.start(serve)
    deaf, other = world.client(), world.client()
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    deaf.sendall(b"\0flood")
    assert stands.wait(SECONDS), "it is held up"
    assert 0 < sent < 32 << 20
    other.sendall(b"\0hello")
    assert exactly(other, 4) == b"here"


def test_who_has_sent_all_still_hears(world: World) -> None:
    def serve(sock: socket.socket) -> None:
        sock.sendall(b"got " + everything(sock))

    world.start(serve)
    for request in (GET, b"\0any", b"PING\r\n", b"PRI * HTTP"):
        client = world.client()
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        assert everything(client) == b"got " + request


def test_nobody_waits_for_a_client_that_keeps_what_a_draining_app_has_closed(world: World) -> None:
    port = world.start(lambda sock: sock.sendall(b"bye"))
    client = world.client()
    assert everything(client) == b"bye"
    world.until(lambda: world.worker.open_on(port) == 1)
    port.draining = True
    world.until(lambda: world.worker.open_on(port) == 0)
    assert world.worker.open == 1, "it may still send"


def test_an_early_answer_arrives_before_the_reset(world: World) -> None:
    """As without it: an app that answers 413 and closes, with most of the body unread."""
    answer = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

    def serve(sock: socket.socket) -> None:
        sock.recv(1000)
        sock.sendall(answer)

    def ask() -> bytes:
        client, got = world.client(), b""
        with contextlib.suppress(OSError):
            client.sendall(b"POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 8388608\r\n\r\n" + b"x" * (8 << 20))
        with contextlib.suppress(ConnectionResetError):  # or an orderly end, as without it: which is first varies
            while piece := client.recv(1000):
                got += piece
        return got

    world.start(serve)
    for _ in range(20):
        assert ask() == answer


@pytest.mark.parametrize("whole", [False, True])
def test_who_sends_on_to_an_end_that_has_closed_is_told(world: World, *, whole: bool) -> None:
    """A reset, as without it: the client would wait forever for its words to be taken."""

    def serve(sock: socket.socket) -> None:
        sock.recv(1000)
        sock.sendall(b"bye")

    world.start(serve, serve, whole=whole)
    client = world.client()
    client.sendall(b"\0begin")
    assert everything(client) == b"bye"

    def send_on() -> bool:
        try:
            client.sendall(bytes(1 << 16))
        except OSError as error:
            return error.errno in {errno.EPIPE, errno.ECONNRESET}
        return False

    world.until(send_on)
    world.until(lambda: world.worker.open == 0)


def test_a_reset_is_passed_on(world: World) -> None:
    ends: list[str] = []

    def serve(sock: socket.socket) -> None:
        try:
            if everything(sock) == b"\0reset me":
                reset(sock)
            ends.append("end")
        except OSError as error:
            ends.append(errno.errorcode[error.errno or 0])

    world.start(serve)
    client = world.client()
    client.sendall(b"\0something")
    world.until(lambda: world.worker.open == 1)
    reset(client)
    world.until(lambda: ends == ["ECONNRESET"])
    client = world.client()
    client.sendall(b"\0reset me")
    client.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionResetError):
        everything(client)


def test_a_new_connection_does_not_get_the_error_of_one_that_ends(world: World) -> None:
    """One round of the loop: an app answers, somebody connects, whom the app answers resets. The number of the old
    client's descriptor is the new one's before its error has its turn."""
    asked, answered, entered = threading.Event(), threading.Event(), threading.Event()
    answering, going_on, over = threading.Event(), threading.Event(), threading.Event()

    def serve(sock: socket.socket) -> None:
        everything(sock)
        asked.set()
        answering.wait(SECONDS)
        sock.sendall(OK + b"ab")
        answered.set()
        over.wait(SECONDS)

    def stand_still() -> None:
        entered.set()
        going_on.wait(SECONDS)

    world.start(serve)
    old = world.client()
    old.sendall(GET)
    old.shutdown(socket.SHUT_WR)
    assert asked.wait(SECONDS)
    world.loop.post(stand_still)
    assert entered.wait(SECONDS)
    answering.set()
    assert answered.wait(SECONDS)
    new = world.client()
    reset(old)
    numbers = [os.dup(0) for _ in range(64)]  # only what the worker closes is free
    going_on.set()
    new.sendall(GET)
    new.shutdown(socket.SHUT_WR)
    assert exactly(new, len(OK) + 2) == OK + b"ab"
    over.set()
    for number in numbers:
        os.close(number)


def test_an_app_that_is_gone_is_a_reset(world: World) -> None:
    port = world.start(answers(b"ok"))
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port.app = gone.getsockname()
    with pytest.raises(ConnectionResetError):
        everything(world.client())
    world.until(lambda: world.worker.open == 0)


def test_one_that_meets_a_bug_ends_alone(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.start(answers(b"ok"))
    healthy, broken = world.client(), world.client()
    broken.sendall(GET.replace(b" / ", b" /bug "))
    with pytest.raises(ConnectionResetError):
        everything(broken)
    assert "a bug" in caplog.text
    assert world.worker.errors == 1
    healthy.sendall(GET)
    assert exactly(healthy, len(OK) + 2) == OK + b"ok"


def test_a_head_that_is_not_completed_passes(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def serve(sock: socket.socket) -> None:
        sock.sendall(b"got " + sock.recv(100))

    monkeypatch.setattr(module, "HEAD_SECONDS", 0.05)
    world.start(serve)
    client = world.client()
    client.sendall(b"HELO example.org")
    assert exactly(client, 20) == b"got HELO example.org"
    assert world.worker.reasons == {"head-time": 1}


def test_heads_that_fill_the_memory_pass(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_HELD", 50_000)
    world.start(lambda sock: sock.sendall(b"%d" % len(sock.recv(1 << 20, socket.MSG_WAITALL))))
    clients = [world.client() for _ in range(3)]
    for client in clients:
        client.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 20_000)
    world.until(lambda: world.worker.reasons)
    assert world.worker.reasons == {"head-time": 1}
    assert world.worker.open == 3


def test_many_idle_connections(world: World) -> None:
    world.start(answers(b"ok"))
    clients = [world.client() for _ in range(300)]
    world.until(lambda: world.worker.open == len(clients))
    for client in clients[::50]:
        client.sendall(GET)
        assert exactly(client, len(OK) + 2) == OK + b"ok"
    for client in clients:
        client.close()
    world.until(lambda: world.worker.open == 0)


def test_nobody_is_accepted_while_descriptors_are_used_up(world: World, caplog: pytest.LogCaptureFixture) -> None:
    class Full(socket.socket):
        """A listener that is out of descriptors once."""

        tries = 0

        def accept(self) -> tuple[socket.socket, object]:
            self.tries += 1
            if self.tries == 1:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return super().accept()

    port, full = Port(world.server(answers(b"ok"))), Full(fileno=os.dup(world.listener.fileno()))
    world.loop.post(lambda: world.worker.listen(full, port))
    client = world.client()
    client.sendall(GET)
    assert exactly(client, len(OK) + 2) == OK + b"ok"
    assert full.tries >= 2
    assert "connections are not accepted for a while: Too many open files" in caplog.text
    world.worker.ignore(full)
    full.close()


def test_no_descriptor_is_left(world: World) -> None:
    world.start(answers(b"ap"), answers(b"en"))

    def once() -> int:
        client = world.client()
        client.sendall(GET + CLAIMED)
        exactly(client, 2 * len(OK) + 4)
        client.close()
        world.until(lambda: world.worker.open == 0)
        return len(list(Path("/proc/self/fd").iterdir()))

    once()
    world.until(lambda: once() == once())


def test_a_listener_that_is_ignored_keeps_its_connections(world: World) -> None:
    world.start(answers(b"ok"))
    client = world.client()
    world.until(lambda: world.worker.open == 1)
    world.loop.post(lambda: world.worker.ignore(world.listener))
    client.sendall(GET)
    assert exactly(client, len(OK) + 2) == OK + b"ok"


def test_what_is_no_tcp_connection_is_refused(world: World) -> None:
    port = world.start(answers(b"ok"))
    one, other = socket.socketpair()
    other.close()
    one.setblocking(False)
    with pytest.raises(OSError, match="Operation not supported"):
        ClientConnection(one, ("127.0.0.1", 1), port, world.worker)  # not a TCP connection
    one.close()
