"""Records of a worker between real sockets, and of its process."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from meshdev.observe import reasons
from meshdev.sidecar.worker import open_record, recorder
from meshdev.sidecar.worker.recorder import EARLIER
from meshdev.wire.access import AccessRecord, AccessRecords, Watch
from tests.sidecar.worker.test_process import A1, Pod, ask
from tests.sidecar.worker.world import CLAIMED, GET, OK, SECONDS, World, answers
from tests.sockets import everything, exactly, reset

ALL = Watch(on=True, all=True)


class Watched:
    """What a worker sends to its agent."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.sent: list[AccessRecords] = []
        world.worker.recorder.send = self._send

    def begin(self, watch: Watch = ALL) -> None:
        """Once the worker knows of it, this returns."""
        self._world.loop.post(lambda: self._world.worker.recorder.add(self._world.port))
        self._world.loop.post(lambda: self._world.worker.recorder.watch(watch))
        self._world.until(lambda: self._world.port.watched == watch.on)

    def records(self, number: int = 1) -> list[AccessRecord]:
        self._world.until(lambda: len(self._found()) >= number)
        assert len(self._found()) == number
        return self._found()

    def _send(self, records: AccessRecords) -> bool:
        self.sent.append(records)
        return True

    def _found(self) -> list[AccessRecord]:
        return [record for each in self.sent for record in each.records]


@pytest.fixture
def watched(world: World) -> Watched:
    return Watched(world)


def test_requests_and_answers(world: World, watched: Watched) -> None:
    world.start(answers(b"ap"))
    client = world.client()
    client.sendall(GET)
    assert exactly(client, len(OK) + 2) == OK + b"ap"
    watched.begin()
    client.sendall(b"POST /x?token=abc HTTP/1.1\r\nHost: b\r\nContent-Length: 0\r\n\r\n" + GET)
    assert exactly(client, 2 * (len(OK) + 2)) == 2 * (OK + b"ap")
    first, second = watched.records(2)
    assert (first.method, first.path, first.authority, first.status) == ("POST", "/x?token=***", "b", 200)
    assert (str(first.source), first.port) == ("127.0.0.1", world.port.app[1])
    assert (first.served_by, first.reason, first.response_bytes) == ("original", "no header a", 2)
    assert (second.method, second.path) == ("GET", "/")
    assert 0 < first.duration < 10_000_000
    assert first.time <= second.time


def test_a_connection_of_bytes(world: World, watched: Watched) -> None:
    def serve(sock: socket.socket) -> None:
        sock.sendall(b"hello\n")
        exactly(sock, 300_000)
        sock.sendall(b"x" * 200_000)

    world.start(serve)
    watched.begin()
    client = world.client()
    exactly(client, 6)
    client.sendall(b"\0" * 300_000)
    assert len(everything(client)) == 200_000
    client.close()
    [record] = watched.records()
    assert (record.protocol, record.request_bytes, record.response_bytes) == ("tcp", 300_000, 200_006)
    assert (record.status, record.reason) == (0, "followed no further: other")


def test_a_port_without_claims(world: World, watched: Watched) -> None:
    world.start(answers(b"ap"))
    world.port.unclaimed = True
    watched.begin()
    client = world.client()
    client.sendall(GET)
    exactly(client, len(OK) + 2)
    client.shutdown(socket.SHUT_WR)
    assert everything(client) == b""
    client.close()
    [record] = watched.records()
    assert (record.protocol, record.request_bytes, record.response_bytes) == ("tcp", len(GET), len(OK) + 2)
    assert record.reason == reasons.NOTHING_CLAIMED


def test_connections_from_before_the_watch(world: World, watched: Watched) -> None:
    world.start(answers(b"ap"))
    world.port.unclaimed = True
    client = world.client()
    client.sendall(GET)
    exactly(client, len(OK) + 2)
    world.port.unclaimed = False
    watched.begin()
    client.sendall(GET + GET)
    exactly(client, 2 * (len(OK) + 2))
    client.close()
    [record] = watched.records()
    assert (record.protocol, record.request_bytes, record.reason) == ("tcp", 2 * len(GET), EARLIER)


def test_connections_from_before_the_watch_that_are_about_to_end_are_no_records(world: World, watched: Watched) -> None:
    ends = threading.Event()

    def serve(sock: socket.socket) -> None:
        answers(b"ap")(sock)
        ends.wait(SECONDS)

    world.start(serve)
    client = world.client()
    client.sendall(GET)
    client.shutdown(socket.SHUT_WR)
    exactly(client, len(OK) + 2)
    watched.begin()
    ends.set()
    assert everything(client) == b""
    client.close()
    world.until(lambda: world.worker.open == 0)
    other = world.client()
    other.sendall(GET)
    exactly(other, len(OK) + 2)
    [record] = watched.records()
    assert record.protocol == "HTTP/1.1"


@pytest.mark.parametrize("status", [b"101 Switching Protocols", b"200 OK"])
def test_what_goes_on_until_the_end(world: World, watched: Watched, status: bytes) -> None:
    def serve(sock: socket.socket) -> None:
        exactly(sock, len(GET))
        sock.sendall(b"HTTP/1.1 %b\r\nX: y\r\n\r\nfirst" % status)
        exactly(sock, 4)
        sock.sendall(b"second")

    world.start(serve)
    watched.begin()
    client = world.client()
    client.sendall(GET)
    assert exactly(client, len(status) + 24).endswith(b"first")
    client.sendall(b"more")
    assert everything(client).endswith(b"second")
    client.close()
    [record] = watched.records()
    assert (record.protocol, record.method, record.status) == ("HTTP/1.1", "GET", int(status[:3]))
    assert (record.request_bytes, record.response_bytes) == (4, 11)
    assert record.reason.startswith("no header a; followed no further: u")


