"""From which address the app is dialled: sockets of this machine's loopback, of which each address may be bound."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from meshdev.sidecar.agent import client_addresses
from meshdev.sidecar.worker.dialling import LOST_SECONDS, PAUSE_SECONDS, AppDialler, Dialled
from tests.sidecar.worker.process import WorkerProcess, listening, serving, worker_process
from tests.sidecar.worker.world import GET, OK, SECONDS, Port, World
from tests.sockets import everything, exactly

HOST = "127.0.78.1"
CLIENT = "127.0.78.9"
#: The lowest and the highest one that this machine chooses.
LOCAL_PORTS = tuple(map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()))


class Waiting:
    """A connection that has been told that no answer came, so many times."""

    def __init__(self) -> None:
        self.losses = 0

    def lost(self) -> None:
        self.losses += 1


class Dialler:
    """What is tested, its queue, and a clock that stands."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.now = 100.0
        self.agent, worker = map(stack.enter_context, client_addresses.queue())
        self.tested = AppDialler(worker, lambda: self.now)
        stack.callback(self.tested.close)
        self.listener = stack.enter_context(socket.create_server((HOST, 0), backlog=100))
        self.app: tuple[str, int] = self.listener.getsockname()

    def put(self, *sockets: socket.socket) -> None:
        """As the agent does."""
        socket.send_fds(self.agent, [b"\0"], [sock.fileno() for sock in sockets])
        for sock in sockets:
            sock.close()

    def supply(self, count: int = 1) -> None:
        self.put(*(reusable() for _ in range(count)))

    def dial(self, port: int = 0, waiting: Waiting | None = None) -> Dialled:
        dialled = self.tested.dial(self.app, (CLIENT, port), waiting or Waiting())
        self._stack.enter_context(dialled.sock)
        return dialled

    def seen(self) -> str:
        """The address of the next connection that the app accepts."""
        self.listener.settimeout(SECONDS)
        sock, (address, _) = self.listener.accept()
        self._stack.enter_context(sock)
        return str(address)

    def nobody_answers(self) -> None:
        """The app's queue is full: a SYN is dropped."""
        full = self._stack.enter_context(socket.create_server((HOST, 0), backlog=0))
        self._stack.enter_context(socket.create_connection(full.getsockname()))
        self.app = full.getsockname()


def reusable() -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock


@pytest.fixture
def dialler() -> Iterator[Dialler]:
    with ExitStack() as stack:
        yield Dialler(stack)


def test_the_clients_address(dialler: Dialler) -> None:
    dialler.supply(2)
    assert [dialler.dial().own for _ in range(2)] == [True, True]
    assert [dialler.seen() for _ in range(2)] == [CLIENT, CLIENT]
    assert dialler.tested.reasons == {}


def test_without_a_socket_it_is_the_pods(dialler: Dialler) -> None:
    dialler.supply()
    assert [dialler.dial().own for _ in range(2)] == [True, False]
    dialler.supply()
    assert dialler.dial().own
    dialler.agent.close()
    assert not dialler.dial().own
    assert [dialler.seen() for _ in range(4)] == [CLIENT, "127.0.0.1", CLIENT, "127.0.0.1"]
    assert dialler.tested.reasons == {"no-socket": 2}


def test_an_agent_that_had_no_turn_gets_a_moment(dialler: Dialler) -> None:
    """It cannot have more than 10 ms, and only once a second: everybody's connections wait."""
    late = threading.Timer(0.001, dialler.supply)
    late.start()
    assert dialler.dial().own
    late.join()
    began = time.monotonic()
    assert [dialler.dial().own for _ in range(20)] == [False] * 20
    assert time.monotonic() - began < 0.1
    dialler.now += 1.1
    late = threading.Timer(0.001, dialler.supply)
    late.start()
    assert dialler.dial().own
    late.join()


def test_an_address_that_is_in_use(dialler: Dialler) -> None:
    with socket.create_server((CLIENT, 0)) as taken:
        dialler.supply()
        assert not dialler.dial(taken.getsockname()[1]).own
    assert dialler.tested.reasons == {"in-use": 1}


def test_a_pair_of_ends_that_is_in_use(dialler: Dialler) -> None:
    dialler.supply(2)
    port = dialler.dial().sock.getsockname()[1]
    assert not dialler.dial(port).own
    assert dialler.tested.reasons == {"in-use": 1}


def test_one_port_of_a_client_for_two_of_the_app(dialler: Dialler) -> None:
    dialler.supply(2)
    port = dialler.dial().sock.getsockname()[1]
    with socket.create_server((HOST, 0)) as another:
        dialler.app = another.getsockname()
        assert dialler.dial(port).own
    assert dialler.tested.reasons == {}


