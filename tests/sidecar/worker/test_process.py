"""The worker's process between real sockets: what it is handed, what it answers, how it ends."""

import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from meshdev.intercept.match import HeaderMatch, Match
from meshdev.intercept.spec import canonical_json
from meshdev.pump.loop import READABLE, Loop
from meshdev.wire.agent import PodPort
from meshdev.wire.passthrough import PassthroughCounts, PortClaims, SetClaims
from tests.sidecar.worker.process import WorkerProcess, connected, listening, resident, serving, worker_process
from tests.sidecar.worker.world import CLAIMED, GET, OK, SECONDS, answers, behind_header
from tests.sockets import everything, exactly

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Pod:
    """A worker with one port, an app that says "ap", and Envoy's listener that says "en"."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack = stack
        self.envoy = folder / "envoy"
        self.app = stack.enter_context(serving(answers(b"ap")))
        self.worker: WorkerProcess = stack.enter_context(worker_process())
        self.listener = stack.enter_context(listening())

    def start_envoy(self) -> None:
        self._stack.enter_context(serving(behind_header(answers(b"en")), self.envoy))

    def claim(self, *matches: str, whole: bool = False, http2: bool = False) -> None:
        self.worker.claim(self.app, PortClaims(whole, matches, str(self.envoy), http2))

    def client(self) -> socket.socket:
        return self._stack.enter_context(connected(self.listener))

    def until(self, condition: Callable[[PassthroughCounts], object]) -> None:
        until(self.worker, condition)


def until(worker: WorkerProcess, condition: Callable[[PassthroughCounts], object]) -> None:
    end = time.monotonic() + SECONDS
    while not condition(counts := worker.counts()):
        assert time.monotonic() < end, counts


A1 = canonical_json(Match(headers=(HeaderMatch("a", "exact", "1"),)))


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    with ExitStack() as stack:
        pod = Pod(stack, tmp_path)
        pod.worker.listen(pod.app, pod.listener)
        yield pod


def ask(client: socket.socket, request: bytes = GET) -> bytes:
    client.sendall(request)
    answer = exactly(client, len(OK) + 2)
    assert answer.startswith(OK)
    return answer[len(OK) :]


def test_requests_go_where_the_claims_say_and_are_counted(pod: Pod) -> None:
    pod.start_envoy()
    pod.claim(A1)
    client = pod.client()
    assert [ask(client, each) for each in (GET, CLAIMED, GET)] == [b"ap", b"en", b"ap"]
    counts = pod.worker.counts()
    assert (counts.open, counts.accepted, counts.claimed) == (((PodPort(pod.app), 1),), 1, 1)
    assert (counts.without_envoy, counts.errors, counts.raw) == (0, 0, ())
    client.sendall(b"\0bytes\r\n\r\n")
    pod.until(lambda counts: counts.raw == (("request-line", 1),))
    client.close()
    pod.until(lambda counts: counts.all_open == 0)


def test_what_changes_is_true_of_the_next_request_of_connections_that_are_open(pod: Pod) -> None:
    pod.start_envoy()
    pod.claim(A1)
    client = pod.client()
    assert ask(client, CLAIMED) == b"en"
    pod.claim()
    assert ask(client, CLAIMED) == b"ap"
    pod.claim("null")
    assert ask(client, GET) == b"en"
    pod.claim(whole=True)
    assert ask(client, GET) == b"en"
    pod.worker.say(SetClaims(()))
    pod.worker.counts()
    assert ask(client, CLAIMED) == b"ap"


def test_a_connection_that_began_unlooked_or_whole_stays_so(pod: Pod) -> None:
    pod.start_envoy()
    unlooked = pod.client()
    assert ask(unlooked, CLAIMED) == b"ap"
    pod.claim(whole=True)
    whole = pod.client()
    assert ask(whole, GET) == b"en"
    assert ask(unlooked, CLAIMED) == b"ap"
    pod.claim(A1)
    assert ask(whole, GET) == b"en"
    assert ask(unlooked, CLAIMED) == b"ap"
    assert pod.worker.counts().claimed == 0


def test_connections_of_http2_are_envoy_s_where_it_is_said(pod: Pod) -> None:
    pod.start_envoy()
    for http2, expected in ((False, b"ap"), (True, b"en")):
        pod.claim(A1, http2=http2)
        client = pod.client()
        client.sendall(PREFACE)  # both see two empty lines in it
        assert exactly(client, 2 * (len(OK) + 2)) == (OK + expected) * 2


def test_claims_that_find_no_envoy_go_to_the_app_and_are_counted(pod: Pod) -> None:
    pod.claim(A1)
    client = pod.client()
    assert [ask(client, CLAIMED), ask(client, CLAIMED)] == [b"ap", b"ap"]
    pod.claim(whole=True)
    assert ask(pod.client()) == b"ap"
    counts = pod.worker.counts()
    assert (counts.claimed, counts.without_envoy) == (2, 3)


def test_a_second_port_comes_later(pod: Pod) -> None:
    pod.start_envoy()
    pod.claim(A1)
    first = pod.client()
    assert ask(first) == b"ap"
    with serving(answers(b"2.")) as app, listening() as listener:
        pod.worker.listen(app, listener)
        with connected(listener) as client:
            assert ask(client, CLAIMED) == b"2."
            assert dict(pod.worker.counts().open) == {PodPort(pod.app): 1, PodPort(app): 1}
    assert ask(first) == b"ap"


def test_it_ends_with_its_agent(pod: Pod) -> None:
    client = pod.client()
    assert ask(client) == b"ap"
    pod.worker.channel.close()
    before = time.monotonic()
    with pytest.raises(ConnectionResetError):
        everything(client)
    assert pod.worker.process.wait(SECONDS) == 0
    assert time.monotonic() - before < 1
    pod.client()  # the listener is the agent's, and stays


@pytest.mark.parametrize("unread", [False, True], ids=["read", "unread"])
def test_it_ends_by_sigterm_and_not_by_sigint(pod: Pod, unread: bool) -> None:
    client = pod.client()
    pod.worker.counts()
    pod.worker.process.send_signal(signal.SIGINT)
    assert ask(client) == b"ap"
    if unread:
        client.sendall(GET)
    pod.worker.process.send_signal(signal.SIGTERM)
    assert pod.worker.ended() == (0, "")
    with pytest.raises(ConnectionResetError):
        everything(client)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (b"hello\n", "a message of the agent is not JSON"),
        (b'{"listen":"8080"}\n', "A message of the agent has no listener"),
        (b'{"ports":{"1":{"whole":2}}}\n', "whole of 1 of ports of a message of the agent has an invalid value"),
        (b"x" * (5 << 20), "A line is longer than 4,194,304 bytes"),
    ],
    ids=["words", "no-listener", "value", "endless"],
)
def test_what_no_agent_says_ends_it(said: bytes, complaint: str) -> None:
    with worker_process() as worker:
        try:
            worker.channel.sendall(said)
        except OSError:
            assert len(said) > 1 << 20, "it is read whole"
        code, heard = worker.ended()
        assert code == 42
        assert complaint in heard


def test_a_listener_before_the_address_of_the_app_ends_it() -> None:
    channel, its = socket.socketpair()
    with channel, its, listening() as listener:
        command = [sys.executable, "-m", "meshdev.sidecar.worker", *(2 * [str(its.fileno())])]
        process = subprocess.Popen(command, pass_fds=(its.fileno(),), stderr=subprocess.PIPE, text=True)
        socket.send_fds(channel, [b'{"listen":"1"}\n'], [listener.fileno()])
        _, heard = process.communicate(timeout=SECONDS)
        assert "comes before the app's address" in heard


def test_an_agent_that_reads_no_log_holds_up_nobody(pod: Pod) -> None:
    client = pod.client()
    for number in range(3):
        pod.claim(*(f"no match {number}" for _ in range(2_000)))
    assert ask(client) == b"ap"


def test_lines_in_pieces_keep_their_listeners(pod: Pod) -> None:
    """As they come where the socket's buffer is full."""
    with listening() as one, listening() as other:
        for listener in (one, other):
            line = b'{"listen":"%d"}\n' % pod.app
            socket.send_fds(pod.worker.channel, [line[:1]], [listener.fileno()])
            for at in range(1, len(line)):
                pod.worker.channel.sendall(line[at : at + 1])
        for listener in (one, other):
            with connected(listener) as client:
                assert ask(client) == b"ap"