def test_requests_without_an_answer(world: World, watched: Watched) -> None:
    def serve(sock: socket.socket) -> None:
        exactly(sock, len(GET))
        reset(sock)

    world.start(serve)
    watched.begin()
    client = world.client()
    client.sendall(GET)
    with contextlib.suppress(ConnectionResetError):
        assert everything(client) == b""
    [record] = watched.records()
    assert (record.method, record.status, record.response_bytes) == ("GET", 0, 0)


def test_a_connection_that_ends_as_it_should_is_no_record(world: World, watched: Watched) -> None:
    world.start(answers(b"ap"))
    watched.begin()
    client = world.client()
    client.sendall(GET)
    exactly(client, len(OK) + 2)
    client.shutdown(socket.SHUT_WR)
    assert everything(client) == b""
    client.close()
    world.until(lambda: world.worker.open == 0)
    [record] = watched.records()
    assert record.protocol == "HTTP/1.1"


def test_claimed_requests_are_envoy_s_to_record(world: World, watched: Watched) -> None:
    world.start(answers(b"ap"), answers(b"en"))
    watched.begin()
    client = world.client()
    client.sendall(CLAIMED + GET + CLAIMED)
    assert exactly(client, 3 * (len(OK) + 2)) == OK + b"en" + OK + b"ap" + OK + b"en"
    client.close()
    world.until(lambda: world.worker.open == 0)
    [record] = watched.records()
    assert record.served_by == "original"


def test_claimed_requests_that_find_no_envoy(world: World, watched: Watched) -> None:
    world.start(answers(b"ap"))
    watched.begin(Watch(on=True))
    client = world.client()
    client.sendall(GET + CLAIMED)
    exactly(client, 2 * (len(OK) + 2))
    [record] = watched.records()
    assert (record.served_by, record.reason) == ("fallback", reasons.NO_ENVOY)


def test_connections_go_on_when_a_watch_ends(world: World, watched: Watched) -> None:
    world.start(answers(b"ap"))
    watched.begin()
    client = world.client()
    client.sendall(GET[:10])
    watched.begin(Watch())
    client.sendall(GET[10:] + GET)
    assert exactly(client, 2 * (len(OK) + 2)) == 2 * (OK + b"ap")
    assert watched.sent == []


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    with contextlib.ExitStack() as stack:
        pod = Pod(stack, tmp_path)
        pod.worker.listen(pod.app, pod.listener)
        yield pod


def collected(pod: Pod, number: int) -> list[AccessRecord]:
    def found() -> list[AccessRecord]:
        return [record for each in pod.worker.records for record in each.records]

    pod.until(lambda _: len(found()) >= number)
    return found()


def test_a_process_that_is_told_to_watch(pod: Pod) -> None:
    pod.claim(A1)
    client = pod.client()
    ask(client)
    pod.worker.say(ALL)
    pod.worker.counts()
    assert ask(client, b"GET /x HTTP/1.1\r\nHost: b\r\nA: 2\r\nAuthorization: Basic abc\r\n\r\n") == b"ap"
    [record] = collected(pod, 1)
    assert (record.path, record.status, record.reason, record.port) == ("/x", 200, "a=2, not a=1", pod.app)
    pod.worker.say(Watch())
    pod.worker.counts()
    ask(client)
    assert len(collected(pod, 1)) == 1


def test_an_agent_that_takes_nothing_holds_nobody_up_and_gets_its_answer(pod: Pod) -> None:
    pod.claim(A1)
    pod.worker.say(ALL)
    pod.worker.counts()
    client = pod.client()
    long = b"GET /" + b"x" * 500 + b" HTTP/1.1\r\nHost: b\r\n\r\n"
    for _ in range(40):  # 2,000 requests: more than the socket and the worker keep
        client.sendall(long * 50)
        assert exactly(client, 50 * (len(OK) + 2)) == 50 * (OK + b"ap")
    assert pod.worker.counts().all_open == 1
    pod.until(lambda _: _all_of(pod) == 2000)
    kept = sum(len(each.records) for each in pod.worker.records)
    assert recorder.MAX_WAITING <= kept < 1500
    assert pod.worker.counts().errors == 0


def _all_of(pod: Pod) -> int:
    return sum(len(each.records) + each.dropped for each in pod.worker.records)


def test_an_error_in_a_record_ends_no_connection(
    world: World, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(open_record, "describe", fails)
    world.start(answers(b"ap"))
    watched.begin()
    with world.client() as client:
        for _ in range(60):  # more than are made at once
            client.sendall(GET)
            assert exactly(client, len(OK) + 2) == OK + b"ap"
    world.until(lambda: sum(each.dropped for each in watched.sent) == 60)
    monkeypatch.undo()
    with world.client() as client:
        client.sendall(GET)
        assert exactly(client, len(OK) + 2) == OK + b"ap"
        assert watched.records()[0].status == 200
