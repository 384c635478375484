"""Clients that vanish, do not read, or are slow: how long they are kept, and what they get before the end."""

import contextlib
import os
import socket
import threading
from collections.abc import Callable

import pytest

from meshdev.pump import end
from meshdev.sidecar.agent import listener_ports
from meshdev.sidecar.worker import dialling, worker
from tests.sidecar.worker.world import SECONDS, Port, Serve, World, answers
from tests.sockets import everything, reset

#: The kernel of a socket takes it although the other one does not read.
RESPONSE = bytes(60_000)
_TCP_REPAIR = 19  # linux/tcp.h

root = pytest.mark.skipif(os.geteuid() != 0, reason="TCP_REPAIR needs CAP_NET_ADMIN")


def vanish(sock: socket.socket) -> None:
    """End it without a packet, as a machine does that loses power."""
    sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
    sock.close()


def deaf(world: World) -> socket.socket:
    """A client that reads nothing, and has next to no room."""
    client = world.client_socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(world.listener.getsockname())
    return client


def rounds(world: World) -> None:
    """The worker does whatever has already come."""
    for _ in range(20):
        done = threading.Event()
        world.loop.post(done.set)
        assert done.wait(SECONDS)


def flood(sock: socket.socket) -> None:
    """Until nobody takes more."""
    sock.settimeout(0.3)
    with contextlib.suppress(TimeoutError):
        while True:
            sock.sendall(bytes(1 << 16))


def responding(over: threading.Event) -> Serve:
    """An app that answers anything with :data:`RESPONSE`, and closes."""

    def serve(sock: socket.socket) -> None:
        sock.recv(100)
        sock.sendall(RESPONSE)
        sock.close()
        over.set()

    return serve


@root
def test_a_client_that_has_vanished_is_a_reset_for_its_app(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IDLE", "INTERVAL", "PROBES"):
        monkeypatch.setattr(listener_ports, f"KEEPALIVE_{name}", 1)
    ended: list[type[OSError]] = []

    def serve(sock: socket.socket) -> None:
        try:
            everything(sock)
        except OSError as error:
            ended.append(type(error))

    port = Port(world.server(serve))
    with listener_ports.listener() as listener:
        listener.setblocking(False)
        world.loop.post(lambda: world.worker.listen(listener, port))
        client = world.client(("127.0.0.1", listener.getsockname()[1]))
        client.sendall(b"\0begin")
        world.until(lambda: world.worker.open == 1)
        vanish(client)
        world.until(lambda: ended == [ConnectionResetError])
        world.loop.post(lambda: world.worker.ignore(listener))
        rounds(world)
    assert world.worker.open == 0


@pytest.mark.parametrize("app_ends", [socket.socket.close, reset, pytest.param(vanish, marks=root)])
def test_a_client_that_takes_nothing_is_given_up_once_its_app_is_gone(
    world: World, monkeypatch: pytest.MonkeyPatch, app_ends: Callable[[socket.socket], None]
) -> None:
    monkeypatch.setattr(end, "ABANDONED_SECONDS", 0.3)
    monkeypatch.setattr(dialling, "KEEPALIVE_IDLE", 1)
    over = threading.Event()

    def serve(sock: socket.socket) -> None:
        sock.recv(100)
        if app_ends is socket.socket.close:
            sock.sendall(RESPONSE)
        else:
            flood(sock)
        app_ends(sock)
        over.set()

    world.start(serve)
    deaf(world).sendall(b"\0begin")
    assert over.wait(SECONDS)
    world.until(lambda: world.worker.open == 0)


def test_one_that_takes_nothing_is_kept_as_long_as_its_app_is_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(end, "ABANDONED_SECONDS", 0.01)
    stands, going_on = threading.Event(), threading.Event()

    def serve(sock: socket.socket) -> None:
        sock.recv(100)
        flood(sock)
        stands.set()
        going_on.wait(SECONDS)

    world.start(serve)
    client = deaf(world)
    client.sendall(b"\0begin")
    assert stands.wait(SECONDS)
    rounds(world)
    assert world.worker.open == 1
    threading.Thread(target=going_on.set).start()
    assert everything(client)


def test_a_draining_app_s_last_response_counts_until_its_client_has_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(end, "UNACKNOWLEDGED_SECONDS", SECONDS)
    over = threading.Event()
    port = world.start(responding(over))
    client = deaf(world)
    client.sendall(b"\0begin")
    assert over.wait(SECONDS)
    rounds(world)
    port.draining = True
    assert world.worker.open_on(port) == 1, "closed now it would be reset"
    assert everything(client) == RESPONSE
    world.until(lambda: world.worker.open_on(port) == 0)
    assert world.worker.open == 1, "the client may still send"


def test_a_client_that_takes_nothing_does_not_hold_up_a_draining_pod(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(end, "UNACKNOWLEDGED_SECONDS", 0.2)
    over = threading.Event()
    port = world.start(responding(over))
    port.draining = True
    deaf(world).sendall(b"\0begin")
    assert over.wait(SECONDS)
    world.until(lambda: world.worker.open_on(port) == 0)
    assert world.worker.open == 1


def test_a_connection_is_open_until_its_half_closed_client_has_everything(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rules that translate what the kernel still has to send may be taken away once none is open."""
    monkeypatch.setattr(end, "UNACKNOWLEDGED_SECONDS", SECONDS)
    over = threading.Event()
    world.start(responding(over))
    client = deaf(world)
    client.sendall(b"\0begin")
    client.shutdown(socket.SHUT_WR)
    assert over.wait(SECONDS)
    rounds(world)
    assert world.worker.open == 1
    assert everything(client) == RESPONSE
    world.until(lambda: world.worker.open == 0)


@pytest.mark.parametrize("patience", [1.0, 3600.0], ids=["takes nothing", "is reset"])
def test_such_a_client_is_not_waited_for_when(world: World, monkeypatch: pytest.MonkeyPatch, patience: float) -> None:
    monkeypatch.setattr(end, "UNACKNOWLEDGED_SECONDS", patience)
    over = threading.Event()
    world.start(responding(over))
    client = deaf(world)
    client.sendall(b"\0begin")
    client.shutdown(socket.SHUT_WR)
    assert over.wait(SECONDS)
    rounds(world)
    assert world.worker.open == 1
    if patience > SECONDS:
        reset(client)
    world.until(lambda: world.worker.open == 0)
    if patience < SECONDS:
        assert everything(client) == RESPONSE, "the kernel goes on"


def test_more_connections_read_less_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PIECES_BYTES", 4 * worker.PIECE_BYTES)
    body = os.urandom(1 << 20)
    world.start(answers(body))
    clients = [world.client() for _ in range(4)]
    world.until(lambda: world.worker.open == 4)
    assert len(world.worker.piece) == worker.PIECE_BYTES
    clients += [world.client() for _ in range(12)]
    world.until(lambda: world.worker.open == 16)
    rounds(world)
    assert len(world.worker.piece) == worker.PIECE_BYTES // 4
    clients += [world.client() for _ in range(64)]
    world.until(lambda: world.worker.open == 80)
    rounds(world)
    assert len(world.worker.piece) == 8 << 10
    clients[0].sendall(b"\0\r\n\r\n")
    clients[0].shutdown(socket.SHUT_WR)
    assert everything(clients[0]).endswith(body)
    for client in clients:
        client.close()
    world.until(lambda: len(world.worker.piece) == worker.PIECE_BYTES)