def test_no_descriptor_stays_and_none_runs_out() -> None:
    """With 500 descriptors 66 connections fit; the others wait, and nobody is refused."""
    with (
        serving(answers(b"ap")) as app,
        worker_process(limit=500) as worker,
        listening() as listener,
        ExitStack() as stack,
    ):
        folder = Path(f"/proc/{worker.process.pid}/fd")
        worker.claim(app, PortClaims(matches=(A1,), envoy="/nowhere"))
        worker.listen(app, listener)
        worker.counts()
        before = len(list(folder.iterdir()))
        clients = [stack.enter_context(connected(listener)) for _ in range(80)]
        for client in clients:
            client.sendall(GET)
        for client in clients:
            assert exactly(client, len(OK) + 2) == OK + b"ap"
            client.close()
        until(worker, lambda counts: counts.all_open == 0)
        assert worker.counts().accepted == len(clients)
        assert len(list(folder.iterdir())) == before


def test_it_is_small() -> None:
    """About 12 MB more than Python itself."""
    code = "print(open('/proc/self/status').read())"
    bare = resident(subprocess.check_output([sys.executable, "-I", "-c", code], text=True))
    with worker_process() as worker:
        worker.counts()
        assert worker.memory() - bare < 14 << 20


@contextmanager
def patient_app() -> Iterator[int]:
    """One thread answers for all connections, however many there are."""
    loop = Loop()

    def accept(_events: int) -> None:
        with suppress(BlockingIOError):
            sock, _ = listener.accept()
            kept.append(sock)
            loop.register(
                sock.fileno(), READABLE, lambda _: sock.sendall(OK + b"ap") if sock.recv(1 << 16) else end(sock)
            )

    def end(sock: socket.socket) -> None:
        loop.unregister(sock.fileno())
        sock.close()

    with listening() as listener:
        kept: list[socket.socket] = []
        listener.setblocking(False)
        loop.register(listener.fileno(), READABLE, accept)
        running = threading.Thread(target=loop.run)
        running.start()
        try:
            yield listener.getsockname()[1]
        finally:
            loop.stop()
            running.join(SECONDS)
            loop.close()
            for sock in kept:
                sock.close()


def test_ten_thousand_idle_connections() -> None:
    """Fewer where this machine has no descriptors for so many."""
    number = min(10_000, (resource.getrlimit(resource.RLIMIT_NOFILE)[1] - 1000) // 3)
    with patient_app() as app, worker_process() as worker, listening() as listener, ExitStack() as stack:
        worker.claim(app, PortClaims(matches=(A1,), envoy="/nowhere"))
        worker.listen(app, listener)
        before = worker.memory()
        clients = [stack.enter_context(connected(listener)) for _ in range(number)]
        until(worker, lambda counts: counts.all_open == number)
        assert (each := (worker.memory() - before) / number) < 4096, each
        assert all(ask(client) == b"ap" for client in clients[::500])
        assert worker.counts().open == ((PodPort(app), number),)
        for client in clients:
            client.close()
        until(worker, lambda counts: counts.all_open == 0)