def test_too_many_ports_that_are_bound_by_number(dialler: Dialler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshdev.sidecar.worker.client_ports._IP_LOCAL_PORT_RANGE", 250)  # as before Linux 6.3
    monkeypatch.setattr("meshdev.sidecar.worker.client_ports.SHARE", 1 << 16)
    dialler.supply()
    assert not dialler.dial(LOCAL_PORTS[0]).own
    assert dialler.tested.reasons == {"crowded": 1}


def test_what_the_kernel_refuses(dialler: Dialler) -> None:
    bound = reusable()
    bound.bind((CLIENT, 0))
    dialler.put(bound)
    assert not dialler.dial().own
    assert dialler.tested.reasons == {"refused": 1}


def test_an_app_that_refuses_is_not_asked_again(dialler: Dialler) -> None:
    dialler.supply()
    dialler.listener.close()
    assert dialler.dial().own
    assert dialler.tested.reasons == {}


def test_an_answer_that_is_lost(dialler: Dialler) -> None:
    dialler.supply(3)
    app = dialler.app
    dialler.nobody_answers()
    waiting, forgotten = Waiting(), Waiting()
    dialler.dial(waiting=waiting)
    dialler.dial(waiting=forgotten)
    dialler.tested.forget(forgotten)
    dialler.now += LOST_SECONDS - 0.1
    dialler.tested.sweep()
    assert waiting.losses == 0
    dialler.now += 0.2
    for _ in range(2):
        dialler.tested.sweep()
    assert (waiting.losses, forgotten.losses) == (1, 0)
    dialler.app = app
    assert not dialler.dial().own, "nobody was answered"
    dialler.now += PAUSE_SECONDS
    assert dialler.dial().own
    assert dialler.tested.reasons == {"lost": 1}


def test_an_app_that_answers_others_is_slow(dialler: Dialler) -> None:
    dialler.supply(3)
    app = dialler.app
    dialler.nobody_answers()
    slow, other = Waiting(), Waiting()
    dialler.dial(waiting=slow)
    dialler.app = app
    dialler.dial(waiting=other)
    dialler.tested.answered(other)
    dialler.now += LOST_SECONDS
    dialler.tested.sweep()
    assert (slow.losses, other.losses) == (1, 0)
    assert dialler.dial().own
    assert dialler.tested.reasons == {}


def test_no_descriptor_is_left(dialler: Dialler) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 -- counted, not read
    for _ in range(3):
        dialler.supply(10)
        dialler.dial().sock.close()
        dialler.tested.close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 -- the same


# The worker with such a queue


@pytest.fixture
def agent() -> Iterator[tuple[WorkerProcess, socket.socket]]:
    """A worker, and the agent's end of its queue."""
    ours, its = client_addresses.queue()
    with ours, its, worker_process(queue=its) as worker:
        yield worker, ours


def test_the_worker_uses_them(agent: tuple[WorkerProcess, socket.socket]) -> None:
    worker, queue = agent

    def serve(sock: socket.socket) -> None:
        sock.sendall(sock.getpeername()[0].encode())
        everything(sock)
        sock.sendall(b"!")

    given = client_addresses.BATCH
    with serving(serve) as app, listening() as listener:
        worker.listen(app, listener)
        made = [abortive() for _ in range(given)]
        socket.send_fds(queue, [b"\0"], [sock.fileno() for sock in made])
        for sock in made:
            sock.close()
        for number in range(given + 1):
            with connected(listener.getsockname()) as client:
                client.shutdown(socket.SHUT_WR)
                assert everything(client) == (CLIENT if number < given else "127.0.0.1").encode() + b"!"
        assert worker.counts().pod_address == (("no-socket", 1),)
        assert worker.counts().all_open == 0


def connected(address: tuple[str, int]) -> socket.socket:
    """A client that lets others of this machine have its address and port, too: usually it is on another one."""
    client = reusable()
    client.settimeout(SECONDS)
    client.bind((CLIENT, 0))
    client.connect(address)
    return client


def abortive() -> socket.socket:
    """As the agent makes them: closing it sends a reset."""
    sock = reusable()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, client_addresses.RESET)
    return sock


def test_a_port_is_given_back_with_its_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One port may be bound by number. Clients are on this machine, so each of their ports is bound already."""
    monkeypatch.setattr("meshdev.sidecar.worker.client_ports.SHARE", LOCAL_PORTS[1] - LOCAL_PORTS[0] + 1)
    monkeypatch.setattr("meshdev.sidecar.worker.client_ports.TAKEN_SECONDS", 0.0)
    ours, its = client_addresses.queue()
    with ExitStack() as stack:
        for each in (ours, its):
            stack.enter_context(each)
        world = World(stack, tmp_path, its)
        stack.callback(world.close)
        made = [stack.enter_context(abortive()) for _ in range(3)]
        socket.send_fds(ours, [b"\0"], [sock.fileno() for sock in made])
        app = stack.enter_context(socket.create_server((HOST, 0), backlog=10))
        world.loop.post(lambda: world.worker.listen(world.listener, Port(app.getsockname())))
        for expected in (CLIENT, CLIENT):
            client = stack.enter_context(connected(world.listener.getsockname()))
            sock, (address, _) = app.accept()
            assert address == expected
            with connected(world.listener.getsockname()):
                another, (address, _) = app.accept()
                assert address != CLIENT
                another.close()
            client.close()
            sock.close()
            world.until(lambda: world.worker.open == 0)
            swept = threading.Event()
            for step in (world.worker.dialler.sweep, swept.set):
                world.loop.post(step)
            assert swept.wait(SECONDS)


def test_a_lost_answer_loses_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The app's queue is full for the first connection to it, and is not for the second one."""
    monkeypatch.setattr("meshdev.sidecar.worker.dialling.LOST_SECONDS", 0.05)
    ours, its = client_addresses.queue()
    with ExitStack() as stack:
        for each in (ours, its):
            stack.enter_context(each)
        world = World(stack, tmp_path, its)
        stack.callback(world.close)
        with abortive() as sock:
            socket.send_fds(ours, [b"\0"], [sock.fileno()])
        full = stack.enter_context(socket.create_server((HOST, 0), backlog=0))
        filling = stack.enter_context(socket.create_connection(full.getsockname()))
        world.loop.post(lambda: world.worker.listen(world.listener, Port(full.getsockname())))
        client = stack.enter_context(connected(world.listener.getsockname()))
        client.sendall(GET)
        world.until(lambda: world.worker.dialler.reasons["lost"])
        full.listen(10)
        full.accept()[0].close()
        sock, (address, _) = full.accept()
        with sock:
            assert address != CLIENT
            assert exactly(sock, len(GET)) == GET
            sock.sendall(OK + b"ok")
            assert exactly(client, len(OK) + 2) == OK + b"ok"
        filling.close()
